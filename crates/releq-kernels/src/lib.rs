#![doc = include_str!("../README.md")]

mod matmul;

pub use matmul::{Matrix, matmul};
