//! Activations of 8 bits: codes from 0 to 255 with one scale and one zero point for a whole layer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::QuantError;

/// The grid of an activation: `value = scale * (code - zero_point)`, codes from 0 to 255.
///
/// ```
/// use releq_quant::ActivationGrid;
///
/// let grid = ActivationGrid::of_range(-1.0, 1.55)?;
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
}

impl ActivationGrid {
    /// The grid of the values from `min` to `max`, and zero. A range that is zero alone has any scale.
    ///
    /// # Errors
    /// [`QuantError::Scale`] for a bound that is not finite, or a range that is too wide or too narrow for a scale.
    pub fn of_range(min: f32, max: f32) -> Result<Self, QuantError> {
        if let Some(value) = [min, max].into_iter().find(|bound| !bound.is_finite()) {
            return Err(QuantError::Scale { what: "range", value });
        }
        let (min, max) = (min.min(0.0), max.max(0.0));
        if min == max {
            return Ok(Self { scale: 1.0, zero_point: 0 });
        }
        let scale = (max - min) / 255.0;
        if !scale.is_normal() {
            return Err(QuantError::Scale { what: "scale", value: scale });
        }
        // Within 0..=255, since zero is in the range.
        let zero_point = (-min / scale).round_ties_even().clamp(0.0, 255.0) as u8;
        Ok(Self { scale, zero_point })
    }

    /// Rounds values to the grid, those beyond its ends to its ends.
    pub fn fake_quantize(&self, values: &mut [f32]) {
        let zero = f32::from(self.zero_point);
        for value in values {
            let code = ((*value / self.scale).round_ties_even() + zero).clamp(0.0, 255.0);
            *value = self.scale * (code - zero);
        }
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
            let grid = ActivationGrid::of_range(min, max).unwrap();
            assert_eq!(grid.zero_point, zero_point);
            assert!((grid.scale - 0.01).abs() < 1e-8, "{grid:?}");
            let mut values = [0.0, -0.0, -9.0, 9.0];
            grid.fake_quantize(&mut values);
            assert_eq!(values[..2], [0.0, 0.0]);
            assert!((values[2] - min.min(0.0)).abs() < 1e-6, "{values:?}");
            assert!((values[3] - max.max(0.0)).abs() < 1e-6, "{values:?}");
        }
        let nothing = ActivationGrid::of_range(0.0, 0.0).unwrap();
        assert_eq!(nothing, ActivationGrid { scale: 1.0, zero_point: 0 });
    }

    #[test]
    fn ranges_that_have_no_scale_are_refused() {
        for (min, max) in
            [(f32::NAN, 1.0), (0.0, f32::INFINITY), (-f32::MAX, f32::MAX), (0.0, 1e-44)]
        {
            assert!(ActivationGrid::of_range(min, max).is_err(), "{min} {max}");
        }
    }
}
