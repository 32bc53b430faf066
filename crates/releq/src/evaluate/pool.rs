//! Trainers that wait for work.

use std::sync::{Arc, Mutex, PoisonError};

use releq_train::{Compared, Taught, Trainer, compare_while, logits_while};

use super::{EVALUATION_BATCH, RetrainSetup};
use crate::ReleqError;

/// The idle trainers of one setup: their buffers live as long as the pool.
pub(crate) struct TrainerPool<'a> {
    setup: RetrainSetup<'a>,
    /// Whether they learn from full precision in place of the labels.
    distilled: bool,
    idle: Mutex<Vec<Box<dyn Trainer>>>,
}

impl<'a> TrainerPool<'a> {
    pub(crate) fn new(setup: RetrainSetup<'a>) -> Self {
        Self { setup, distilled: false, idle: Mutex::default() }
    }

    /// Lets the trainers learn from the network in full precision in place of the labels.
    pub(crate) fn distilled(&mut self) {
        self.distilled = true;
        // Those that wait already learn from the labels.
        self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn trainer(&self) -> Result<Box<dyn Trainer>, ReleqError> {
        let RetrainSetup { network, quantizer, trainers, weights, .. } = self.setup;
        let student = trainers.trainer(network, Arc::clone(quantizer))?;
        if !self.distilled {
            return Ok(student);
        }
        let mut teacher = trainers.trainer(network, Arc::clone(quantizer))?;
        teacher.load(weights)?;
        Ok(Box::new(Taught::new(student, teacher)?))
    }

    pub(crate) const fn setup(&self) -> &RetrainSetup<'a> {
        &self.setup
    }

    /// Outputs in full precision for the validation images.
    pub(crate) fn reference(&self) -> Result<Vec<f32>, ReleqError> {
        let RetrainSetup { validation, normalization, cancel, .. } = self.setup;
        self.with(|trainer| {
            trainer.set_bits(None)?;
            let go_on = || cancel.go_on();
            logits_while(trainer, validation, normalization, EVALUATION_BATCH, &go_on)?
                .ok_or(ReleqError::Cancelled)
        })
    }

    /// The validation images seen by `trainer` as it is, beside those outputs.
    pub(crate) fn compared(
        &self,
        trainer: &mut dyn Trainer,
        reference: &[f32],
    ) -> Result<Compared, ReleqError> {
        let RetrainSetup { validation, normalization, cancel, .. } = self.setup;
        let (batch, go_on) = (EVALUATION_BATCH, || cancel.go_on());
        compare_while(trainer, validation, normalization, batch, reference, &go_on)?
            .ok_or(ReleqError::Cancelled)
    }

    /// What `f` makes of a trainer that has just loaded the full-precision weights.
    pub(crate) fn with<R>(
        &self,
        f: impl FnOnce(&mut dyn Trainer) -> Result<R, ReleqError>,
    ) -> Result<R, ReleqError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut trainer = match taken {
            Some(trainer) => trainer,
            None => self.trainer()?,
        };
        trainer.load(self.setup.weights)?;
        let answer = f(trainer.as_mut());
        idle().push(trainer);
        answer
    }
}
