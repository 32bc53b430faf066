//! What can go wrong.

use releq_format::{ExportError, packed::PackedError};
use releq_kernels::KernelError;

/// Why a network cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The file cannot be read, or is none.
    #[error(transparent)]
    File(#[from] PackedError),
    /// The codes of a layer cannot be read, where they are still in their file.
    #[error("cannot read the codes of layer `{layer}`")]
    Codes {
        /// The layer.
        layer: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer that the runtime has no kernel for, not even in floating point.
    #[error("layer `{layer}`: the runtime does not compute {op} {reason}")]
    Unsupported {
        /// The layer.
        layer: String,
        /// Its operation.
        op: &'static str,
        /// In which case it does not.
        reason: &'static str,
    },
    /// Codes and parameters do not fit the network.
    #[error(transparent)]
    Network(#[from] ExportError),
    /// A layer has a shape or weights that its kernel does not take.
    #[error("layer `{layer}` does not fit its kernel")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        source: KernelError,
    },
    /// A tensor has more values than the runtime takes.
    #[error("layer `{layer}` gives {values} values; the runtime takes {most}")]
    TooLarge {
        /// The layer.
        layer: String,
        /// Values that leave it.
        values: usize,
        /// The most that the runtime takes.
        most: usize,
    },
    /// There is not enough memory for what leaves the layers.
    #[error("there are no {bytes} bytes of memory for what leaves the layers")]
    Memory {
        /// Bytes that are needed at once.
        bytes: usize,
    },
    /// A factor between two scales is beyond single precision.
    #[error("layer `{layer}`: its scales are too far apart for single precision")]
    Scale {
        /// The layer.
        layer: String,
    },
    /// This processor lacks the instruction set that was asked for.
    #[error(transparent)]
    Isa(KernelError),
    /// An image has another number of values than the network takes.
    #[error(
        "the network takes images of {channels} x {height} x {width}, which are {expected} values; got {got}"
    )]
    Image {
        /// Channels of an image.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Their product.
        expected: usize,
        /// Values that came.
        got: usize,
    },
    /// An image has a value that is no number, or infinite; on integers, it would pass for another one.
    #[error("value {place} of the image is {value}; images have finite numbers")]
    NotFinite {
        /// Place of the value in the image.
        place: usize,
        /// The value.
        value: f32,
    },
    /// There is not as much room for outputs as there are.
    #[error("the network gives {expected} outputs; there is room for {got}")]
    Outputs {
        /// Outputs of the network.
        expected: usize,
        /// Room for them.
        got: usize,
    },
}
