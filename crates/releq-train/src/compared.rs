//! Comparing what a network makes of images with what a reference made of them.

use std::ops::ControlFlow;

use releq_data::{Dataset, Normalization};
use serde::{Deserialize, Serialize};

use crate::{
    AccuracyReport, TrainError, Trainer,
    accuracy::{largest, unless_stopped},
    training,
};

/// What the divergence and the cross-entropy of one image count at most, in nats; also where outputs are infinite.
const MOST_NATS: f64 = 100.0;

/// A mean over images, and its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Standard deviation of the images over the root of their number; 0 for a single image.
    pub standard_error: f64,
}

/// A network beside a reference on the same images, usually quantized beside full precision.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Compared {
    /// Kullback-Leibler divergence of the network's classes from the reference's, `sum p ln(p / q)`, in nats. Needs no
    /// labels.
    pub divergence: Estimate,
    /// What the labels tell; `None` for images without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled: Option<Labelled>,
}

/// A network beside a reference on images whose classes are known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Labelled {
    /// Images classified correctly.
    pub accuracy: AccuracyReport,
    /// Cross-entropy with the labels, in nats.
    pub cross_entropy: Estimate,
    /// Images that the network classifies correctly and the reference does not.
    pub won: usize,
    /// Images that the reference classifies correctly and the network does not.
    pub lost: usize,
}

impl Compared {
    /// What stands for a network whose outputs are not numbers: as far from any reference as is counted.
    #[must_use]
    pub const fn not_a_number() -> Self {
        Self { divergence: Estimate { value: MOST_NATS, standard_error: 0.0 }, labelled: None }
    }

    /// The first of its numbers that is none, which only one's own comparison can have.
    #[must_use]
    pub fn not_finite(&self) -> Option<f64> {
        let estimates =
            [Some(self.divergence), self.labelled.map(|labelled| labelled.cross_entropy)];
        let numbers = estimates.into_iter().flatten().flat_map(|e| [e.value, e.standard_error]);
        numbers.into_iter().find(|number| !number.is_finite())
    }
}

impl Labelled {
    /// Accuracy less that of the reference, in 0 to 1. Its standard error is that of a paired difference, since both saw
    /// the same images: much smaller than that of an accuracy where the two mostly agree.
    #[must_use]
    pub fn difference(&self) -> Estimate {
        let (won, lost) = (self.won as f64, self.lost as f64);
        let images = self.accuracy.total.max(1) as f64;
        let difference = won - lost;
        let variance = (won + lost - difference * difference / images).max(0.0);
        Estimate { value: difference / images, standard_error: variance.sqrt() / images }
    }
}

/// Outputs for all images of `data`, `batch_size` at a time; `go_on` is asked before every batch, `None` if it broke off.
///
/// # Shapes
/// - output: `[images, outputs]`
///
/// # Errors
/// A normalization or images that do not fit, a batch size of zero, weights that cannot be quantized, or
/// [`TrainError::NotANumber`] at the first output that is none.
pub fn logits_while(
    trainer: &mut dyn Trainer,
    data: &dyn Dataset,
    normalization: &Normalization,
    batch_size: usize,
    go_on: &dyn Fn() -> ControlFlow<()>,
) -> Result<Option<Vec<f32>>, TrainError> {
    let mut all = Vec::new();
    let done = unless_stopped(trainer, data, normalization, batch_size, go_on, |logits, _| {
        all.extend_from_slice(logits);
    })?;
    Ok(done.then_some(all))
}

/// Compares a network with a reference whose logits for the same images are given; `go_on` is asked before every batch,
/// `None` if it broke off.
///
/// # Shapes
/// - `reference`: `[images, outputs]`
///
/// # Errors
/// As [`logits_while`]; [`TrainError::Teacher`] for another number of logits.
pub fn compare_while(
    trainer: &mut dyn Trainer,
    data: &dyn Dataset,
    normalization: &Normalization,
    batch_size: usize,
    reference: &[f32],
    go_on: &dyn Fn() -> ControlFlow<()>,
) -> Result<Option<Compared>, TrainError> {
    let outputs = trainer.network().outputs();
    if reference.len() != data.len() * outputs {
        return Err(TrainError::Teacher { outputs, got: reference.len() });
    }
    let has_labels = training::check_labels(data).is_ok();
    let mut divergence = Running::default();
    let mut cross_entropy = Running::default();
    let (mut correct, mut won, mut lost) = (0, 0, 0);
    let mut references = reference.chunks_exact(outputs);
    let done =
        unless_stopped(trainer, data, normalization, batch_size, go_on, |logits, labels| {
            // Without labels, `labels` is empty.
            let mut labels = labels.iter();
            for (logits, reference) in logits.chunks_exact(outputs).zip(references.by_ref()) {
                let own = log_softmax(logits);
                divergence.add(kullback_leibler(&log_softmax(reference), &own));
                if let Some(&label) = labels.next().filter(|_| has_labels) {
                    let label = usize::from(label);
                    cross_entropy.add(own.get(label).map_or(MOST_NATS, |log| -log));
                    let right = largest(logits) == label;
                    let reference_right = largest(reference) == label;
                    correct += usize::from(right);
                    won += usize::from(right && !reference_right);
                    lost += usize::from(reference_right && !right);
                }
            }
        })?;
    let labelled = has_labels.then(|| Labelled {
        accuracy: AccuracyReport { correct, total: data.len() },
        cross_entropy: cross_entropy.estimate(),
        won,
        lost,
    });
    Ok(done.then(|| Compared { divergence: divergence.estimate(), labelled }))
}

/// Logarithms of the softmax.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted: Vec<f64> =
        logits.iter().map(|&logit| f64::from(logit) - f64::from(largest)).collect();
    let log_sum = shifted.iter().map(|x| x.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|x| x - log_sum).collect()
}

/// Divergence of `q` from `p`, both logarithms of probabilities.
fn kullback_leibler(p: &[f64], q: &[f64]) -> f64 {
    let sum: f64 = p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum();
    // Rounding may make that of two nearly equal distributions negative. What is no number stays none.
    if sum < 0.0 { 0.0 } else { sum }
}

/// Sums of values and of their squares.
#[derive(Default)]
struct Running {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Running {
    fn add(&mut self, value: f64) {
        let value = if value.is_nan() { MOST_NATS } else { value.min(MOST_NATS) };
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    fn estimate(&self) -> Estimate {
        let count = self.count.max(1) as f64;
        let value = self.sum / count;
        let variance = (self.squares / count - value * value).max(0.0);
        Estimate { value, standard_error: (variance / (count - 1.0).max(1.0)).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_and_its_error_as_worked_out_by_hand() {
        let p = log_softmax(&[0.0, 0.0]);
        let q = log_softmax(&[3.0f32.ln(), 0.0]);
        // 0.5 ln(0.5 / 0.75) + 0.5 ln(0.5 / 0.25)
        assert!((kullback_leibler(&p, &q) - 0.143_841_036).abs() < 1e-6);
        assert_eq!(kullback_leibler(&p, &p), 0.0);
        let mut running = Running::default();
        for value in [1.0, 2.0, 3.0, 6.0] {
            running.add(value);
        }
        let Estimate { value, standard_error } = running.estimate();
        // Sample variance 14 / 3 over 4 images.
        assert!((value - 3.0).abs() < 1e-12 && (standard_error - 1.080_123).abs() < 1e-6);
    }

    #[test]
    fn outputs_that_are_no_numbers_count_as_far_away() {
        let mut running = Running::default();
        let p = log_softmax(&[1.0, 2.0]);
        for logits in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY, 0.0]] {
            running.add(kullback_leibler(&p, &log_softmax(&logits)));
        }
        assert_eq!(running.estimate().value, MOST_NATS);
    }

    #[test]
    fn the_paired_difference_is_of_the_images_that_changed() {
        let accuracy = AccuracyReport { correct: 90, total: 100 };
        let cross_entropy = Estimate::default();
        let labelled = Labelled { accuracy, cross_entropy, won: 1, lost: 5 };
        let Estimate { value, standard_error } = labelled.difference();
        assert!((value + 0.04).abs() < 1e-12);
        // sqrt(6 - 16 / 100) / 100
        assert!((standard_error - 0.024_166).abs() < 1e-6);
    }
}
