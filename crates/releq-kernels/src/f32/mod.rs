//! f32 kernels to train with, channels-last and on one thread: what the native trainer stands on.
//!
//! Each runs on AVX-512, AVX2 with FMA, or plain Rust. Equal calls on one [`Isa`] give equal bits; two
//! instruction sets may differ in the last bits, since they add products in another order and round fused
//! products once.

mod blocks;
mod conv;
mod depthwise;
mod matmul;
mod norm;
mod operands;
mod pool;
mod tile;
mod vector;

pub use conv::FloatConv;
pub use depthwise::FloatDepthwise;
pub use matmul::{Matrix, matmul};
pub use norm::{BatchMoments, FloatNorm};
pub use operands::{ConvGradients, FloatConvShape, FloatScratch, Upstream};
pub use pool::{AvgPool, MaxPool};
