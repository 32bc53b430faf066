//! The rounding that both WRPN schemes share.

use releq_core::Bitwidth;

use crate::rounding::round_half_even;

/// `clip / n * round(n * clamp(w / clip, -1, 1))` with `n = 2^(bits - 1) - 1`, for 2 bits or more: appends
/// the codes, whose zero point is `n`, and returns their scale.
///
/// The code `2^bits - 1` is unused: there are `2^bits - 1` levels, zero among them.
pub(crate) fn quantize(weights: &[f32], bits: Bitwidth, clip: f32, codes: &mut Vec<u8>) -> f32 {
    let n = levels(bits);
    // Within 0..=254 and whole, so the cast to a code is exact.
    codes.extend(weights.iter().map(|&weight| (steps(weight, clip, n) + n) as u8));
    clip / n
}

/// [`quantize`], dequantized, without the codes in between.
pub(crate) fn fake_quantize(weights: &[f32], bits: Bitwidth, clip: f32, out: &mut [f32]) {
    let n = levels(bits);
    for (out, &weight) in out.iter_mut().zip(weights) {
        *out = rounded(weight, clip, n);
    }
}

/// One weight rounded to one of `n` levels on either side of zero.
#[inline]
pub(crate) fn rounded(weight: f32, clip: f32, n: f32) -> f32 {
    clip / n * steps(weight, clip, n)
}

/// Levels between zero and the weight, from `-n` to `n`.
///
/// Divides by `clip` before it multiplies: `n / clip` is infinite for a tiny clip.
#[inline]
fn steps(weight: f32, clip: f32, n: f32) -> f32 {
    round_half_even((weight / clip).clamp(-1.0, 1.0) * n)
}

/// Positive levels: `2^(bits - 1) - 1`.
pub(crate) fn levels(bits: Bitwidth) -> f32 {
    ((1u32 << (bits.get() - 1)) - 1) as f32
}

/// The straight-through gradient of rounding after a clamp: 1 inside, 0 outside.
pub(crate) fn backward(weights: &[f32], clip: f32, grad_out: &[f32], grad_in: &mut [f32]) {
    for ((grad_in, &grad_out), &weight) in grad_in.iter_mut().zip(grad_out).zip(weights) {
        *grad_in = if weight.abs() <= clip { grad_out } else { 0.0 };
    }
}
