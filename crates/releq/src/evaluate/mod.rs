//! How good is an assignment of bitwidths? The [`Evaluator`] seam and its implementations.

mod by_divergence;
mod cached;
#[cfg(any(test, feature = "testing"))]
mod check;
mod each;
mod early_stop;
mod parallel;
mod pool;
mod retrain;
mod table;

use releq_core::BitwidthAssignment;
use releq_train::Compared;
use serde::{Deserialize, Serialize};

pub use by_divergence::ByDivergence;
pub use cached::Cached;
#[cfg(any(test, feature = "testing"))]
pub use check::check_evaluator;
pub(crate) use each::{each, each_unknown};
pub use early_stop::EarlyStop;
pub use parallel::Parallel;
pub(crate) use pool::TrainerPool;

pub(crate) use retrain::{EVALUATION_BATCH, Way, classify, unless_diverged};
pub use retrain::{Retrain, RetrainSetup, Retrained};
pub use table::{OnMiss, Table};

use crate::{ReleqError, guard::guard};

/// What was measured of an assignment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Measurement {
    /// Share of samples classified correctly, in 0 to 1.
    pub accuracy: f64,
    /// Standard error of `accuracy` from the number of samples, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Its outputs beside those in full precision, where they were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
    /// What the accuracy is taken to be where it is judged by something less noisy ([`ByDivergence`]); rewards follow from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated: Option<f64>,
    /// The measured assignment that answered in place of the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<BitwidthAssignment>,
}

impl Measurement {
    /// An accuracy and nothing else.
    #[must_use]
    pub const fn new(accuracy: f64) -> Self {
        Self { accuracy, standard_error: None, compared: None, estimated: None, answered_by: None }
    }

    /// The same with a standard error.
    #[must_use]
    pub fn with_standard_error(self, standard_error: f64) -> Self {
        Self { standard_error: Some(standard_error), ..self }
    }

    /// The same with a comparison with full precision.
    #[must_use]
    pub fn with_compared(self, compared: Compared) -> Self {
        Self { compared: Some(compared), ..self }
    }

    /// The same, measured of another assignment than the one asked for.
    #[must_use]
    pub fn of(self, bits: BitwidthAssignment) -> Self {
        Self { answered_by: Some(bits), ..self }
    }
}

/// Answer to "how good is this assignment?".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Evaluation {
    /// It was measured.
    Measured(Measurement),
    /// The retrain was given up ([`EarlyStop`]); what was measured is from that moment.
    GivenUp {
        /// Steps taken until then.
        after_step: usize,
        /// What was measured then.
        seen: Measurement,
    },
    /// Nothing was measured, as where the loss became NaN: the search counts the assignment as failed and
    /// goes on.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Evaluation {
    /// An accuracy in 0 to 1 and nothing else.
    #[must_use]
    pub const fn new(accuracy: f64) -> Self {
        Self::Measured(Measurement::new(accuracy))
    }

    /// An evaluation that failed.
    #[must_use]
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into() }
    }

    /// The accuracy, unless the evaluation failed.
    #[must_use]
    pub const fn accuracy(&self) -> Option<f64> {
        match self {
            Self::Measured(measured) | Self::GivenUp { seen: measured, .. } => {
                Some(measured.accuracy)
            }
            Self::Failed { .. } => None,
        }
    }

    /// The evaluation itself, or a failed one if its accuracy is not in 0 to 1, or the standard error not a
    /// positive number or 0, nor what it compared.
    #[must_use]
    pub(crate) fn checked(self) -> Self {
        let (Self::Measured(seen) | Self::GivenUp { seen, .. }) = &self else { return self };
        for accuracy in [Some(seen.accuracy), seen.estimated].into_iter().flatten() {
            if !(0.0..=1.0).contains(&accuracy) {
                return Self::failed(format!("the evaluator returned an accuracy of {accuracy}"));
            }
        }
        if let Some(nats) = seen.compared.as_ref().and_then(Compared::not_finite) {
            return Self::failed(format!("the evaluator returned a comparison with {nats} nats"));
        }
        match seen.standard_error {
            Some(error) if !(0.0..=f64::MAX).contains(&error) => {
                Self::failed(format!("the evaluator returned a standard error of {error}"))
            }
            _ => self,
        }
    }
}

impl From<Measurement> for Evaluation {
    fn from(measured: Measurement) -> Self {
        Self::Measured(measured)
    }
}

/// Measures the accuracy of a network at given bitwidths.
///
/// An answer may depend on the assignment alone: not on the order of questions, nor on the thread. An
/// evaluator owns its workers: how many assignments are measured side by side is its own affair;
/// [`Parallel`] adds threads to one that has none.
///
/// ```
/// use releq::{ReleqError, core::BitwidthAssignment, evaluate::{Evaluation, Evaluator}};
///
/// /// Pretends that every layer needs three bits.
/// struct ThreeBits;
///
/// impl Evaluator for ThreeBits {
///     fn full_precision(&self) -> f64 {
///         0.99
///     }
///     fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
///         let missing: u8 = bits.to_bits().iter().map(|&b| 3u8.saturating_sub(b)).sum();
///         Ok(Evaluation::new((0.99 - 0.2 * f64::from(missing)).max(0.0)))
///     }
/// }
/// ```
pub trait Evaluator: Send + Sync {
    /// Accuracy in full precision that State_Accuracy is relative to, above 0 and at most 1.
    fn full_precision(&self) -> f64;

    /// Measures one assignment.
    ///
    /// # Errors
    /// [`ReleqError`] if no answer can be had, which ends the search; a retrain that diverges is an answer
    /// ([`Evaluation::Failed`]), not an error. Errors of other crates are [`ReleqError::Other`].
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError>;

    /// Measures several distinct assignments; answers come in the order asked. One after the other unless
    /// overridden.
    ///
    /// `answered` is told of each answer as soon as it is there, by its place in the batch and in any order, so that
    /// whoever keeps answers loses none when the process is killed or a later one fails.
    ///
    /// # Errors
    /// An error of one of the evaluations, or of `answered`.
    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        let mut answers = Vec::with_capacity(batch.len());
        for (place, bits) in batch.iter().enumerate() {
            let answer = self.evaluate(bits)?;
            answered(place, &answer)?;
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Name for messages.
    fn name(&self) -> &str {
        "evaluator"
    }
}

/// The full-precision accuracy that `evaluator` states, if it is one.
pub(crate) fn full_precision(evaluator: &dyn Evaluator) -> Result<f64, ReleqError> {
    let value =
        guard(|| format!("evaluator `{}`", evaluator.name()), || Ok(evaluator.full_precision()))?;
    if value > 0.0 && value <= 1.0 {
        return Ok(value);
    }
    let piece = format!("full precision of the evaluator `{}`", evaluator.name());
    let allowed = "an accuracy above 0 and at most 1";
    Err(ReleqError::OutOfRange { piece, value, allowed })
}

macro_rules! forward {
    ($($type:ty),+) => {$(
        impl<E: Evaluator + ?Sized> Evaluator for $type {
            fn full_precision(&self) -> f64 {
                (**self).full_precision()
            }
            fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
                (**self).evaluate(bits)
            }
            fn evaluate_each(
                &self,
                batch: &[BitwidthAssignment],
                answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
            ) -> Result<Vec<Evaluation>, ReleqError> {
                (**self).evaluate_each(batch, answered)
            }
            fn name(&self) -> &str {
                (**self).name()
            }
        }
    )+};
}
forward!(&E, Box<E>, std::sync::Arc<E>);
