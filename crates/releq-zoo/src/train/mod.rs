//! Training a [`Network`](releq_core::Network): the [`Trainer`] seam, its implementations, and the
//! loops over them.

mod state;
mod trainer;

pub use state::{NetworkState, Parameter};
pub use trainer::{Sgd, TrainError, Trainer};
