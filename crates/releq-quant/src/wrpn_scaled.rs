//! WRPN with a scale for every layer: our extension.

use releq_core::Bitwidth;
use serde::{Deserialize, Serialize};

use crate::{
    QuantError, Quantized, Quantizer, binary, mid_tread,
    quantizer::{check, check_gradients},
};

/// How [`WrpnScaled`] finds the clip of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clip {
    /// The clip of least mean squared rounding error, looked for at 64 fractions of the largest
    /// magnitude over a histogram of 1,024 bins.
    #[default]
    MinMse,
    /// The largest magnitude. At 2 bits this rounds all but the few largest weights to zero.
    MaxAbs,
}

/// `w_q = c / n * round(n * clamp(w / c, -1, 1))` with `n = 2^(bits - 1) - 1` and a clip `c` for every
/// layer. **Our extension**, neither in the WRPN paper nor in ReLeQ.
///
/// The clip follows the weights from call to call and counts as constant in the gradient, which is 1
/// where `|w| <= c` and, as the clip of the next step would otherwise never let a weight return, also
/// 1 outside.
///
/// **1 bit**: `sign(w) * mean |w|`, gradient 1 everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrpnScaled {
    /// How the clip is found.
    pub clip: Clip,
}

const BINS: usize = 1024;
const FRACTIONS: u32 = 64;

impl WrpnScaled {
    fn clip(&self, weights: &[f32], bits: Bitwidth) -> f32 {
        let max = weights.iter().fold(0.0f32, |max, weight| max.max(weight.abs()));
        if max < f32::MIN_POSITIVE {
            // All zero: any clip gives zeros.
            return 1.0;
        }
        match self.clip {
            Clip::MaxAbs => max,
            Clip::MinMse => max * least_squares_fraction(weights, max, mid_tread::levels(bits)),
        }
    }
}

/// The fraction of `max` that, as a clip, gives the least squared rounding error.
fn least_squares_fraction(weights: &[f32], max: f32, n: f32) -> f32 {
    let mut histogram = [0u32; BINS];
    let to_bin = BINS as f32 / max;
    for weight in weights {
        histogram[((weight.abs() * to_bin) as usize).min(BINS - 1)] += 1;
    }
    let error = |fraction: f32| -> f64 {
        histogram
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bin, &count)| {
                let magnitude = (bin as f32 + 0.5) / BINS as f32;
                let level = (magnitude / fraction * n).min(n).round_ties_even() * fraction / n;
                f64::from(count) * f64::from(magnitude - level).powi(2)
            })
            .sum()
    };
    let (mut best, mut least) = (1.0, f64::INFINITY);
    for step in 1..=FRACTIONS {
        let fraction = step as f32 / FRACTIONS as f32;
        let error = error(fraction);
        if error < least {
            (best, least) = (fraction, error);
        }
    }
    best
}

impl Quantizer for WrpnScaled {
    fn name(&self) -> &'static str {
        "wrpn-scaled"
    }

    fn quantize(&self, weights: &[f32], bits: Bitwidth) -> Result<Quantized, QuantError> {
        Ok(match check(self.name(), weights, bits)? {
            1 => binary::quantize(weights),
            _ => mid_tread::quantize(weights, bits, self.clip(weights, bits)),
        })
    }

    fn backward(
        &self,
        weights: &[f32],
        bits: Bitwidth,
        grad_out: &[f32],
        grad_in: &mut [f32],
    ) -> Result<(), QuantError> {
        check(self.name(), weights, bits)?;
        check_gradients(weights, grad_out, grad_in)?;
        grad_in.copy_from_slice(grad_out);
        Ok(())
    }

    #[cfg(feature = "burn")]
    fn fake_quantize_tensor(
        &self,
        weights: burn::tensor::Tensor<1>,
        bits: Bitwidth,
    ) -> Result<burn::tensor::Tensor<1>, QuantError> {
        let rounded = crate::tensor::rounded(self, &weights, bits)?;
        Ok(crate::tensor::straight_through(weights, rounded))
    }
}
