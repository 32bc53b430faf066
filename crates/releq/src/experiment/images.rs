//! The images of an experiment: which are trained on, chosen on and tested on.

use std::{collections::BTreeMap, sync::Arc};

use releq_core::{Network, Weights};
use releq_data::{DataError, Dataset, Normalization, Subset, WithLabels, fingerprint};
use releq_train::{
    Trainer as _, TrainerFactory as _, classes_while, initial_weights, training_origin,
};

use super::{
    ExperimentConfig, HeldOut,
    pieces::{AnySplits, Pieces},
};
use crate::{Cancel, ReleqError, evaluate::EVALUATION_BATCH};

const TRAINING: &str = "training";

/// The data of an experiment, split and normalized once.
#[derive(Clone)]
pub(super) struct Images {
    pub(super) train: Subset,
    pub(super) validation: Subset,
    pub(super) search_validation: Subset,
    pub(super) test: Subset,
    pub(super) normalization: Normalization,
    /// What is measured, validation and test images, as it was without labels; `None` where it has labels of its own.
    pub(super) unlabelled: Option<[Subset; 2]>,
    pub(super) source: String,
}

impl Images {
    /// Splits and measures what there is.
    pub(super) fn new(data: AnySplits, config: &ExperimentConfig) -> Result<Self, ReleqError> {
        let (train, test) = (Subset::all(data.train), Subset::all(data.test));
        let ((train, test), validation) = match config.held_out {
            HeldOut::Training => {
                let (train, validation) = train.split(config.validation, config.seed)?;
                ((train, test), validation)
            }
            HeldOut::Test => {
                let (test, validation) = test.split(config.validation, config.seed)?;
                ((train, test), validation)
            }
        };
        Self::of_parts([train, validation, test], data.source, config)
    }

    /// Images that are split already: to train on, to choose on and to test on.
    pub(super) fn of_parts(
        [train, validation, test]: [Subset; 3],
        source: String,
        config: &ExperimentConfig,
    ) -> Result<Self, ReleqError> {
        let search_validation = validation.take(config.search_validation, config.seed)?;
        let normalization = match &config.normalization {
            Some(normalization) => normalization.clone(),
            None => Normalization::measured(&train)?,
        };
        let unlabelled = None;
        Ok(Self { train, validation, search_validation, test, normalization, unlabelled, source })
    }

    /// What tells the images from others, by what they are for. Every image is read.
    pub(super) fn fingerprints(&self) -> Result<BTreeMap<String, String>, DataError> {
        let Self { train, validation, test, .. } = self;
        let sets = [(TRAINING, train), ("validation", validation), ("test", test)];
        sets.into_iter().map(|(what, set)| Ok((what.to_owned(), fingerprint(set)?))).collect()
    }

    /// Those to train on, to choose on and to test on, with no labels but their own.
    pub(super) fn parts(&self) -> [&Subset; 3] {
        let Self { train, validation, test, .. } = self;
        match &self.unlabelled {
            Some([validation, test]) => [train, validation, test],
            None => [train, validation, test],
        }
    }

    /// Whether some of the images that are measured on have no labels.
    fn lack_labels(&self) -> bool {
        [&self.validation, &self.test].iter().any(|images| images.info().classes.is_none())
    }

    /// The same; where a correction is measured on images without labels, labelled with the classes that the given weights
    /// see in full precision.
    pub(super) fn labelled(
        self,
        network: &Network,
        config: &ExperimentConfig,
        pieces: &Pieces,
        given: Option<&Weights>,
        cancel: &Cancel,
    ) -> Result<Self, ReleqError> {
        if config.correction.is_none() || !self.lack_labels() {
            return Ok(self);
        }
        let Some(weights) = given.filter(|_| config.fine_tune.is_none()) else {
            let reason = "must be given, and stay as they are, where images have no labels: what they see in full precision \
                          is what a correction is measured by";
            return Err(ReleqError::Setting { setting: "weights", reason: reason.into() });
        };
        let mut trainer = pieces.trainers.trainer(network, Arc::clone(&pieces.quantizer))?;
        trainer.load(weights)?;
        let normalization = &self.normalization;
        let mut label = |images: Subset| -> Result<Subset, ReleqError> {
            let (batch, go_on) = (EVALUATION_BATCH, || cancel.go_on());
            let labels = classes_while(trainer.as_mut(), &images, normalization, batch, &go_on)?;
            let labels = labels.ok_or(ReleqError::Cancelled)?;
            let labelled: Arc<dyn Dataset> =
                Arc::new(WithLabels::new(images, network.outputs(), labels)?);
            Ok(Subset::all(labelled))
        };
        let unlabelled = [self.validation.clone(), self.test.clone()];
        let (validation, test) = (label(self.validation.clone())?, label(self.test.clone())?);
        let search_validation = validation.take(config.search_validation, config.seed)?;
        Ok(Self { validation, test, search_validation, unlabelled: Some(unlabelled), ..self })
    }
}

/// What the result of a run follows from besides its settings; `images` are their [fingerprints](Images::fingerprints).
pub(super) fn origin(
    network: &Network,
    config: &ExperimentConfig,
    images: &BTreeMap<String, String>,
    given: Option<&Weights>,
) -> BTreeMap<String, String> {
    let (trainer, train) = (config.trainer.to_string(), &images[TRAINING]);
    let mut origin = match given {
        Some(weights) => training_origin(train, weights, &trainer),
        None => training_origin(train, &initial_weights(network, config.seed), &trainer),
    };
    for (what, fingerprint) in images.iter().filter(|(what, _)| *what != TRAINING) {
        origin.insert(format!("{what} data with fingerprint"), fingerprint.clone());
    }
    origin
}
