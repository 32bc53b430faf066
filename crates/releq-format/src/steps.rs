//! Codes as the whole numbers that scales are multiplied with.

use releq_core::Bitwidth;
use releq_quant::Quantized;

/// How a code becomes a level: weights are `scale * level`, the same numbers in single precision as
/// `scale * (code - zero_point)`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Steps {
    /// Levels from one code to the next.
    per_code: i16,
    /// Minus the level of code 0.
    zero: i16,
    /// One for the layer, or one for each output channel.
    pub(crate) scales: Vec<f32>,
}

impl Steps {
    /// # Errors
    /// The reason, if the zero point is not one that whole numbers can express.
    pub(crate) fn of(scales: &[f32], zero_point: f32) -> Result<Self, String> {
        // Zero may lie half way between two codes, as it does at 1 bit: then there are twice as many steps of half the
        // size. Halving a scale is exact unless it is subnormal.
        let per_code = if zero_point.fract() == 0.0 { 1 } else { 2 };
        let doubled = zero_point * 2.0;
        if doubled.fract() != 0.0 || doubled.abs() > 1024.0 {
            return Err(format!(
                "its zero point {zero_point:?} is neither a whole number nor half way between two"
            ));
        }
        let zero = (zero_point * f32::from(per_code)) as i16;
        let parts: Vec<f32> = scales.iter().map(|scale| scale / f32::from(per_code)).collect();
        let exact = |(whole, part): (&f32, &f32)| part * f32::from(per_code) == *whole;
        if !scales.iter().zip(&parts).all(exact) {
            return Err("its weights are so small that half a scale cannot be expressed".to_owned());
        }
        Ok(Self { per_code, zero, scales: parts })
    }

    /// The level of a code.
    pub(crate) const fn level(&self, code: i16) -> i16 {
        code * self.per_code - self.zero
    }

    /// The lowest and the highest level that the bitwidth has, and whether the levels are symmetric, with one code of `2^bits`
    /// left out.
    pub(crate) fn range(&self, quantized: &Quantized) -> ([i16; 2], bool) {
        let highest_code = highest_code(quantized.bits());
        let most = quantized.codes().iter().fold(0, |most, &code| code.max(most));
        let uses_all = i16::from(most) == highest_code;
        let is_narrow = !uses_all && self.per_code == 1 && 2 * self.zero + 1 == highest_code;
        let highest = self.level(if is_narrow { highest_code - 1 } else { highest_code });
        ([self.level(0), highest], is_narrow)
    }
}

/// The highest code of a bitwidth; no code is wider than 8 bits.
fn highest_code(bits: Bitwidth) -> i16 {
    (1 << bits.get().min(8)) - 1
}
