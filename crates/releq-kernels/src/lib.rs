#![doc = include_str!("../README.md")]

mod bitserial;
mod epilogue;
mod error;
mod int8;
mod isa;
mod lowbit;
mod matmul;
mod peak;
pub mod reference;
mod shape;
mod threads;
mod vectorise;

pub use bitserial::{BitPlanes, BitSerialConv, BitSerialScratch, BitSerialWeights};
pub use epilogue::{Epilogue, Output};
pub use error::KernelError;
pub use int8::{Int8Conv, Int8Weights, Workspace};
pub use isa::Isa;
pub use lowbit::{LowBitConv, LowBitWeights};
pub use matmul::{Matrix, matmul};
pub use peak::Peak;
pub use shape::{BitPair, ConvShape, GemmShape};
