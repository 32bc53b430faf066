//! Activations of up to 8 bits: codes from 0 on with one scale and one zero point for a whole layer.

use std::collections::BTreeMap;

use releq_core::Bitwidth;
use serde::{Deserialize, Serialize};

use crate::QuantError;

/// The grid of an activation: `value = scale * (code - zero_point)`, codes from 0 to the [highest](Self::highest).
///
/// ```
/// use releq_core::Bitwidth;
/// use releq_quant::ActivationGrid;
///
/// let grid = ActivationGrid::of_range(-1.0, 1.55, Bitwidth::EIGHT)?;
/// assert_eq!(grid.zero_point, 100);
/// let mut values = [-2.0, 0.0, 0.0149, 9.0];
/// grid.fake_quantize(&mut values);
/// assert_eq!(values.map(|value| (value * 100.0).round()), [-100.0, 0.0, 1.0, 155.0]);
/// # Ok::<(), releq_quant::QuantError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationGrid {
    /// Distance between neighbouring levels.
    pub scale: f32,
    /// The code that stands for zero, which is always a level: padding is zeros.
    pub zero_point: u8,
    /// Bits of a code, 1 to 8. In files, 8 where nothing is said.
    #[serde(default = "eight", skip_serializing_if = "is_eight")]
    pub bits: Bitwidth,
}

const fn eight() -> Bitwidth {
    Bitwidth::EIGHT
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_eight(bits: &Bitwidth) -> bool {
    *bits == Bitwidth::EIGHT
}

impl ActivationGrid {
    /// The grid of so many bits for the values from `min` to `max`, and zero. A range that is zero alone has any scale.
    ///
    /// # Errors
    /// [`QuantError::Scale`] for a bound that is not finite, or a range that is too wide or too narrow for a scale;
    /// [`QuantError::ActivationBits`] for more than 8 bits.
    pub fn of_range(min: f32, max: f32, bits: Bitwidth) -> Result<Self, QuantError> {
        if bits > Bitwidth::EIGHT {
            return Err(QuantError::ActivationBits { bits });
        }
        if let Some(value) = [min, max].into_iter().find(|bound| !bound.is_finite()) {
            return Err(QuantError::Scale { what: "range", value });
        }
        let (min, max) = (min.min(0.0), max.max(0.0));
        if min == max {
            return Ok(Self { scale: 1.0, zero_point: 0, bits });
        }
        let highest = f32::from(highest(bits));
        let scale = (max - min) / highest;
        if !scale.is_normal() {
            return Err(QuantError::Scale { what: "scale", value: scale });
        }
        // One of the codes, since zero is in the range.
        let zero_point = (-min / scale).round_ties_even().clamp(0.0, highest) as u8;
        Ok(Self { scale, zero_point, bits })
    }

    /// The highest code.
    #[must_use]
    pub const fn highest(&self) -> u8 {
        highest(self.bits)
    }

    /// Rounds values to the grid, those beyond its ends to its ends.
    pub fn fake_quantize(&self, values: &mut [f32]) {
        let (zero, highest) = (f32::from(self.zero_point), f32::from(self.highest()));
        for value in values {
            let code = ((*value / self.scale).round_ties_even() + zero).clamp(0.0, highest);
            *value = self.scale * (code - zero);
        }
    }

    /// Whether a value is rounded to a code without being moved to an end of the grid. The gradient of the rounded value is
    /// that of the value where it is, and 0 where not.
    ///
    /// # Source
    /// The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432) as PyTorch's `fake_quantize_per_tensor_affine`
    /// has it.
    #[must_use]
    pub fn covers(&self, value: f32) -> bool {
        let code = (value / self.scale).round_ties_even() + f32::from(self.zero_point);
        (0.0..=f32::from(self.highest())).contains(&code)
    }
}

/// The highest code of so many bits.
const fn highest(bits: Bitwidth) -> u8 {
    match bits.get() {
        bits @ 1..=8 => u8::MAX >> (8 - bits),
        _ => u8::MAX,
    }
}

/// The grids of the activations of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationGrids {
    /// Of its input.
    pub input: ActivationGrid,
    /// Of what layers give, by layer. A convolution whose output nobody reads but a batch norm, and a layer that nobody
    /// reads but a ReLU, have none: their output is rounded after those.
    pub layers: BTreeMap<String, ActivationGrid>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_a_level_and_ranges_end_at_the_outer_codes() {
        // By hand: 255 steps from 0 to 2.55, from -2.55 to 0, and from -1 to 1.55.
        for (min, max, zero_point) in
            [(0.5, 2.55, 0), (-2.55, -1.0, 255), (-1.0, 1.55, 100), (0.0, 2.55, 0)]
        {
            let grid = ActivationGrid::of_range(min, max, Bitwidth::EIGHT).unwrap();
            assert_eq!(grid.zero_point, zero_point);
            assert!((grid.scale - 0.01).abs() < 1e-8, "{grid:?}");
            let mut values = [0.0, -0.0, -9.0, 9.0];
            grid.fake_quantize(&mut values);
            assert_eq!(values[..2], [0.0, 0.0]);
            assert!((values[2] - min.min(0.0)).abs() < 1e-6, "{values:?}");
            assert!((values[3] - max.max(0.0)).abs() < 1e-6, "{values:?}");
        }
        let bits = Bitwidth::EIGHT;
        let nothing = ActivationGrid::of_range(0.0, 0.0, bits).unwrap();
        assert_eq!(nothing, ActivationGrid { scale: 1.0, zero_point: 0, bits });
    }

    #[test]
    fn fewer_bits_have_fewer_levels_and_files_without_a_word_of_them_eight() {
        // By hand: 15 steps from -0.5 to 1, and 1 from 0 to 3.
        let four = ActivationGrid::of_range(-0.5, 1.0, Bitwidth::new(4).unwrap()).unwrap();
        assert_eq!((four.zero_point, four.highest()), (5, 15));
        assert!((four.scale - 0.1).abs() < 1e-7, "{four:?}");
        let mut values = [-9.0, 0.04, 0.06, 9.0];
        four.fake_quantize(&mut values);
        assert_eq!(values.map(|value| (value * 10.0).round()), [-5.0, 0.0, 1.0, 10.0]);
        let one = ActivationGrid::of_range(0.0, 3.0, Bitwidth::ONE).unwrap();
        assert_eq!((one.scale, one.zero_point, one.highest()), (3.0, 0, 1));

        let text = serde_json::to_string(&four).unwrap();
        assert!(text.contains("\"bits\":4"), "{text}");
        assert_eq!(serde_json::from_str::<ActivationGrid>(&text).unwrap(), four);
        let eight: ActivationGrid =
            serde_json::from_str(r#"{"scale": 0.5, "zero_point": 7}"#).unwrap();
        assert_eq!(eight.bits, Bitwidth::EIGHT);
        assert!(!serde_json::to_string(&eight).unwrap().contains("bits"));
        for bits in [Bitwidth::new(9).unwrap(), Bitwidth::FLOAT] {
            assert!(ActivationGrid::of_range(0.0, 1.0, bits).is_err(), "{bits}");
        }
    }

    #[test]
    fn ranges_that_have_no_scale_are_refused() {
        for (min, max) in
            [(f32::NAN, 1.0), (0.0, f32::INFINITY), (-f32::MAX, f32::MAX), (0.0, 1e-44)]
        {
            assert!(ActivationGrid::of_range(min, max, Bitwidth::EIGHT).is_err(), "{min} {max}");
        }
    }
}
