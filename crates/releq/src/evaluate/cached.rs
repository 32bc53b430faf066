//! Never measures the same assignment twice.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use releq_core::BitwidthAssignment;

use super::{Evaluation, Evaluator, each_unknown};
use crate::ReleqError;

/// Remembers every answer of `E`, so that several searches share what one of them has measured.
#[derive(Debug)]
pub struct Cached<E> {
    inner: E,
    answers: Mutex<HashMap<BitwidthAssignment, Evaluation>>,
}

impl<E: Evaluator> Cached<E> {
    /// An empty cache in front of `inner`.
    pub fn new(inner: E) -> Self {
        Self { inner, answers: Mutex::new(HashMap::new()) }
    }

    /// Number of assignments measured so far.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing was measured yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The evaluator behind the cache.
    pub const fn inner(&self) -> &E {
        &self.inner
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<BitwidthAssignment, Evaluation>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Evaluator> Evaluator for Cached<E> {
    fn full_precision(&self) -> f64 {
        self.inner.full_precision()
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        if let Some(known) = self.lock().get(bits) {
            return Ok(known.clone());
        }
        let answer = self.inner.evaluate(bits)?;
        self.lock().insert(bits.clone(), answer.clone());
        Ok(answer)
    }

    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        let known = |bits: &BitwidthAssignment| self.lock().get(bits).cloned();
        let keep = |bits: &BitwidthAssignment, answer: &Evaluation| {
            self.lock().insert(bits.clone(), answer.clone());
            Ok(answer.clone())
        };
        each_unknown(&self.inner, batch, &known, &keep, answered)
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}
