#![doc = include_str!("../README.md")]

mod bitserial;
mod depthwise;
mod epilogue;
mod error;
mod int8;
mod isa;
mod lowbit;
mod matmul;
mod peak;
mod pool;
pub mod reference;
mod residual;
mod shape;
mod threads;
mod vectorise;

pub use bitserial::{BitPlanes, BitSerialConv, BitSerialScratch, BitSerialWeights};
pub use depthwise::DepthwiseConv;
pub use epilogue::{Epilogue, Output};
pub use error::KernelError;
pub use int8::{Int8Conv, Int8Weights, Workspace};
pub use isa::Isa;
pub use lowbit::{LowBitConv, LowBitWeights};
pub use matmul::{Matrix, matmul};
pub use peak::Peak;
pub use pool::{PoolShape, max_pool, sum_pool};
pub use residual::{Addend, add};
pub use shape::{BitPair, ConvShape, GemmShape};
