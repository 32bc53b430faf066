//! Integer codes with the scales that turn them back into numbers.

use releq_core::Bitwidth;
use serde::{Deserialize, Serialize};

use crate::{PackedCodes, QuantError, layer_weights::check_length};

/// Weights of one layer as integer codes: `weight = scale * (code - zero_point)`.
///
/// Codes are unsigned and below `2^bits`. There is one scale for the layer, or one for each output channel.
/// The zero point may lie half way between two codes; zero is not a level then (mid-rise).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Quantized {
    codes: Vec<u8>,
    scales: Vec<f32>,
    zero_point: f32,
    bits: Bitwidth,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    codes: Vec<u8>,
    scales: Vec<f32>,
    zero_point: f32,
    bits: Bitwidth,
}

impl TryFrom<Raw> for Quantized {
    type Error = QuantError;
    fn try_from(raw: Raw) -> Result<Self, QuantError> {
        Self::new(raw.codes, raw.scales, raw.zero_point, raw.bits)
    }
}

impl From<Quantized> for Raw {
    fn from(Quantized { codes, scales, zero_point, bits }: Quantized) -> Self {
        Self { codes, scales, zero_point, bits }
    }
}

impl Quantized {
    /// Codes of `bits` bits, row-major `[channels, codes / channels]`, with one scale or one per channel.
    ///
    /// # Errors
    /// [`QuantError::Empty`] without codes; [`QuantError::CodeTooWide`] if a code does not fit in `bits`;
    /// [`QuantError::Channels`] if the number of scales does not divide the number of codes;
    /// [`QuantError::Scale`] for a scale that is negative or not finite, or a zero point that is not finite.
    pub fn new(
        codes: Vec<u8>,
        scales: Vec<f32>,
        zero_point: f32,
        bits: Bitwidth,
    ) -> Result<Self, QuantError> {
        Self::check(codes.len(), &scales, zero_point)?;
        // The union of all codes vectorizes; the place is searched for only where there is one.
        if bits < Bitwidth::EIGHT
            && codes.iter().fold(0, |union, code| union | code) >> bits.get() != 0
            && let Some(index) = codes.iter().position(|code| code >> bits.get() != 0)
        {
            return Err(QuantError::CodeTooWide { index, code: codes[index], bits: bits.get() });
        }
        Ok(Self { codes, scales, zero_point, bits })
    }

    /// Checks what goes with `codes` codes: what [`new`](Self::new) checks, of codes that are elsewhere.
    ///
    /// # Errors
    /// As [`new`](Self::new), except for [`QuantError::CodeTooWide`].
    pub fn check(codes: usize, scales: &[f32], zero_point: f32) -> Result<(), QuantError> {
        if codes == 0 {
            return Err(QuantError::Empty);
        }
        if scales.is_empty() || !codes.is_multiple_of(scales.len()) {
            return Err(QuantError::Channels { values: codes, channels: scales.len() });
        }
        if let Some(&value) = scales.iter().find(|scale| !(scale.is_finite() && **scale >= 0.0)) {
            return Err(QuantError::Scale { what: "scale", value });
        }
        if !zero_point.is_finite() {
            return Err(QuantError::Scale { what: "zero point", value: zero_point });
        }
        Ok(())
    }

    /// One code for each weight, row-major.
    #[must_use]
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// Distance between neighbouring levels: one for the layer, or one for each output channel.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The code that stands for zero.
    #[must_use]
    pub const fn zero_point(&self) -> f32 {
        self.zero_point
    }

    /// Bits of each code.
    #[must_use]
    pub const fn bits(&self) -> Bitwidth {
        self.bits
    }

    /// The quantized weights in floating point.
    #[must_use]
    pub fn dequantize(&self) -> Vec<f32> {
        self.rows()
            .flat_map(|(codes, scale)| codes.iter().map(move |&c| self.level(c, scale)))
            .collect()
    }

    /// Writes the quantized weights in floating point to `out`.
    ///
    /// # Errors
    /// [`QuantError::Length`] if `out` has another length than there are codes.
    pub fn dequantize_into(&self, out: &mut [f32]) -> Result<(), QuantError> {
        check_length("out", out.len(), self.codes.len())?;
        let row_len = self.codes.len() / self.scales.len();
        for (out, (codes, scale)) in out.chunks_exact_mut(row_len).zip(self.rows()) {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = self.level(code, scale);
            }
        }
        Ok(())
    }

    /// Packs the codes at exactly `bits` bits each.
    ///
    /// # Errors
    /// [`QuantError::BitwidthNotSupported`] above 8 bits.
    pub fn pack(&self) -> Result<PackedCodes, QuantError> {
        PackedCodes::pack(&self.codes, self.bits)
    }

    /// The codes that share a scale, and their scale.
    fn rows(&self) -> impl Iterator<Item = (&[u8], f32)> {
        let row_len = self.codes.len() / self.scales.len();
        self.codes.chunks_exact(row_len).zip(self.scales.iter().copied())
    }

    fn level(&self, code: u8, scale: f32) -> f32 {
        scale * (f32::from(code) - self.zero_point)
    }
}
