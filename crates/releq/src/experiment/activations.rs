//! What the answer loses where its activations are rounded as well, which integer kernels need.

use std::sync::Arc;

use releq_core::{BitwidthAssignment, Weights};
use releq_data::Dataset;
use releq_train::{Calibration, NativeTrainer, RangeRule, RoundedActivations, Trainer};

use super::stages::Run;
use crate::{ReleqError, RoundedAccuracy, evaluate::classify};

/// Most training images that the ranges of activations come from; exports take as many by default.
const IMAGES: usize = 300;

impl Run<'_> {
    /// The accuracy of the answer with activations of 8 bits; `None` where the run keeps no weights, or the ranges of its
    /// activations have no grid.
    pub(super) fn rounded(
        &self,
        answer: &BitwidthAssignment,
    ) -> Result<Option<RoundedAccuracy>, ReleqError> {
        let kept = self.kept.as_ref().and_then(|kept| kept.retrained_weights(answer));
        let Some(weights) = kept else { return Ok(None) };
        match self.rounded_at(answer, &weights) {
            Ok(accuracy) => Ok(Some(accuracy)),
            Err(ReleqError::Cancelled) => Err(ReleqError::Cancelled),
            // The answer is worth having without.
            Err(error) => {
                let error = error.chain();
                log::warn!("the accuracy with activations of 8 bits is not measured: {error}");
                Ok(None)
            }
        }
    }

    fn rounded_at(
        &self,
        answer: &BitwidthAssignment,
        weights: &Weights,
    ) -> Result<RoundedAccuracy, ReleqError> {
        let (images, normalization) = (&self.images, &self.images.normalization);
        let mut trainer = NativeTrainer::new(self.network, Arc::clone(&self.pieces.quantizer))?;
        trainer.load(weights)?;
        trainer.set_bits(Some(answer))?;
        let calibration = images.train.take(images.train.len().min(IMAGES), self.config.seed)?;
        let grids = Calibration::of(&mut trainer, &calibration, normalization)?
            .grids(&trainer, RangeRule::MinMax)?;
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
