//! Answers that are on record are not measured again; new ones are recorded as they come.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use releq_core::BitwidthAssignment;

use super::{Clock, EvaluationRecord, OpenRun};
use crate::{
    ReleqError,
    evaluate::{Evaluation, Evaluator, each_unknown},
};

/// An evaluator whose answers a run keeps.
pub(crate) struct Recorded<'r, E> {
    inner: E,
    run: &'r OpenRun<'r>,
    clock: Clock,
    on_record: Mutex<HashMap<BitwidthAssignment, EvaluationRecord>>,
}

impl<'r, E: Evaluator> Recorded<'r, E> {
    pub(crate) fn new(inner: E, run: &'r OpenRun<'r>, clock: Clock) -> Self {
        let on_record = run.evaluation_records.iter();
        let on_record = on_record.map(|record| (record.bits.clone(), record.clone())).collect();
        Self { inner, run, clock, on_record: Mutex::new(on_record) }
    }

    fn replay(&self, bits: &BitwidthAssignment) -> Option<Evaluation> {
        let on_record = self.on_record.lock().unwrap_or_else(PoisonError::into_inner);
        let record = on_record.get(bits)?;
        self.clock.replayed(record.run_seconds);
        Some(record.evaluation())
    }
}

impl<E: Evaluator> Evaluator for Recorded<'_, E> {
    fn full_precision(&self) -> f64 {
        self.inner.full_precision()
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        let answers = self.evaluate_each(std::slice::from_ref(bits), &|_, _| Ok(()))?;
        answers.into_iter().next().ok_or_else(|| ReleqError::Answers {
            piece: format!("evaluator `{}`", self.name()),
            expected: 1,
            got: 0,
        })
    }

    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        let keep = |bits: &BitwidthAssignment, answer: &Evaluation| {
            // What is no accuracy counts as failed; the record has it as the search will see it.
            let answer = answer.clone().checked();
            let record = EvaluationRecord::new(bits.clone(), &answer, self.clock.seconds());
            self.run.record_evaluation(&record)?;
            let mut on_record = self.on_record.lock().unwrap_or_else(PoisonError::into_inner);
            on_record.insert(record.bits.clone(), record);
            Ok(answer)
        };
        each_unknown(&self.inner, batch, &|bits| self.replay(bits), &keep, answered)
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}
