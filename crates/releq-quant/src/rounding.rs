//! Rounding half to even, fast enough to do it in every training step.

/// `x` rounded half to even, for `|x| <= 2^22`; a zero comes out positive.
///
/// Between 2^23 and 2^24 neighbouring floats are 1 apart, so that the addition itself rounds, half to
/// even. The plain x86-64 instruction set has no rounding instruction: there `round_ties_even` is a call
/// for every weight, and this is a few vector instructions.
#[inline]
pub(crate) fn round_half_even(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23
    (x + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_library() {
        for i in -4096i16..=4096 {
            for near in [0.0, 1e-5, -1e-5] {
                let x = f32::from(i) / 16.0 + near;
                assert_eq!(round_half_even(x), x.round_ties_even(), "{x}");
            }
        }
    }
}
