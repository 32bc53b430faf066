//! How far the agent's search is, for those that it is compared with: they may measure as much as it has, so that much of
//! them will surely be wanted, and workers that stand idle can do it meanwhile.

use std::sync::{Condvar, Mutex, PoisonError};

use releq_core::BitwidthAssignment;

use crate::{
    ReleqError, Search,
    evaluate::{Evaluation, Evaluator},
};

/// How much the agent's search has asked for.
#[derive(Debug, Default)]
pub(super) struct Lead {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: usize,
    over: bool,
}

impl Lead {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.moved.notify_all();
    }

    /// The agent's search has ended after so many evaluations.
    pub(super) fn end(&self, evaluations: usize) {
        self.set(|state| *state = State { asked: evaluations, over: true });
    }

    /// Waits until so many evaluations are allowed, or no more will be; gives how many are.
    fn wait(&self, evaluations: usize) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.over && state.asked < evaluations {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asked
    }

    /// Takes the steps of a search that plays `batch` episodes at a time, as far as the agent's is.
    ///
    /// A search whose budget is not used up takes the same steps whatever the budget, as long as that leaves room for a whole
    /// batch. So what this one measures is what it will measure once its budget is known.
    pub(super) fn follow(&self, mut search: Search<'_>, batch: usize) -> Result<(), ReleqError> {
        loop {
            search.allow(self.wait(search.evaluations() + batch));
            if !search.step()? {
                return Ok(());
            }
        }
    }
}

/// The evaluator of the agent's search, which tells how far that is.
pub(super) struct Leading<'l> {
    pub(super) inner: &'l dyn Evaluator,
    pub(super) lead: &'l Lead,
}

impl Evaluator for Leading<'_> {
    fn full_precision(&self) -> f64 {
        self.inner.full_precision()
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        self.lead.set(|state| state.asked += 1);
        self.inner.evaluate(bits)
    }

    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        self.lead.set(|state| state.asked += batch.len());
        self.inner.evaluate_each(batch, answered)
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}
