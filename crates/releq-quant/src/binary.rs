//! One bit, the same in every scheme: the sign, scaled by the mean magnitude.

/// `sign(w) * mean |w|`, with the sign of zero taken as positive: appends the codes 0 and 1, whose zero point
/// is [`ZERO_POINT`], and returns their scale.
///
/// A mean magnitude above half of the largest number is taken as that half, because the scale is twice the level and
/// would be infinite.
///
/// # Source
/// Rastegari et al. 2016 (XNOR-Net, arXiv 1603.05279), equation 6; DoReFa-Net (Zhou et al. 2016,
/// arXiv 1606.06160) uses the same rule for its 1-bit weights.
pub(crate) fn quantize(weights: &[f32], codes: &mut Vec<u8>) -> f32 {
    codes.extend(weights.iter().map(|&weight| u8::from(weight >= 0.0)));
    scale(weights)
}

/// [`quantize`], dequantized.
pub(crate) fn fake_quantize(weights: &[f32], out: &mut [f32]) {
    let level = scale(weights) * ZERO_POINT;
    for (out, &weight) in out.iter_mut().zip(weights) {
        *out = if weight >= 0.0 { level } else { -level };
    }
}

/// Zero lies half way between the two levels.
pub(crate) const ZERO_POINT: f32 = 0.5;

/// Distance between the two levels.
fn scale(weights: &[f32]) -> f32 {
    let sum: f64 = weights.iter().map(|weight| f64::from(weight.abs())).sum();
    (2.0 * sum / weights.len() as f64).min(f64::from(f32::MAX)) as f32
}
