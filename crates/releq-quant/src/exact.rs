//! The clip of weights that are quantized already.

use crate::{mid_tread, rounding::round_half_even};

/// Neighbouring floats that are tried: division and product round.
const NEIGHBOURS: [i32; 9] = [0, 1, -1, 2, -2, 3, -3, 4, -4];

/// The clip within which all weights are values of `n` positive levels, to the last bit, if there is one; `max` is the
/// largest magnitude among them. The one of the finest levels, where there are several: weights of fewer bits leave the
/// bits that they have more to whatever they are trained to.
pub(crate) fn clip(weights: &[f32], max: f32, n: f32) -> Option<f32> {
    // The largest magnitude is one of the levels.
    (1..=n as u32).rev().find_map(|level| {
        let step = max / level as f32;
        let is_near = |weight: &f32| {
            let steps = weight / step;
            (steps - round_half_even(steps)).abs() < 1e-3
        };
        // Of other weights, one of the first tells.
        if !weights.iter().all(is_near) {
            return None;
        }
        let clips = NEIGHBOURS
            .into_iter()
            .map(|ulps| f32::from_bits((step * n).to_bits().wrapping_add_signed(ulps)));
        clips
            .filter(|clip| clip.is_finite())
            .find(|&clip| weights.iter().all(|&w| mid_tread::rounded(w, clip, n) == w))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use releq_core::Bitwidth;

    use super::*;

    fn max(weights: &[f32]) -> f32 {
        weights.iter().fold(0.0, |max, weight| weight.abs().max(max))
    }

    proptest! {
        #[test]
        fn levels_are_found_again_whatever_the_clip(
            clip_used in 1e-30f32..1e30, bits in 2u8..=8, codes in prop::collection::vec(-127i32..=127, 1..60)
        ) {
            let n = mid_tread::levels(Bitwidth::new(bits).unwrap());
            let codes = codes.into_iter().map(|code| (code as f32).clamp(-n, n));
            let weights: Vec<f32> = codes.map(|code| clip_used / n * code).collect();
            prop_assume!(max(&weights) > 0.0);
            let found = clip(&weights, max(&weights), n).unwrap();
            for &weight in &weights {
                prop_assert_eq!(mid_tread::rounded(weight, found, n), weight);
            }
        }

        #[test]
        fn weights_of_fewer_bits_get_the_finest_levels(step in 1e-30f32..1e30, signs in prop::collection::vec(-1i32..=1, 2..60)) {
            let weights: Vec<f32> = signs.into_iter().map(|sign| sign as f32 * step).collect();
            prop_assume!(max(&weights) > 0.0);
            let found = clip(&weights, step, 127.0).unwrap();
            // Not every number of levels gives the step back to the last bit.
            prop_assert!((0.999..1.5).contains(&(found / step)), "{} within {}", step, found);
        }

        #[test]
        fn other_weights_have_none(weights in prop::collection::vec(-1.0f32..1.0, 4..60), bits in 2u8..=8) {
            let n = mid_tread::levels(Bitwidth::new(bits).unwrap());
            prop_assume!(max(&weights) > 0.0);
            prop_assert_eq!(clip(&weights, max(&weights), n), None);
        }
    }
}
