//! Measuring how many images a network classifies correctly.

use std::ops::ControlFlow;

use releq_data::{DataError, Dataset, Label, Normalization};
use serde::{Deserialize, Serialize};

use crate::{Hits, TrainError, Trainer, training};

/// Number of correctly classified images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccuracyReport {
    /// Images classified correctly.
    pub correct: usize,
    /// All images.
    pub total: usize,
}

impl AccuracyReport {
    /// Share of images classified correctly, from 0 to 1.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.total.max(1) as f64
    }

    /// Standard error of [`accuracy`](Self::accuracy): `sqrt(p (1 - p) / n)`.
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        let p = self.accuracy();
        (p * (1.0 - p) / self.total.max(1) as f64).sqrt()
    }
}

/// Classifies all images of `data`, `batch_size` at a time.
///
/// The class of the largest output counts.
///
/// # Errors
/// A normalization or images that do not fit, images without labels, a batch size of zero, weights that
/// cannot be quantized, or [`TrainError::NotANumber`] at the first output that is none.
pub fn accuracy(
    trainer: &mut dyn Trainer,
    data: &dyn Dataset,
    normalization: &Normalization,
    batch_size: usize,
) -> Result<AccuracyReport, TrainError> {
    let report =
        accuracy_while(trainer, data, normalization, batch_size, &|| ControlFlow::Continue(()))?;
    Ok(report.unwrap_or(AccuracyReport { correct: 0, total: 0 }))
}

/// As [`accuracy`], but `go_on` is asked before every batch; `None` if it broke off.
///
/// # Errors
/// As [`accuracy`].
pub fn accuracy_while(
    trainer: &mut dyn Trainer,
    data: &dyn Dataset,
    normalization: &Normalization,
    batch_size: usize,
    go_on: &dyn Fn() -> ControlFlow<()>,
) -> Result<Option<AccuracyReport>, TrainError> {
    let hits = hits_while(trainer, data, normalization, batch_size, go_on)?;
    Ok(hits.map(|hits| hits.report()))
}

/// As [`accuracy_while`], image by image.
///
/// # Errors
/// As [`accuracy`].
pub fn hits_while(
    trainer: &mut dyn Trainer,
    data: &dyn Dataset,
    normalization: &Normalization,
    batch_size: usize,
    go_on: &dyn Fn() -> ControlFlow<()>,
) -> Result<Option<Hits>, TrainError> {
    training::check_labels(data)?;
    let outputs = trainer.network().outputs();
    let mut hits = Vec::with_capacity(data.len());
    let done =
        unless_stopped(trainer, data, normalization, batch_size, go_on, |logits, labels| {
            let pairs = logits.chunks_exact(outputs).zip(labels);
            hits.extend(pairs.map(|(logits, &label)| largest(logits) == usize::from(label)));
        })?;
    Ok(done.then_some(Hits::new(hits)))
}

/// The class of the largest output for every image of `data`, `batch_size` at a time; `go_on` is asked before every
/// batch, `None` if it broke off. The first of equal outputs counts.
///
/// # Errors
/// As [`accuracy`]; the images need no labels.
pub fn classes_while(
    trainer: &mut dyn Trainer,
    data: &dyn Dataset,
    normalization: &Normalization,
    batch_size: usize,
    go_on: &dyn Fn() -> ControlFlow<()>,
) -> Result<Option<Vec<Label>>, TrainError> {
    let outputs = trainer.network().outputs();
    let mut classes = Vec::with_capacity(data.len());
    let done = unless_stopped(trainer, data, normalization, batch_size, go_on, |logits, _| {
        let largest = logits.chunks_exact(outputs).map(largest);
        classes.extend(largest.map(|class| Label::try_from(class).unwrap_or(Label::MAX)));
    })?;
    Ok(done.then_some(classes))
}

/// Gives `see` the logits and the labels of every batch of `data`, in order; `false` if `go_on` broke off.
pub(crate) fn unless_stopped(
    trainer: &mut dyn Trainer,
    data: &dyn Dataset,
    normalization: &Normalization,
    batch_size: usize,
    go_on: &dyn Fn() -> ControlFlow<()>,
    mut see: impl FnMut(&[f32], &[Label]),
) -> Result<bool, TrainError> {
    training::check_normalization(data, normalization)?;
    training::check_images(data, trainer.network())?;
    if batch_size == 0 {
        return Err(TrainError::Schedule { field: "batch_size", allowed: "positive", got: 0.0 });
    }
    if data.is_empty() {
        return Err(DataError::Empty { name: data.name().to_owned() }.into());
    }
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let outputs = trainer.network().outputs();
    let labelled = data.info().classes.is_some();
    let indices: Vec<usize> = (0..data.len()).collect();
    for batch in indices.chunks(batch_size) {
        if go_on().is_break() {
            return Ok(false);
        }
        data.gather(batch, normalization, &mut images, &mut labels)?;
        if labelled && labels.len() != batch.len() {
            let (name, index) = (data.name().to_owned(), batch[labels.len().min(batch.len() - 1)]);
            return Err(DataError::MissingLabel { name, index }.into());
        }
        if let Some(&label) = labels.iter().find(|&&label| usize::from(label) >= outputs) {
            return Err(TrainError::Label { label, outputs });
        }
        let logits = trainer.logits(&images)?;
        if logits.len() != batch.len() * outputs {
            let (images, expected, got) = (batch.len(), batch.len() * outputs, logits.len());
            return Err(TrainError::Logits { images, expected, got });
        }
        if let Some(place) = logits.iter().position(|logit| logit.is_nan()) {
            return Err(TrainError::NotANumber { image: batch[place / outputs] });
        }
        see(&logits, &labels);
    }
    Ok(true)
}

/// Index of the largest of numbers, the first of equal ones.
pub(crate) fn largest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use releq_core::{BitwidthAssignment, Network};
    use releq_data::digits::{self, DigitsConfig};
    use releq_quant::QuantizerKind;

    use super::*;
    use crate::{Batch, NativeTrainer, Sgd, TrainerState};

    #[test]
    fn accuracy_counts_and_its_error_is_binomial() {
        let report = AccuracyReport { correct: 80, total: 100 };
        assert_eq!(report.accuracy(), 0.8);
        assert!((report.standard_error() - 0.04).abs() < 1e-12);
        assert_eq!(largest(&[1.0, 3.0, 3.0]), 1);
    }

    /// A trainer whose outputs are given.
    struct Gives(NativeTrainer, fn(usize) -> Vec<f32>);

    impl Trainer for Gives {
        fn network(&self) -> &Network {
            self.0.network()
        }
        fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
            self.0.set_bits(bits)
        }
        fn train_step(&mut self, batch: &Batch<'_>, sgd: Sgd) -> Result<f32, TrainError> {
            self.0.train_step(batch, sgd)
        }
        fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
            Ok(self.1(images.len() / 784))
        }
        fn snapshot(&self) -> TrainerState {
            self.0.snapshot()
        }
        fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
            self.0.restore(state)
        }
    }

    #[test]
    fn outputs_that_are_none_are_no_accuracy() {
        let digits = DigitsConfig { train: 10, test: 20, ..DigitsConfig::default() };
        let data = digits::generate(&digits).unwrap().test;
        let normalization = Normalization::measured(&data).unwrap();
        let softmax = Network::builder("softmax", [1, 28, 28]).flatten("flatten").linear("fc", 10);
        let softmax = softmax.build().unwrap();
        let classified = |gives: fn(usize) -> Vec<f32>| {
            let native = NativeTrainer::new(&softmax, QuantizerKind::Wrpn.build()).unwrap();
            accuracy(&mut Gives(native, gives), &data, &normalization, 8).map_err(|e| e.to_string())
        };
        assert_eq!(classified(|images| vec![0.0; 10 * images]).unwrap().total, 20);
        let nan = classified(|images| {
            let mut logits = vec![f32::INFINITY; 10 * images];
            logits[35] = f32::NAN;
            logits
        });
        assert_eq!(nan.unwrap_err(), "the output for image 3 is not a number");
        let few = classified(|images| vec![0.0; 10 * images - 1]).unwrap_err();
        assert_eq!(few, "8 images have 80 outputs, but the trainer gave 79");
    }
}
