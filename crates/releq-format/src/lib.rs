#![doc = include_str!("../README.md")]

mod bytes;
mod checkpoint;
mod codes;
mod dtype;
mod error;
mod extra;
mod found;
mod integer;
mod names;
pub mod onnx;
pub mod packed;
mod place;
mod pytorch;
mod quantized;
mod recipe;
pub mod safetensors;
mod steps;
mod stored;

pub use checkpoint::{Checkpoint, load};
pub use codes::Codes;
pub use error::{CheckpointError, Mismatch};
pub use found::Found;
pub use integer::{Affine, FloatLayer, IntegerLayer};
pub use names::NameMap;
pub use quantized::{ExportError, QuantizedNetwork};
