//! What a quantizer refuses.

/// Input that cannot be quantized, or packed codes that cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// Quantizers here work from 1 to 8 bits.
    #[error("{quantizer} takes bitwidths of 1 to 8, got {got}")]
    BitwidthNotSupported {
        /// Name of the quantizer.
        quantizer: &'static str,
        /// What came.
        got: u8,
    },
    /// There is nothing to quantize.
    #[error("there are no weights to quantize")]
    Empty,
    /// A weight is NaN or infinite.
    #[error("weight {index} is {value}; every weight must be finite")]
    NotFinite {
        /// Place of the first such weight.
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
        /// The length it must have.
        expected: usize,
    },
    /// A code does not fit in its bits.
    #[error("code {code} at {index} does not fit in {bits} bits")]
    CodeTooWide {
        /// Place of the first such code.
        index: usize,
        /// The code.
        code: u8,
        /// The bits it should fit in.
        bits: u8,
    },
    /// The bits after the last packed code are not zero: the bytes were not written by this crate, or
    /// for another number of codes.
    #[error("the {unused} unused high bits of the last byte are not zero: {last:#010b}")]
    Padding {
        /// Number of unused bits.
        unused: u8,
        /// The last byte.
        last: u8,
    },
    /// A tensor could not be read from its device.
    #[error("cannot read the weights from their device: {0}")]
    TensorRead(String),
    /// No quantizer of that name.
    #[error("`{0}` is no quantizer; there are wrpn, dorefa, wrpn-scaled")]
    UnknownKind(String),
}
