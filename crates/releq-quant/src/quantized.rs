//! Integer codes with what turns them back into numbers.

use releq_core::Bitwidth;
use serde::{Deserialize, Serialize};

use crate::{PackedCodes, QuantError, quantizer::check_length};

/// Weights of one layer as integer codes: `weight = scale * (code - zero_point)`.
///
/// Codes are unsigned and below `2^bits`. The zero point may lie half way between two codes: then
/// zero is no level (mid-rise).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantized {
    /// One code for every weight.
    pub codes: Vec<u8>,
    /// Distance between two neighbouring levels.
    pub scale: f32,
    /// The code that stands for zero.
    pub zero_point: f32,
    /// Bits that hold every code.
    pub bits: Bitwidth,
}

impl Quantized {
    /// The levels in floating point.
    #[must_use]
    pub fn dequantize(&self) -> Vec<f32> {
        self.codes.iter().map(|&code| self.level(code)).collect()
    }

    /// Writes the levels in floating point.
    ///
    /// # Errors
    /// [`QuantError::Length`] if `out` has another length than there are codes.
    pub fn dequantize_into(&self, out: &mut [f32]) -> Result<(), QuantError> {
        check_length("out", out.len(), self.codes.len())?;
        for (out, &code) in out.iter_mut().zip(&self.codes) {
            *out = self.level(code);
        }
        Ok(())
    }

    /// Packs the codes at exactly `bits` bits each.
    ///
    /// # Errors
    /// [`QuantError::CodeTooWide`] if a code was changed to one that does not fit.
    pub fn pack(&self) -> Result<PackedCodes, QuantError> {
        PackedCodes::pack(&self.codes, self.bits)
    }

    fn level(&self, code: u8) -> f32 {
        self.scale * (f32::from(code) - self.zero_point)
    }
}
