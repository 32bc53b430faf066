//! WRPN with a scale for every layer: our extension.

use releq_core::Bitwidth;
use serde::{Deserialize, Serialize};

use crate::{
    QuantError, Quantized, Quantizer, binary, least_squares, mid_tread,
    quantizer::{check, check_gradients, check_length, max_abs},
};

/// How [`WrpnScaled`] finds the clip of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clip {
    /// The clip of least mean squared rounding error, looked for over a histogram of the
    /// magnitudes, from the largest one down to 1/512 of it; without randomness.
    #[default]
    MinMse,
    /// The largest magnitude. At 2 bits this rounds all but the few largest weights to zero.
    MaxAbs,
}

/// `w_q = c / n * round(n * clamp(w / c, -1, 1))` with `n = 2^(bits - 1) - 1` and a clip `c` for every
/// layer. **Our extension**, neither in the WRPN paper nor in ReLeQ.
///
/// The clip follows the weights from call to call and counts as constant in the gradient. The gradient is
/// 1 everywhere, outside the clip too: at 2 bits the clip of a bell-shaped layer is about 1.2 standard
/// deviations, and a gradient of 0 beyond it would freeze a fifth of the weights at the outer levels.
///
/// A layer whose largest magnitude is subnormal is rounded to zeros.
///
/// **1 bit**: `sign(w) * mean |w|`, gradient 1 everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrpnScaled {
    /// How the clip is found.
    pub clip: Clip,
}

impl WrpnScaled {
    fn clip(&self, weights: &[f32], bits: Bitwidth) -> f32 {
        let max = max_abs(weights);
        if max < f32::MIN_POSITIVE {
            // All zero, or too small for a scale of full precision: any large clip gives zeros.
            return 1.0;
        }
        // One level times the number of levels may round up; it must not round up to infinity.
        let max = max.min(f32::MAX * 0.999_999);
        match self.clip {
            Clip::MaxAbs => max,
            Clip::MinMse => least_squares::clip(weights, max, mid_tread::levels(bits)),
        }
    }
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

    fn fake_quantize(
        &self,
        weights: &[f32],
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        check_length("out", out.len(), weights.len())?;
        match check(self.name(), weights, bits)? {
            1 => binary::quantize(weights).dequantize_into(out)?,
            _ => mid_tread::fake_quantize(weights, bits, self.clip(weights, bits), out),
        }
        Ok(())
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
