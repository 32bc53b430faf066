//! Trainings that are under way keep their states on disk, and go on from them.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use releq_core::{BitwidthAssignment, Network, Weights};
use releq_data::{Dataset, Normalization};
use releq_train::{Schedule, StateSaver, Trainer, Training, TrainingState};

use super::file_stem;
use crate::{ReleqError, guard::guard};

/// Where trainings of one kind keep their states: a folder with a file for each assignment, or one file for full
/// precision.
#[derive(Debug)]
pub(crate) struct KeptStates {
    folder: PathBuf,
    /// What a training follows from besides what [`Beginning`] has.
    origin: BTreeMap<String, String>,
    every: Duration,
}

/// What a training follows from.
#[derive(Clone, Copy)]
pub(crate) struct Beginning<'a, 's> {
    pub(crate) network: &'s Network,
    pub(crate) train: &'a dyn Dataset,
    pub(crate) normalization: &'a Normalization,
    pub(crate) schedule: &'s Schedule,
    pub(crate) seed: u64,
    /// What it starts from.
    pub(crate) weights: &'s Weights,
    pub(crate) bits: Option<&'s BitwidthAssignment>,
}

impl<'a> Beginning<'a, '_> {
    /// The training before its first step.
    pub(crate) fn training(&self) -> Result<Training<'a>, ReleqError> {
        Ok(Training::new(self.train, self.normalization, self.schedule, self.seed)?)
    }
}

impl KeptStates {
    pub(super) const fn new(
        folder: PathBuf,
        origin: BTreeMap<String, String>,
        every: Duration,
    ) -> Self {
        Self { folder, origin, every }
    }

    fn file(&self, bits: Option<&BitwidthAssignment>) -> PathBuf {
        match bits {
            Some(bits) => self.folder.join(format!("{}.safetensors", file_stem(bits))),
            None => self.folder.with_extension("safetensors"),
        }
    }

    /// What saves the state of the training at `bits`.
    pub(crate) fn saver(&self, bits: Option<&BitwidthAssignment>) -> StateSaver {
        StateSaver::new(self.file(bits), self.every)
    }

    /// Removes the state of a training whose result is on record. If it stays, it does no harm.
    pub(crate) fn forget(&self, bits: Option<&BitwidthAssignment>) {
        let _ = fs::remove_file(self.file(bits));
    }

    /// The training where an earlier life of the run left it, or before its first step. `trainer` is at the beginning.
    pub(crate) fn training<'a>(
        &self,
        beginning: &Beginning<'a, '_>,
        trainer: &mut dyn Trainer,
    ) -> Result<Training<'a>, ReleqError> {
        if self.file(beginning.bits).exists() {
            match guard(|| "trainer".to_owned(), || self.resumed(beginning, trainer)) {
                Ok(training) => return Ok(training),
                // Beginning again gives the same weights, only later.
                Err(error) => {
                    log::warn!("a training begins again: {}", error.chain());
                    trainer.load(beginning.weights)?;
                    trainer.set_bits(beginning.bits)?;
                }
            }
        }
        Ok(beginning.training()?.origin(self.origin.clone()))
    }

    fn resumed<'a>(
        &self,
        beginning: &Beginning<'a, '_>,
        trainer: &mut dyn Trainer,
    ) -> Result<Training<'a>, ReleqError> {
        let Beginning { network, train, normalization, schedule, seed, bits, .. } = *beginning;
        let path = self.file(bits);
        let state = TrainingState::load(&path)?;
        state.run.check_settings(network.name(), schedule, seed)?;
        state.run.check_origin(&self.origin)?;
        if state.run.bits.as_ref() != bits {
            let reason = format!("{} is of other bitwidths", path.display());
            return Err(ReleqError::Resume { field: "bits", reason });
        }
        Ok(Training::resume(train, normalization, &state, trainer)?)
    }
}
