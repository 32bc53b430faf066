//! What can go wrong with measured latencies.

use std::{io, path::PathBuf};

use releq_kernels::KernelError;

use super::Machine;

/// A latency that cannot be measured, or a table that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LatencyError {
    /// The kernels do not cover a layer or its bitwidths.
    #[error("layer `{layer}`: {source}")]
    Kernel {
        /// Name of the layer.
        layer: String,
        /// What the kernels say.
        source: KernelError,
    },
    /// The kernels have no such layer.
    #[error("layer `{layer}`: no CPU kernel for {what}")]
    Unsupported {
        /// Name of the layer.
        layer: String,
        /// What is missing.
        what: String,
    },
    /// As many bitwidths as layers are needed.
    #[error("{layers} layers but {bits} bitwidths")]
    LengthMismatch {
        /// Number of layers.
        layers: usize,
        /// Number of bitwidths.
        bits: usize,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A file that is no latency table, or a damaged one.
    #[error("{path}: {reason}; delete the file and measure again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// A table of another machine.
    #[error(
        "the latency table was measured on another machine ({there}; this is {here}): measure again here, or say \
         that it may be of any machine"
    )]
    Foreign {
        /// Where it was measured.
        there: Box<Machine>,
        /// This machine.
        here: Box<Machine>,
    },
    /// A table measured otherwise, to which nothing can be added.
    #[error("the latency table has {what} {there}, but {here} is asked for: use another file")]
    Settings {
        /// Name of the setting.
        what: &'static str,
        /// In the table.
        there: String,
        /// Asked for.
        here: String,
    },
}
