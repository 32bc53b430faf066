//! The error type of this crate.

use std::{error::Error, fmt};

use releq_core::Bitwidth;

use crate::Quantizer;

/// Why weights cannot be quantized, or codes cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// The quantizer does not support this bitwidth.
    #[error("{quantizer} takes {}, got {got}", Allowed(supported))]
    BitwidthNotSupported {
        /// Name of the quantizer.
        quantizer: String,
        /// The rejected bitwidth.
        got: Bitwidth,
        /// Supported bitwidths, in ascending order.
        supported: Vec<u8>,
    },
    /// There is nothing to quantize.
    #[error("there are no weights to quantize")]
    Empty,
    /// A weight is NaN or infinite.
    #[error("weight {index} is {value}; every weight must be finite")]
    NotFinite {
        /// Index of the first such weight.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// Two slices that belong together differ in length.
    #[error("{what} holds {got} values, {expected} are needed")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The required length.
        expected: usize,
    },
    /// The number of values is not a multiple of the number of channels.
    #[error("{values} values cannot be split evenly into {channels} channels")]
    Channels {
        /// Number of values.
        values: usize,
        /// Number of channels.
        channels: usize,
    },
    /// The quantizer has no integer codes: its levels are not evenly spaced.
    #[error("{quantizer} has no integer codes with a scale, only values in floating point")]
    NoCodes {
        /// Name of the quantizer.
        quantizer: String,
    },
    /// A scale is negative or not finite, or a zero point is not finite.
    #[error("{what} {value:?} of the codes is not allowed; scales must be finite and not negative")]
    Scale {
        /// `scale` or `zero point`.
        what: &'static str,
        /// The rejected value.
        value: f32,
    },
    /// Activations have at most 8 bits.
    #[error("activations of {bits} bits: codes of activations have 1 to 8 bits")]
    ActivationBits {
        /// The rejected bitwidth.
        bits: Bitwidth,
    },
    /// A code does not fit in its bits.
    #[error("code {code} at {index} does not fit in {bits} bits")]
    CodeTooWide {
        /// Index of the first such code.
        index: usize,
        /// The code.
        code: u8,
        /// Number of bits it should fit in.
        bits: u8,
    },
    /// The bits after the last packed code are not zero: the bytes were not written by this crate, or
    /// hold another number of codes.
    #[error("the {unused} unused high bits of the last byte are not zero: {last:#010b}")]
    Padding {
        /// Number of unused bits.
        unused: u8,
        /// The last byte.
        last: u8,
    },
    /// An error of a quantizer outside this crate; see [`QuantError::other`].
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl QuantError {
    /// [`BitwidthNotSupported`](Self::BitwidthNotSupported) with everything that `quantizer` supports.
    #[must_use]
    pub fn unsupported<Q: Quantizer + ?Sized>(quantizer: &Q, got: Bitwidth) -> Self {
        let supports = |bits: &u8| Bitwidth::new(*bits).is_ok_and(|bits| quantizer.supports(bits));
        let supported = (1..=32).filter(supports).collect();
        Self::BitwidthNotSupported { quantizer: quantizer.name().to_owned(), got, supported }
    }

    /// Wraps an error that has no variant here, for quantizers outside this crate.
    ///
    /// ```
    /// let error = releq_quant::QuantError::other("the codebook has not been trained");
    /// assert_eq!(error.to_string(), "the codebook has not been trained");
    /// ```
    pub fn other(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}

/// Bitwidths as text: `1 to 4 or 8 bits`.
struct Allowed<'a>(&'a [u8]);

impl fmt::Display for Allowed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no bitwidth at all");
        }
        for (index, run) in self.0.chunk_by(|low, high| low + 1 == *high).enumerate() {
            f.write_str(if index == 0 { "" } else { " or " })?;
            match run {
                [first, .., last] => write!(f, "{first} to {last}")?,
                _ => write!(f, "{}", run[0])?,
            }
        }
        f.write_str(" bits")
    }
}
