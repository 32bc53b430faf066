//! Fake quantization of Burn tensors with the straight-through estimator.

use burn::tensor::{Device, Tensor, TensorData};
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

/// The weights on the host.
pub(crate) fn read(weights: &Tensor<1>) -> Result<Vec<f32>, QuantError> {
    let data = weights.clone().detach().try_into_data_as::<f32>();
    let data = data.map_err(|error| QuantError::TensorRead(error.to_string()))?;
    data.try_into_vec().map_err(|error| QuantError::TensorRead(format!("{error:?}")))
}

/// The rounded values as a constant on `device`; rounding runs on the host, so that slices and tensors
/// agree to the bit.
pub(crate) fn round_values(
    quantizer: &dyn Quantizer,
    values: &[f32],
    bits: Bitwidth,
    device: &Device,
) -> Result<Tensor<1>, QuantError> {
    let mut out = vec![0.0; values.len()];
    quantizer.fake_quantize(values, bits, &mut out)?;
    Ok(Tensor::from_data(TensorData::new(out, [values.len()]), device))
}

/// [`read`], then [`round_values`] on the device of `weights`.
pub(crate) fn rounded(
    quantizer: &dyn Quantizer,
    weights: &Tensor<1>,
    bits: Bitwidth,
) -> Result<Tensor<1>, QuantError> {
    round_values(quantizer, &read(weights)?, bits, &weights.device())
}

/// `rounded` in value, `smooth` in gradient.
///
/// The difference of `smooth` and itself comes first: it is exactly zero, whereas
/// `smooth + (rounded - smooth)` would round twice and miss the level.
pub(crate) fn straight_through(smooth: Tensor<1>, rounded: Tensor<1>) -> Tensor<1> {
    let zero = smooth.clone() - smooth.detach();
    zero + rounded.detach()
}
