//! Training a [`Network`](releq_core::Network): the [`Trainer`] seam, its implementations, and the
//! loops over them.

mod burn;
#[cfg(test)]
pub(crate) mod conformance;
mod device;
mod dropout;
mod fit;
mod init;
mod native;
mod ops;
#[cfg(test)]
mod reference;
mod state;
mod state_file;
mod trainer;
mod training_state;

pub use burn::BurnTrainer;
pub use fit::{
    AccuracyReport, Decay, Length, Schedule, TrainProgress, TrainReport, Training, accuracy, train,
};
pub use native::NativeTrainer;
pub(crate) use state::parameter_shapes;
pub use state::{NetworkState, OptimizerState, Parameter, weight_std};
pub use state_file::StateError;
pub use trainer::{Sgd, TrainError, Trainer};
pub use training_state::{TrainingRun, TrainingState};
