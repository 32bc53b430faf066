//! WRPN: mid-tread rounding on a fixed range, without any scale.

use releq_core::Bitwidth;

use crate::{
    QuantError, Quantized, Quantizer, binary, mid_tread,
    quantizer::{check, check_gradients, check_length},
};

/// `w_q = round(n * clamp(w, -1, 1)) / n` with `n = 2^(bits - 1) - 1`.
///
/// Zero is a level (mid-tread). There is no scale factor: a weight survives only if it exceeds
/// `1 / (2n)`, so at 2 and 3 bits most weights of a trained network start as zero. The gradient is 1
/// where `|w| <= 1` and 0 elsewhere.
///
/// **1 bit**: the formula has no level but zero, so it is `sign(w) * mean |w|`; the gradient is the
/// same as for more bits and the mean counts as constant.
///
/// # Source
/// Mishra et al. 2017 (arXiv 1709.01134), as in Distiller's `WRPNQuantizer`, which the ReLeQ authors
/// used; without the widening of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrpn;

impl Quantizer for Wrpn {
    fn name(&self) -> &'static str {
        "wrpn"
    }

    fn quantize(&self, weights: &[f32], bits: Bitwidth) -> Result<Quantized, QuantError> {
        Ok(match check(self.name(), weights, bits)? {
            1 => binary::quantize(weights),
            _ => mid_tread::quantize(weights, bits, 1.0),
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
            _ => mid_tread::fake_quantize(weights, bits, 1.0, out),
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
        mid_tread::backward(weights, 1.0, grad_out, grad_in);
        Ok(())
    }

    #[cfg(feature = "burn")]
    fn fake_quantize_tensor(
        &self,
        weights: burn::tensor::Tensor<1>,
        bits: Bitwidth,
    ) -> Result<burn::tensor::Tensor<1>, QuantError> {
        let rounded = crate::tensor::rounded(self, &weights, bits)?;
        Ok(crate::tensor::straight_through(weights.clamp(-1.0, 1.0), rounded))
    }
}
