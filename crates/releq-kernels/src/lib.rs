#![doc = include_str!("../README.md")]

mod bitserial;
mod depthwise;
mod epilogue;
mod error;
mod float;
mod int8;
mod isa;
mod layer;
mod lowbit;
mod matmul;
mod peak;
mod pool;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod requantise;
mod residual;
mod shape;
mod threads;
mod vectorise;
mod workspace;

pub use bitserial::{BitPlanes, BitSerialConv, BitSerialWeights};
pub use depthwise::DepthwiseConv;
pub use epilogue::{Epilogue, Output};
pub use error::KernelError;
pub use float::{
    AvgPool, BatchMoments, ConvGradients, FloatConv, FloatConvShape, FloatDepthwise, FloatNorm,
    FloatScratch, MaxPool, Upstream,
};
pub use int8::{Int8Conv, Int8Weights};
pub use isa::Isa;
pub use layer::{Choice, Kernel, Layer, LayerShape};
pub use lowbit::{LowBitConv, LowBitWeights};
pub use matmul::{Matrix, matmul};
pub use peak::Peak;
pub use pool::{PoolShape, max_pool, sum_pool};
pub use residual::{Addend, add};
pub use shape::{BitPair, ConvShape, GemmShape};
pub use workspace::Workspace;
