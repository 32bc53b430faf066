//! An evaluator whose retrains are carried out by workers.

use std::{fmt, sync::Arc};

use releq_core::{BitwidthAssignment, parallel};

use super::{Bench, Job, JobAnswer, Task, Workers};
use crate::{
    Cancel, ReleqError,
    evaluate::{Evaluation, Evaluator},
    guard::guard,
};

/// Hears that there is an answer.
type OnAnswer<'a> = Box<dyn Fn() -> Result<(), ReleqError> + Send + Sync + 'a>;

/// The short retrains of a run, each carried out by whichever worker takes it.
pub struct RemoteEvaluator<'a> {
    workers: &'a dyn Workers,
    bench: Arc<Bench>,
    full_precision: f64,
    cancel: &'a Cancel,
    on_answer: Option<OnAnswer<'a>>,
}

impl fmt::Debug for RemoteEvaluator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteEvaluator")
            .field("workers", &self.workers.name())
            .field("full_precision", &self.full_precision)
            .finish_non_exhaustive()
    }
}

impl<'a> RemoteEvaluator<'a> {
    /// Retrains of `bench`, relative to this accuracy in full precision.
    #[must_use]
    pub fn new(
        workers: &'a dyn Workers,
        bench: Arc<Bench>,
        full_precision: f64,
        cancel: &'a Cancel,
    ) -> Self {
        Self { workers, bench, full_precision, cancel, on_answer: None }
    }

    /// Calls this for every answer, before it is handed on; an error ends the search.
    #[must_use]
    pub fn on_answer(
        mut self,
        on_answer: impl Fn() -> Result<(), ReleqError> + Send + Sync + 'a,
    ) -> Self {
        self.on_answer = Some(Box::new(on_answer));
        self
    }
}

impl Evaluator for RemoteEvaluator<'_> {
    fn full_precision(&self) -> f64 {
        self.full_precision
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        let task = Task::Short { full_precision: self.full_precision };
        let job = Job { bits: bits.clone(), task };
        let answer = self.workers.carry_out(&self.bench, &job, self.cancel)?;
        if let Some(on_answer) = &self.on_answer {
            on_answer()?;
        }
        match answer {
            JobAnswer::Short(evaluation) => Ok(evaluation),
            JobAnswer::Long { .. } => Err(other_answer(self.workers)),
        }
    }

    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        let piece = || self.workers.name().to_owned();
        // All of them at once: they wait in the workers' queue, not here.
        parallel::try_map(batch.iter().enumerate(), batch.len(), |(place, bits)| {
            let answer = guard(piece, || self.evaluate(bits))?;
            answered(place, &answer)?;
            Ok(answer)
        })
    }

    fn name(&self) -> &str {
        "retrain"
    }
}

/// The answer to another task than was given.
pub(crate) fn other_answer(workers: &dyn Workers) -> ReleqError {
    let piece = workers.name().to_owned();
    ReleqError::Piece { piece, source: "the answer is to another kind of job".into() }
}
