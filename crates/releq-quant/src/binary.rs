//! One bit, the same for every scheme: the sign, scaled by the mean magnitude.

use releq_core::Bitwidth;

use crate::Quantized;

/// `sign(w) * mean |w|`, with the sign of zero taken as positive.
///
/// # Source
/// Rastegari et al. 2016 (XNOR-Net, arXiv 1603.05279), equation 6; DoReFa-Net (Zhou et al. 2016,
/// arXiv 1606.06160) uses the same rule for its 1-bit weights.
pub(crate) fn quantize(weights: &[f32]) -> Quantized {
    let sum: f64 = weights.iter().map(|weight| f64::from(weight.abs())).sum();
    Quantized {
        codes: weights.iter().map(|&weight| u8::from(weight >= 0.0)).collect(),
        // Twice the mean magnitude may exceed the range of the type.
        scale: (2.0 * sum / weights.len() as f64).min(f64::from(f32::MAX)) as f32,
        zero_point: 0.5,
        bits: Bitwidth::ONE,
    }
}
