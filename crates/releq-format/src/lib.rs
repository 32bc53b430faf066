#![doc = include_str!("../README.md")]

mod checkpoint;
mod error;
mod names;
mod pytorch;
pub mod safetensors;
mod stored;

pub use checkpoint::{Checkpoint, load};
pub use error::{CheckpointError, Mismatch};
pub use names::NameMap;
