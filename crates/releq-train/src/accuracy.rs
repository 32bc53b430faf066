//! Measuring how many images a network classifies correctly.

use std::ops::ControlFlow;

use releq_data::{Dataset, Label, Normalization};
use serde::{Deserialize, Serialize};

use crate::{TrainError, Trainer, training};

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
/// The class of the largest output counts; an output that is not a number is never right.
///
/// # Errors
/// A normalization or images that do not fit, images without labels, a batch size of zero, or weights that
/// cannot be quantized.
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
    training::check_labels(data)?;
    let outputs = trainer.network().outputs();
    let mut correct = 0;
    let done =
        unless_stopped(trainer, data, normalization, batch_size, go_on, |logits, labels| {
            let pairs = logits.chunks_exact(outputs).zip(labels);
            correct +=
                pairs.filter(|&(logits, &label)| largest(logits) == Some(label.into())).count();
        })?;
    Ok(done.then_some(AccuracyReport { correct, total: data.len() }))
}

/// The class of the largest output for every image of `data`, `batch_size` at a time; `go_on` is asked before every
/// batch, `None` if it broke off. The first of equal outputs counts, and class 0 where one is not a number.
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
        let largest = logits.chunks_exact(outputs).map(|logits| largest(logits).unwrap_or(0));
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
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let indices: Vec<usize> = (0..data.len()).collect();
    for batch in indices.chunks(batch_size) {
        if go_on().is_break() {
            return Ok(false);
        }
        data.gather(batch, normalization, &mut images, &mut labels)?;
        see(&trainer.logits(&images)?, &labels);
    }
    Ok(true)
}

/// Index of the largest value, the first of equal ones; `None` if one is not a number.
pub(crate) fn largest(logits: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (index, value) in logits.iter().enumerate() {
        if value.is_nan() {
            return None;
        }
        if *value > logits[best] {
            best = index;
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_counts_and_its_error_is_binomial() {
        let report = AccuracyReport { correct: 80, total: 100 };
        assert_eq!(report.accuracy(), 0.8);
        assert!((report.standard_error() - 0.04).abs() < 1e-12);
        assert_eq!(largest(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(largest(&[f32::NAN, 1.0]), None);
        assert_eq!(largest(&[1.0, f32::NAN]), None);
    }
}
