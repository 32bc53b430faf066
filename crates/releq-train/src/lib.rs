#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accuracy;
mod burn;
mod calibrate;
#[cfg(any(test, feature = "testing"))]
mod check;
mod compared;
mod correction;
mod difference;
mod dropout;
mod factory;
mod hits;
mod init;
mod native;
#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod reference;
mod resume;
mod saver;
mod schedule;
mod taught;
mod trainer;
mod training;
#[cfg(test)]
mod windows;

pub use self::burn::BurnTrainer;
pub use accuracy::{AccuracyReport, accuracy, accuracy_while, classes_while, hits_while};
pub use calibrate::{Calibration, RangeRule, RoundedActivations, known_grids};
#[cfg(any(test, feature = "testing"))]
pub use check::check_trainer;
pub use compared::{Compared, Estimate, Labelled, compare_while, logits_while};
pub use correction::{Correction, Corrector, Moments};
pub use factory::{Backend, TrainerFactory, TrainerFn, trainer_fn};
pub use hits::Hits;
pub use init::initial_weights;
pub use native::{NativeTrainer, Visit};
pub use resume::{TrainingRun, TrainingState, TrainingStateError};
pub use saver::{StateSaver, training_origin};
pub use schedule::{Decay, Length, MOST_EPOCHS, Schedule};
pub use taught::Taught;
pub use trainer::{Batch, OptimizerState, Sgd, Target, TrainError, Trainer, TrainerState};
pub use training::{TrainProgress, TrainReport, Training, train};
