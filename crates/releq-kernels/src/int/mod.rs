//! Inference on integer codes: kernels for weights and activations of 1 to 8 bits, and the layers between them. Every
//! kernel computes exactly the sums of its counterpart in [`mod@reference`].

mod bitserial;
mod depthwise;
mod epilogue;
mod int8;
mod layer;
mod lowbit;
mod pool;
mod product;
mod quantize;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod requantise;
mod residual;
mod scratch;
mod weight_rows;
mod workspace;

pub use bitserial::{BitPlanes, BitSerialConv, BitSerialWeights};
pub use depthwise::DepthwiseConv;
pub use epilogue::{Epilogue, Output};
pub use int8::{Int8Conv, Int8Weights};
pub use layer::{Choice, Kernel, Layer, LayerShape};
pub use lowbit::{LowBitConv, LowBitWeights};
pub use pool::{max_pool, sum_pool};
pub use product::{Factor, multiply};
pub use quantize::{CodeGrid, quantize};
pub use residual::{Addend, ResultCodes, add};
pub(crate) use scratch::Kept;
pub use workspace::Workspace;
