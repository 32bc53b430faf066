//! How good is an assignment of bitwidths? The [`Evaluator`] seam and its implementations.

mod cached;
mod early_stop;
mod retrain;
mod table;

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

pub use cached::Cached;
pub use early_stop::EarlyStop;
use releq_core::BitwidthAssignment;
pub use retrain::{Backend, Retrain, RetrainSetup};
use serde::{Deserialize, Serialize};
pub use table::{OnMiss, Table};

use crate::ReleqError;

/// Answer to "how good is this assignment?".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Share of samples classified correctly, in 0 to 1; 0 where the evaluation failed.
    pub accuracy: f64,
    /// Standard error of `accuracy` from the number of samples, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Why there is no accuracy, as a loss that became NaN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The measured assignment that answered in place of the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<BitwidthAssignment>,
    /// The step after which the retrain was given up ([`EarlyStop`]); `accuracy` is that of this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_after: Option<usize>,
}

impl Evaluation {
    /// An accuracy and nothing else.
    #[must_use]
    pub const fn new(accuracy: f64) -> Self {
        Self {
            accuracy,
            standard_error: None,
            failure: None,
            answered_by: None,
            stopped_after: None,
        }
    }

    /// An evaluation that failed: accuracy 0 and the reason.
    #[must_use]
    pub fn failed(reason: String) -> Self {
        Self { failure: Some(reason), ..Self::new(0.0) }
    }
}

/// Measures the accuracy of a network at given bitwidths.
///
/// An answer may depend on the assignment alone: not on the order of questions, nor on the thread.
pub trait Evaluator: Sync {
    /// Accuracy in full precision that State_Accuracy is relative to, in 0 to 1.
    fn full_precision(&self) -> f64;

    /// Measures one assignment.
    ///
    /// # Errors
    /// [`ReleqError`] if no answer can be had; a retrain that diverges is an answer
    /// ([`Evaluation::failure`]), not an error.
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError>;

    /// Measures several assignments on up to `threads` threads; answers come in the order asked.
    ///
    /// # Errors
    /// The first error in the order asked.
    fn evaluate_batch(
        &self,
        batch: &[BitwidthAssignment],
        threads: NonZeroUsize,
    ) -> Result<Vec<Evaluation>, ReleqError> {
        in_parallel(batch, threads, |bits| self.evaluate(bits))
    }
}

impl<E: Evaluator + ?Sized> Evaluator for &E {
    fn full_precision(&self) -> f64 {
        (**self).full_precision()
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        (**self).evaluate(bits)
    }
    fn evaluate_batch(
        &self,
        batch: &[BitwidthAssignment],
        threads: NonZeroUsize,
    ) -> Result<Vec<Evaluation>, ReleqError> {
        (**self).evaluate_batch(batch, threads)
    }
}

/// Maps `f` over `items` on up to `threads` threads, keeping their order.
pub(crate) fn in_parallel<T: Sync, R: Send, X: Send>(
    items: &[T],
    threads: NonZeroUsize,
    f: impl Fn(&T) -> Result<R, X> + Sync,
) -> Result<Vec<R>, X> {
    let threads = threads.get().min(items.len());
    if threads <= 1 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<R, X>)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let answer = f(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, answer));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, answer)| answer).collect()
}
