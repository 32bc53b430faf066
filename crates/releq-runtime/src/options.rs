//! How a network is computed.

use std::num::NonZeroUsize;

use releq_kernels::Isa;

/// How a network is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Threads that compute a layer together, if it is large enough. More than there are cores make it slower, and nothing else.
    pub threads: NonZeroUsize,
    /// Which kernels.
    pub mode: Mode,
}

impl Default for Options {
    /// The best instruction set of this processor, one thread, the kernel that suits each layer.
    fn default() -> Self {
        Self { isa: Isa::best(), threads: NonZeroUsize::MIN, mode: Mode::Best }
    }
}

/// Which kernels compute a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The kernel that suits the shape and the bitwidth of each layer.
    #[default]
    Best,
    /// A byte for every weight, whatever its bitwidth: the baseline that shows what fewer bits are worth. The results are the
    /// same.
    Int8,
    /// Single precision throughout, with the quantized weights. Activations are not rounded.
    Float,
}
