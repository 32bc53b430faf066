//! A search between two batches of episodes, as plain data.

use releq_agent::AgentSnapshot;
use serde::{Deserialize, Serialize};

use super::{BatchRecord, Budget};
use crate::{ReleqError, environment::EnvironmentState, problem::ProblemSummary};

/// Changes whenever the meaning of a [`SearchState`] does.
pub(super) const FORMAT: &str = "releq search 1";

/// Everything that a [`Search`](super::Search) is resumed from, as if it had never stopped.
///
/// A state fits the problem, the agent and the evaluator that it was taken with; another one is refused with
/// the field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchState {
    pub(super) format: String,
    pub(super) problem: ProblemSummary,
    pub(super) full_precision: f64,
    pub(super) budget: Budget,
    pub(super) agent: AgentSnapshot,
    pub(super) environment: EnvironmentState,
    pub(super) episodes: usize,
    pub(super) last_new_at: usize,
    pub(super) history: Vec<BatchRecord>,
    pub(super) seconds: f64,
}

impl SearchState {
    /// Number of distinct assignments measured so far.
    #[must_use]
    pub fn evaluations(&self) -> usize {
        self.environment.scored.len()
    }

    /// Refuses a state of another version, problem or evaluator, or one that contradicts itself.
    pub(super) fn check(
        &self,
        problem: &ProblemSummary,
        full_precision: f64,
    ) -> Result<(), ReleqError> {
        let differs = |field: &'static str, expected: String, got: String| {
            if expected == got {
                Ok(())
            } else {
                Err(ReleqError::Resume {
                    field,
                    reason: format!("the search was begun with {got}, not {expected}"),
                })
            }
        };
        differs("format", format!("`{FORMAT}`"), format!("`{}`", self.format))?;
        let Self { problem: own, environment, .. } = self;
        let debug = |value: &dyn std::fmt::Debug| format!("{value:?}");
        differs("problem.cost", debug(&problem.cost), debug(&own.cost))?;
        differs("problem.reward", debug(&problem.reward), debug(&own.reward))?;
        differs("problem.limits", debug(&problem.limits), debug(&own.limits))?;
        differs("problem.actions", debug(&problem.actions), debug(&own.actions))?;
        differs("problem.action_space", debug(&problem.action_space), debug(&own.action_space))?;
        differs("problem.evaluation", debug(&problem.evaluation), debug(&own.evaluation))?;
        differs("problem.layers", debug(&problem.layers), debug(&own.layers))?;
        differs("full_precision", debug(&full_precision), debug(&self.full_precision))?;

        let damaged =
            |field: &'static str, reason: String| Err(ReleqError::Resume { field, reason });
        let layers = problem.layers.len();
        let (asked, scored) = (&environment.asked, &environment.scored);
        if asked.len() != scored.len() {
            let reason = format!("{} assignments but {} scores", asked.len(), scored.len());
            return damaged("environment.asked", reason);
        }
        let distinct: std::collections::BTreeSet<_> = asked.iter().collect();
        if distinct.len() != asked.len() {
            return damaged("environment.asked", "an assignment is there twice".into());
        }
        let lengths = asked.iter().map(|bits| bits.len());
        let lengths = lengths.chain(scored.iter().map(|scored| scored.bits.len()));
        if let Some(got) =
            lengths.chain(environment.carried.iter().map(Vec::len)).find(|&got| got != layers)
        {
            let reason = format!("{got} bitwidths for {layers} layers");
            return damaged("environment", reason);
        }
        if self.last_new_at > self.episodes {
            return damaged("last_new_at", format!("it is after episode {}", self.episodes));
        }
        Ok(())
    }
}
