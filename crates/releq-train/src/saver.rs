//! Keeps the state of a training on disk while it goes on.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use releq_core::Weights;
use releq_kernels::Isa;

use crate::{Trainer, Training, TrainingStateError};

/// Writing large states more seldom keeps it below a twentieth of the time.
const MOST_OF_THE_TIME: u32 = 20;

/// Writes the state of a [`Training`] to a file now and then.
#[derive(Debug)]
pub struct StateSaver {
    path: PathBuf,
    every: Duration,
    last: Instant,
    took: Duration,
}

impl StateSaver {
    /// Ten seconds, the age that a state reaches before it is written again.
    pub const EVERY: Duration = Duration::from_secs(10);

    /// Saves to `path`, for the first time when `every` has passed.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, every: Duration) -> Self {
        Self { path: path.into(), every, last: Instant::now(), took: Duration::ZERO }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Saves if the last state is old enough: older than the time given, and than twenty times what writing
    /// it took.
    ///
    /// # Errors
    /// As [`TrainingState::save`](crate::TrainingState::save). The next attempt comes as late as after a
    /// success.
    pub fn if_due(
        &mut self,
        training: &Training<'_>,
        trainer: &dyn Trainer,
    ) -> Result<(), TrainingStateError> {
        if self.last.elapsed() < self.every.max(self.took * MOST_OF_THE_TIME) {
            return Ok(());
        }
        self.now(training, trainer)
    }

    /// Saves.
    ///
    /// # Errors
    /// As [`TrainingState::save`](crate::TrainingState::save).
    pub fn now(
        &mut self,
        training: &Training<'_>,
        trainer: &dyn Trainer,
    ) -> Result<(), TrainingStateError> {
        let started = Instant::now();
        let saved = training.state(trainer).save(&self.path);
        (self.last, self.took) = (Instant::now(), started.elapsed());
        saved
    }
}

/// What a training follows from beside its schedule and its seed, for [`Training::origin`]: the
/// [fingerprint](releq_data::fingerprint) of the data, that of the weights that it starts from, the name of its trainer, and
/// the version and the instruction set of this program, since sums differ in their last bits between instruction sets.
#[must_use]
pub fn training_origin(data: &str, start: &Weights, trainer: &str) -> BTreeMap<String, String> {
    let entries = [
        ("data with fingerprint", data.to_owned()),
        ("starting weights with fingerprint", start.fingerprint()),
        ("the trainer", trainer.to_owned()),
        ("instruction set", Isa::best().to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    entries.map(|(what, value)| (what.to_owned(), value)).into()
}

#[cfg(test)]
mod tests {
    use releq_data::{
        Normalization,
        digits::{self, DigitsConfig},
        fingerprint,
    };
    use releq_quant::QuantizerKind;

    use super::*;
    use crate::{
        Length, NativeTrainer, Schedule, Sgd, TrainingState, initial_weights, oracle::lenet,
    };

    #[test]
    fn a_state_is_written_when_it_is_due_and_names_its_origin() {
        let config = DigitsConfig { train: 60, test: 10, ..DigitsConfig::default() };
        let data = digits::generate(&config).unwrap().train;
        let normalization = Normalization::measured(&data).unwrap();
        let sgd = Sgd { learning_rate: 0.01, momentum: 0.9, weight_decay: 0.0 };
        let schedule = Schedule::new(Length::Steps(2), 4, sgd);
        let start = initial_weights(&lenet(), 1);
        let mut trainer = NativeTrainer::new(&lenet(), QuantizerKind::Wrpn.build()).unwrap();
        trainer.load(&start).unwrap();
        let origin = training_origin(&fingerprint(&data).unwrap(), &start, "native");
        let mut training = Training::new(&data, &normalization, &schedule, 1).unwrap();
        training = training.origin(origin.clone());
        training.step(&mut trainer).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let mut seldom = StateSaver::new(folder.path().join("seldom"), Duration::from_secs(3600));
        seldom.if_due(&training, &trainer).unwrap();
        assert!(!seldom.path().exists());
        let mut often = StateSaver::new(folder.path().join("often"), Duration::ZERO);
        often.if_due(&training, &trainer).unwrap();
        let run = TrainingState::load(often.path()).unwrap().run;
        assert_eq!(run.report.steps, 1);
        run.check_origin(&origin).unwrap();
        let other = fingerprint(&data.take(59, 0)).unwrap();
        let other = training_origin(&other, &start, "native");
        let message = run.check_origin(&other).unwrap_err().to_string();
        assert!(message.contains("data with fingerprint"), "{message}");
    }
}
