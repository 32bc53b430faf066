#![doc = include_str!("../README.md")]

mod cpu;
mod error;
mod f32;
mod int;
mod isa;
mod peak;
mod shape;
mod threads;
mod vectorise;

pub use error::KernelError;
pub use f32::{
    AvgPool, BatchMoments, ConvGradients, FloatAxis, FloatConv, FloatConvShape, FloatDepthwise,
    FloatFunction, FloatMap, FloatNorm, FloatPoolShape, FloatPrecision, FloatScratch, Matrix,
    MaxPool, Rectifier, Upstream, matmul,
};
pub use int::{
    Addend, BitPlanes, BitSerialConv, BitSerialWeights, Choice, CodeGrid, DepthwiseConv, Epilogue,
    Factor, Int8Conv, Int8Weights, Kernel, Layer, LayerShape, LowBitConv, LowBitWeights, Output,
    ResultCodes, Workspace, add, max_pool, multiply, quantize, reference, sum_pool,
};
pub use isa::Isa;
pub use peak::Peak;
pub use shape::{BitPair, ConvShape, GemmShape, PoolShape};
pub use threads::Threads;
