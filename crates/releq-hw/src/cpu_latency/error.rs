//! Errors of measured latencies.

use std::{io, path::PathBuf};

use releq_core::{CostError, text::TextError};
use releq_kernels::KernelError;

use super::Machine;

/// Why a latency cannot be measured or a table cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LatencyError {
    /// The kernels do not cover a layer or its bitwidths.
    #[error("layer `{layer}` cannot be measured")]
    Kernel {
        /// Name of the layer.
        layer: String,
        /// The kernels' error.
        source: KernelError,
    },
    /// There is no kernel for such a layer.
    #[error("layer `{layer}`: no CPU kernel for {what}")]
    Unsupported {
        /// Name of the layer.
        layer: String,
        /// What is missing.
        what: String,
    },
    /// A layer that cannot be.
    #[error(transparent)]
    Layer(Box<CostError>),
    /// The numbers of layers and of bitwidths differ.
    #[error("{layers} layers but {bits} bitwidths")]
    LengthMismatch {
        /// Number of layers.
        layers: usize,
        /// Number of bitwidths.
        bits: usize,
    },
    /// A file could not be read as text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A file could not be written.
    #[error("cannot write {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not a latency table, or it is damaged.
    #[error("{path}: {reason}; delete the file and measure again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// The table is of another machine.
    #[error(
        "the latency table was measured on another machine ({there}; this is {here}): measure again here, or \
         allow tables of any machine"
    )]
    Foreign {
        /// The machine of the table.
        there: Box<Machine>,
        /// This machine.
        here: Box<Machine>,
    },
    /// The table was measured with other settings, so nothing can be added to it.
    #[error("the latency table has {what} {there}, but {here} was requested: use another file")]
    Settings {
        /// Name of the setting.
        what: &'static str,
        /// Its value in the table.
        there: String,
        /// The requested value.
        here: String,
    },
}
