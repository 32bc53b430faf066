//! A search between two batches of episodes, as plain data.

use releq_agent::AgentSnapshot;
use releq_core::sealed;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;

use super::{BatchRecord, Budget};
use crate::{
    Planning, ReleqError, Sensitivities, environment::EnvironmentState, problem::ProblemSummary,
};

/// Changes whenever the meaning of a [`SearchState`] does.
pub(super) const FORMAT: &str = "releq search 4";

/// Everything that a [`Search`](super::Search) is resumed from, as if it had never stopped.
///
/// A state fits the problem, the agent and the evaluator that it was taken with; another one is refused with
/// the field that differs.
///
/// It is serialized with a [checksum](releq_core::sealed), without which a digit that changed on a disk would change
/// the answer of the search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct SearchState {
    pub(super) format: String,
    pub(super) problem: ProblemSummary,
    pub(super) full_precision: f64,
    pub(super) budget: Budget,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) planning: Option<Planning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sensitivities: Option<Sensitivities>,
    pub(super) agent: AgentSnapshot,
    pub(super) environment: EnvironmentState,
    pub(super) episodes: usize,
    pub(super) last_new_at: usize,
    pub(super) history: Vec<BatchRecord>,
    pub(super) seconds: f64,
}

impl Serialize for SearchState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = Self::serialize(self, serde_json::value::Serializer)
            .map_err(|error| ser::Error::custom(error.to_string()))?;
        if let Value::Object(fields) = &mut state {
            sealed::seal(fields);
        }
        state.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SearchState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refused = |reason: String| {
            de::Error::custom(format!(
                "not the state of a search: {reason}; resume from an earlier copy, or begin the search anew"
            ))
        };
        let value = Value::deserialize(deserializer)?;
        // Before the checksum, which earlier versions lack.
        if let Some(format) = value.get("format").filter(|format| **format != FORMAT) {
            return Err(refused(format!("its format is {format}, expected {FORMAT:?}")));
        }
        let value = sealed::open(value).map_err(|error| refused(error.to_string()))?;
        Self::deserialize(value).map_err(|error| refused(error.to_string()))
    }
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
        fn differs<T: Serialize + PartialEq>(
            field: &'static str,
            expected: &T,
            got: &T,
        ) -> Result<(), ReleqError> {
            if expected == got {
                return Ok(());
            }
            let text = |value: &T| serde_json::to_string(value).unwrap_or_default();
            let reason = format!("the search was begun with {}, not {}", text(got), text(expected));
            Err(ReleqError::Resume { field, reason })
        }
        let Self { problem: own, environment, .. } = self;
        differs("problem.cost", &problem.cost, &own.cost)?;
        differs("problem.reward", &problem.reward, &own.reward)?;
        differs("problem.limits", &problem.limits, &own.limits)?;
        differs("problem.actions", &problem.actions, &own.actions)?;
        let [expected, got] = [problem, own].map(|problem| &problem.activation_actions);
        differs("problem.activation_actions", expected, got)?;
        differs("problem.action_space", &problem.action_space, &own.action_space)?;
        differs("problem.evaluation", &problem.evaluation, &own.evaluation)?;
        differs("problem.layers", &problem.layers, &own.layers)?;
        differs("problem.answers", &problem.answers, &own.answers)?;
        differs("full_precision", &full_precision, &self.full_precision)?;

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
        let played = || self.history.iter().map(|record| record.episodes);
        let last = played().next_back().unwrap_or(0);
        if !played().is_sorted() || last != self.episodes {
            let reason = format!(
                "there are {}, but the history goes to {last}, or backwards",
                self.episodes
            );
            return damaged("episodes", reason);
        }
        Ok(())
    }
}
