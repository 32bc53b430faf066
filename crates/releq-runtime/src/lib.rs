#![doc = include_str!("../README.md")]

mod compile;
mod error;
mod float;
mod graph;
mod lower;
mod model;
mod options;
pub mod reference;
mod slots;
mod step;
mod weights;

pub use error::RuntimeError;
pub use graph::Activation;
pub use model::{LayerPlan, Model};
pub use options::{Mode, Options};
