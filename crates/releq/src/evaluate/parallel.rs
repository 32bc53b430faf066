//! Several evaluations side by side.

use std::num::NonZeroUsize;

use releq_core::{BitwidthAssignment, parallel};

use super::{Evaluation, Evaluator};
use crate::{ReleqError, guard::guard};

/// Evaluates batches of `E` on several threads; the answers do not depend on how many.
#[derive(Clone, Debug)]
pub struct Parallel<E> {
    inner: E,
    threads: NonZeroUsize,
}

impl<E: Evaluator> Parallel<E> {
    /// Up to `threads` evaluations of `inner` side by side.
    pub const fn new(inner: E, threads: NonZeroUsize) -> Self {
        Self { inner, threads }
    }

    /// The evaluator behind the threads.
    pub const fn inner(&self) -> &E {
        &self.inner
    }
}

impl<E: Evaluator> Evaluator for Parallel<E> {
    fn full_precision(&self) -> f64 {
        self.inner.full_precision()
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        self.inner.evaluate(bits)
    }

    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        let piece = || format!("evaluator `{}`", self.inner.name());
        parallel::try_map(batch.iter().enumerate(), self.threads.get(), |(place, bits)| {
            let answer = guard(piece, || self.inner.evaluate(bits))?;
            answered(place, &answer)?;
            Ok(answer)
        })
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}
