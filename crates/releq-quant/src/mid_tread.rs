//! The rounding that both WRPN schemes share.

use releq_core::Bitwidth;

use crate::Quantized;

/// `clip / n * round(n * clamp(w / clip, -1, 1))` with `n = 2^(bits - 1) - 1`, for 2 bits or more.
///
/// The code `2^bits - 1` is unused: there are `2^bits - 1` levels, zero among them.
pub(crate) fn quantize(weights: &[f32], bits: Bitwidth, clip: f32) -> Quantized {
    let n = levels(bits);
    let to_steps = n / clip;
    // Within -127..=127 and whole, so the cast to a code is exact.
    let code = |weight: f32| ((weight * to_steps).clamp(-n, n).round_ties_even() + n) as u8;
    Quantized {
        codes: weights.iter().map(|&weight| code(weight)).collect(),
        scale: clip / n,
        zero_point: n,
        bits,
    }
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
