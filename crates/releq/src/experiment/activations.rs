//! What the answer loses where all of its activations are rounded, which integer kernels need.

use std::sync::Arc;

use releq_core::{BitwidthAssignment, Weights};
use releq_data::Dataset;
use releq_train::{Calibration, NativeTrainer, RangeRule, RoundedActivations, Trainer};

use super::{finals::Finished, stages::Run};
use crate::{ReleqError, RoundedAccuracy, evaluate::classify, plain::Plain};

impl Run<'_> {
    /// Measures the accuracy of the answer with activations of 8 bits, or of those that were searched, unless the finals were
    /// broken off or the run keeps no weights.
    pub(super) fn round_activations(&self, finals: &mut Finished) {
        let over = finals.cancelled || finals.error.is_some();
        let Some((answer, kept)) = finals.answer.as_ref().zip(self.kept.as_ref()).filter(|_| !over)
        else {
            return;
        };
        let Some(weights) = kept.retrained_weights(&answer.bits) else { return };
        match self.rounded(&answer.bits, weights) {
            Ok(accuracy) => finals.rounded = Some(accuracy),
            Err(ReleqError::Cancelled) => finals.cancelled = true,
            // The answer is worth having without.
            Err(error) => {
                let error = error.chain();
                log::warn!("the accuracy with rounded activations is not measured: {error}");
            }
        }
    }

    fn rounded(
        &self,
        answer: &BitwidthAssignment,
        weights: Weights,
    ) -> Result<RoundedAccuracy, ReleqError> {
        let (images, normalization) = (&self.images, &self.images.normalization);
        let plain = Plain::of(self.network, weights, answer)?;
        let mut trainer = NativeTrainer::new(&plain.network, Arc::clone(&self.pieces.quantizer))?;
        trainer.load(&plain.weights)?;
        trainer.set_bits(Some(&plain.bits))?;
        let calibration = images.train.take(Calibration::IMAGES.get(), self.config.seed)?;
        let grids = Calibration::of(&mut trainer, &calibration, normalization)?.grids_beside(
            &trainer,
            RangeRule::MinMax,
            None,
            &plain.grids,
        )?;
        let accuracy = |trainer: &mut dyn Trainer| {
            let hits = classify(trainer, &images.test, normalization, self.cancel)?;
            Ok::<_, ReleqError>(hits.report().accuracy())
        };
        let weights_only = accuracy(&mut trainer)?;
        let with_activations = accuracy(&mut RoundedActivations::new(trainer, &grids))?;
        let calibration_images = calibration.len();
        Ok(RoundedAccuracy { weights_only, with_activations, calibration_images })
    }
}
