//! f32 kernels for training, channels-last and single-threaded. The native trainer is built on them.
//!
//! Each runs on AVX-512, AVX2 with FMA, or in plain Rust. Equal calls on the same [`Isa`](crate::Isa) give
//! equal bits. Results of two instruction sets may differ in the last bits, because they add products in a
//! different order and fused multiply-adds round once instead of twice.

mod activation;
mod add_up;
mod axis;
mod bf16;
mod blocks;
mod conv;
mod depthwise;
mod frame;
mod matmul;
mod norm;
mod operands;
mod pool;
mod rectifier;
mod tile;
mod vector;

pub use activation::{FloatFunction, FloatMap};
pub use axis::FloatAxis;
pub use bf16::FloatPrecision;
pub use conv::FloatConv;
pub use depthwise::FloatDepthwise;
pub use matmul::{Matrix, matmul};
pub use norm::{BatchMoments, FloatNorm};
pub use operands::{ConvGradients, FloatConvShape, FloatScratch, Upstream};
pub use pool::{AvgPool, FloatPoolShape, MaxPool};
pub use rectifier::Rectifier;
