//! Fake quantization of Burn tensors with the straight-through estimator.

use burn::tensor::{Tensor, TensorData};
use releq_core::Bitwidth;

use crate::{QuantError, Quantizer};

/// Rounds a weight tensor of any rank to the levels of `bits`; the whole tensor is one layer.
///
/// On an autodiff device the gradient passes as [`Quantizer::backward`] says.
///
/// # Shapes
/// - `weights` and output: any, as `[out_channels, in_channels, kernel, kernel]`
///
/// # Errors
/// As [`Quantizer::quantize`].
pub fn fake_quantize<const D: usize>(
    quantizer: &dyn Quantizer,
    weights: Tensor<D>,
    bits: Bitwidth,
) -> Result<Tensor<D>, QuantError> {
    let shape = weights.shape();
    let flat = weights.reshape([shape.num_elements()]);
    Ok(quantizer.fake_quantize_tensor(flat, bits)?.reshape(shape))
}

/// The rounded values as a constant on the device of `weights`; rounding runs on the host, so that
/// slices and tensors agree to the bit.
pub(crate) fn rounded(
    quantizer: &dyn Quantizer,
    weights: &Tensor<1>,
    bits: Bitwidth,
) -> Result<Tensor<1>, QuantError> {
    let values = weights.clone().detach().into_data().convert::<f32>();
    let values = values.as_slice::<f32>().unwrap_or_default();
    let mut out = vec![0.0; values.len()];
    quantizer.fake_quantize(values, bits, &mut out)?;
    let len = out.len();
    Ok(Tensor::from_data(TensorData::new(out, [len]), &weights.device()))
}

/// `rounded` in value, `smooth` in gradient.
pub(crate) fn straight_through(smooth: Tensor<1>, rounded: Tensor<1>) -> Tensor<1> {
    let difference = rounded - smooth.clone().detach();
    smooth + difference.detach()
}
