//! Powers of two: levels that a shift can multiply by.

use releq_core::Bitwidth;

use crate::{LayerWeights, QuantError, Quantizer, layer_weights::max_abs};

/// Rounds to `{0, ±2^n2, ..., ±2^n1}`, so that a product with a weight is a shift. From 2 to 8 bits.
///
/// With `s = max |w|` over the layer, `n1 = floor(log2(4 s / 3))`, the power of two nearest to `s`, and
/// `n2 = n1 + 1 - 2^(bits - 2)`: `2^(bits - 2)` magnitudes of either sign, and zero. A weight goes to the
/// nearest level, and from half way between two levels to the one of larger magnitude. The levels are fine
/// near zero and coarse near `s`, where more bits do not help: beyond 4 or 5 bits they only add
/// levels near zero.
///
/// The levels are not evenly spaced, so there are no integer codes with a scale:
/// [`quantize`](Quantizer::quantize) is [`QuantError::NoCodes`]. Levels below the smallest normal number,
/// 2^-126, are left out, and `n1` is at most 127.
///
/// # Source
/// Zhou et al. 2017, *Incremental Network Quantization* (arXiv 1702.03044), equations 1 to 4: its levels and
/// its rounding. Its training is not here: it quantizes a growing share of the weights and retrains the
/// rest in full precision. Here all weights are quantized at once, and the gradient passes straight through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowersOfTwo;

/// Bits of an f32 that hold its exponent.
const EXPONENT: u32 = 0x7f80_0000;
/// The highest bit of the mantissa: half of the distance to the next power of two.
const HALF: u32 = 0x0040_0000;
/// The smallest normal number, as bits, and the distance between two powers of two.
const STEP: u32 = 0x0080_0000;

/// Bits of the power of two nearest to `magnitude`, half way upwards; zero below 2^-127.
///
/// `1.5 * 2^k`, half way between two powers, has the highest bit of the mantissa set. Adding this bit carries
/// into the exponent from there on.
#[inline]
fn nearest_power(magnitude: f32) -> u32 {
    (magnitude.to_bits() + HALF) & EXPONENT
}

impl Quantizer for PowersOfTwo {
    fn name(&self) -> &str {
        "powers-of-two"
    }

    fn supports(&self, bits: Bitwidth) -> bool {
        (2..=8).contains(&bits.get())
    }

    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        weights.check(self, bits)?;
        weights.check_length("out", out.len())?;
        let top = nearest_power(max_abs(weights.values())).min(f32::MAX.to_bits() & EXPONENT);
        if top == 0 {
            out.fill(0.0);
            return Ok(());
        }
        let magnitudes = 1u32 << (bits.get() - 2);
        let bottom = top.saturating_sub((magnitudes - 1) * STEP).max(STEP);
        // Below half of the smallest magnitude, zero is nearer.
        let threshold = f32::from_bits(bottom) / 2.0;
        for (out, &weight) in out.iter_mut().zip(weights.values()) {
            let magnitude = weight.abs();
            let level = f32::from_bits(nearest_power(magnitude).clamp(bottom, top));
            *out = if magnitude < threshold { 0.0 } else { level.copysign(weight) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(weights: &[f32], bits: u8) -> Vec<f32> {
        let mut out = vec![f32::NAN; weights.len()];
        PowersOfTwo.fake_quantize(weights.into(), Bitwidth::new(bits).unwrap(), &mut out).unwrap();
        out
    }

    #[test]
    fn levels_are_those_of_the_paper() {
        // s = 0.9: n1 = floor(log2(1.2)) = 0. At 3 bits n2 = 0 + 1 - 2 = -1, at 4 bits n2 = 1 - 4 = -3.
        let weights = [0.9, -0.75, 0.74, 0.375, -0.374, 0.25, 0.249, 0.0625, 0.062, 0.0, -0.0];
        let expected = [1.0, -1.0, 0.5, 0.5, -0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(levels(&weights, 3), expected);
        let expected = [1.0, -1.0, 0.5, 0.5, -0.25, 0.25, 0.25, 0.125, 0.0, 0.0, 0.0];
        assert_eq!(levels(&weights, 4), expected);
        // At 2 bits n2 = n1: ternary.
        let expected = [1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(levels(&weights, 2), expected);
    }

    /// The equations of the paper, searched level by level.
    fn reference(weights: &[f32], bits: i32) -> Vec<f32> {
        let s = weights.iter().fold(0.0f64, |max, w| max.max(f64::from(w.abs())));
        let n1 = (4.0 * s / 3.0).log2().floor() as i32;
        let n2 = n1 + 1 - 2i32.pow(bits as u32 - 1) / 2;
        let round = |&w: &f32| {
            let magnitude = f64::from(w).abs();
            let mut level = 0.0;
            let mut below = 0.0;
            for n in n2..=n1 {
                let beta = 2f64.powi(n);
                if (below + beta) / 2.0 <= magnitude && magnitude < 3.0 * beta / 2.0 {
                    level = beta;
                }
                below = beta;
            }
            (level * f64::from(w).signum()) as f32
        };
        weights.iter().map(round).collect()
    }

    proptest::proptest! {
        #[test]
        fn rounding_is_that_of_the_paper(
            weights in proptest::collection::vec(-3.0f32..3.0, 1..100),
            bits in 2u8..=8,
        ) {
            // Far from the smallest normal number, where levels are left out.
            let reference = reference(&weights, bits.into());
            let rounded = levels(&weights, bits);
            proptest::prop_assert_eq!(&rounded, &reference);
            proptest::prop_assert_eq!(levels(&rounded, bits), rounded, "idempotent");
        }
    }

    #[test]
    fn extremes_stay_within_the_type() {
        assert_eq!(levels(&[f32::MAX, 1.0], 2), [2f32.powi(127), 0.0]);
        assert_eq!(levels(&[1e-45, -1e-40], 8), [0.0, 0.0]);
        assert_eq!(
            levels(&[f32::MIN_POSITIVE, 6e-39, 5e-39], 8),
            [f32::MIN_POSITIVE, f32::MIN_POSITIVE, 0.0]
        );
    }
}
