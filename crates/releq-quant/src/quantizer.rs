//! The seam that every scheme implements.

use releq_core::Bitwidth;

use crate::{QuantError, Quantized};

/// Rounds the weights of one layer to the few levels that a bitwidth allows.
///
/// One call sees all weights of a layer: granularity is per layer. Rounding is half to even.
pub trait Quantizer: Send + Sync + std::fmt::Debug {
    /// Name of the scheme, as `wrpn`.
    fn name(&self) -> &'static str;

    /// Rounds to integer codes with a scale and a zero point.
    ///
    /// # Errors
    /// [`QuantError`] for a bitwidth outside 1 to 8, no weights, or a weight that is not finite.
    fn quantize(&self, weights: &[f32], bits: Bitwidth) -> Result<Quantized, QuantError>;

    /// Rounds to the levels and writes them in floating point.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize), or if `out` has another length.
    fn fake_quantize(
        &self,
        weights: &[f32],
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        check_length("out", out.len(), weights.len())?;
        self.quantize(weights, bits)?.dequantize_into(out)
    }

    /// Gradient with respect to the weights from the one with respect to the quantized weights: the
    /// straight-through estimator, which takes the derivative of rounding as 1.
    ///
    /// # Errors
    /// As [`fake_quantize`](Self::fake_quantize).
    fn backward(
        &self,
        weights: &[f32],
        bits: Bitwidth,
        grad_out: &[f32],
        grad_in: &mut [f32],
    ) -> Result<(), QuantError>;

    /// [`fake_quantize`](Self::fake_quantize) on a tensor, differentiable as
    /// [`backward`](Self::backward) says.
    ///
    /// # Shapes
    /// - `weights` and output: `[weights of the layer]`; see [`fake_quantize`](crate::fake_quantize)
    ///   for tensors of any rank
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize).
    #[cfg(feature = "burn")]
    fn fake_quantize_tensor(
        &self,
        weights: burn::tensor::Tensor<1>,
        bits: Bitwidth,
    ) -> Result<burn::tensor::Tensor<1>, QuantError>;
}

macro_rules! forward {
    ($($type:ty),+) => {$(
        impl<Q: Quantizer + ?Sized> Quantizer for $type {
            fn name(&self) -> &'static str {
                (**self).name()
            }
            fn quantize(&self, weights: &[f32], bits: Bitwidth) -> Result<Quantized, QuantError> {
                (**self).quantize(weights, bits)
            }
            fn fake_quantize(
                &self,
                weights: &[f32],
                bits: Bitwidth,
                out: &mut [f32],
            ) -> Result<(), QuantError> {
                (**self).fake_quantize(weights, bits, out)
            }
            fn backward(
                &self,
                weights: &[f32],
                bits: Bitwidth,
                grad_out: &[f32],
                grad_in: &mut [f32],
            ) -> Result<(), QuantError> {
                (**self).backward(weights, bits, grad_out, grad_in)
            }
            #[cfg(feature = "burn")]
            fn fake_quantize_tensor(
                &self,
                weights: burn::tensor::Tensor<1>,
                bits: Bitwidth,
            ) -> Result<burn::tensor::Tensor<1>, QuantError> {
                (**self).fake_quantize_tensor(weights, bits)
            }
        }
    )+};
}
forward!(&Q, Box<Q>);

/// Refuses what no scheme can take; gives the number of bits.
pub(crate) fn check(
    quantizer: &'static str,
    weights: &[f32],
    bits: Bitwidth,
) -> Result<u32, QuantError> {
    if bits > Bitwidth::EIGHT {
        return Err(QuantError::BitwidthNotSupported { quantizer, got: bits.get() });
    }
    if weights.is_empty() {
        return Err(QuantError::Empty);
    }
    if max_abs(weights).is_finite() {
        return Ok(u32::from(bits.get()));
    }
    let index = weights.iter().position(|weight| !weight.is_finite()).unwrap_or_default();
    Err(QuantError::NotFinite { index, value: weights[index] })
}

/// The largest magnitude; infinite or NaN if a weight is.
///
/// Without their sign, floats are ordered as their bits are, infinity and then NaN last. A maximum of
/// integers runs on vectors, and none is lost in it, as NaN is in a maximum of floats.
pub(crate) fn max_abs(weights: &[f32]) -> f32 {
    f32::from_bits(weights.iter().fold(0, |max, weight| max.max(weight.abs().to_bits())))
}

pub(crate) fn check_length(
    what: &'static str,
    got: usize,
    expected: usize,
) -> Result<(), QuantError> {
    if got == expected { Ok(()) } else { Err(QuantError::Length { what, got, expected }) }
}

/// Refuses gradients of another length than the weights.
pub(crate) fn check_gradients(
    weights: &[f32],
    grad_out: &[f32],
    grad_in: &[f32],
) -> Result<(), QuantError> {
    check_length("grad_out", grad_out.len(), weights.len())?;
    check_length("grad_in", grad_in.len(), weights.len())
}
