//! WRPN: mid-tread rounding on a fixed range, without any scale.

use releq_core::Bitwidth;

use crate::{
    LayerWeights, QuantError, Quantized, Quantizer, binary, mid_tread, quantizer::check_gradients,
};

/// `w_q = round(n * clamp(w, -1, 1)) / n` with `n = 2^(bits - 1) - 1`.
///
/// Zero is a level (mid-tread). There is no scale factor: a weight survives only if it exceeds
/// `1 / (2n)`, so at 2 and 3 bits most weights of a trained network start as zero. The gradient is 1
/// where `|w| <= 1` and 0 elsewhere.
///
/// **1 bit**: the formula has no level but zero, so it is `sign(w) * mean |w|` over the layer; the gradient
/// is the same as for more bits, and the mean counts as constant.
///
/// # Source
/// Mishra et al. 2017 (arXiv 1709.01134), as in Distiller's `WRPNQuantizer`, which the ReLeQ authors
/// used; without the widening of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrpn;

impl Quantizer for Wrpn {
    fn name(&self) -> &str {
        "wrpn"
    }

    fn supports(&self, bits: Bitwidth) -> bool {
        bits <= Bitwidth::EIGHT
    }

    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        weights.check(self, bits)?;
        weights.check_length("out", out.len())?;
        match bits {
            Bitwidth::ONE => binary::fake_quantize(weights.values(), out),
            _ => mid_tread::fake_quantize(weights.values(), bits, 1.0, out),
        }
        Ok(())
    }

    fn backward(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        grad_out: &[f32],
        grad_in: &mut [f32],
    ) -> Result<(), QuantError> {
        check_gradients(self, weights, bits, grad_out, grad_in)?;
        mid_tread::backward(weights.values(), 1.0, grad_out, grad_in);
        Ok(())
    }

    fn quantize(&self, weights: LayerWeights<'_>, bits: Bitwidth) -> Result<Quantized, QuantError> {
        weights.check(self, bits)?;
        let mut codes = Vec::with_capacity(weights.len());
        let (scale, zero_point) = match bits {
            Bitwidth::ONE => (binary::quantize(weights.values(), &mut codes), binary::ZERO_POINT),
            _ => {
                let scale = mid_tread::quantize(weights.values(), bits, 1.0, &mut codes);
                (scale, mid_tread::levels(bits))
            }
        };
        Quantized::new(codes, vec![scale], zero_point, bits)
    }
}
