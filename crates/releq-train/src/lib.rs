#![doc = include_str!("../README.md")]

mod burn;
#[cfg(test)]
pub(crate) mod check;
mod dropout;
mod factory;
mod init;
mod native;
#[cfg(test)]
mod reference;
mod resume;
mod trainer;
mod training;

pub use self::burn::BurnTrainer;
pub use factory::{Backend, TrainerFactory};
pub use init::initial_weights;
pub use native::NativeTrainer;
pub use resume::{TrainingRun, TrainingState, TrainingStateError};
pub use trainer::{OptimizerState, Sgd, TrainError, Trainer};
pub use training::{
    AccuracyReport, Decay, Length, Schedule, TrainProgress, TrainReport, Training, accuracy, train,
};
