#![doc = include_str!("../README.md")]

mod bitserial;
mod error;
mod isa;
mod matmul;
pub mod reference;
mod shape;

pub use bitserial::{BitPlanes, BitSerialConv, BitSerialScratch, BitSerialWeights};
pub use error::KernelError;
pub use isa::Isa;
pub use matmul::{Matrix, matmul};
pub use shape::{BitPair, ConvShape, GemmShape};
