#![doc = include_str!("../README.md")]

mod error;
mod isa;
mod matmul;
pub mod reference;
mod shape;

pub use error::KernelError;
pub use isa::Isa;
pub use matmul::{Matrix, matmul};
pub use shape::{BitPair, ConvShape, GemmShape};
