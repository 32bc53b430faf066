//! The best episode so far, which the agent imitates.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{AgentError, AgentSnapshot, Demonstration, error::check_count, network::DeviceNetwork};

/// An episode to imitate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Example {
    pub(crate) episode_return: f64,
    /// `[steps][observation_len]`, flattened.
    pub(crate) observations: Vec<f32>,
    pub(crate) actions: Vec<usize>,
}

impl Example {
    /// A demonstration for an agent of this shape.
    pub(crate) fn new(
        demonstration: &Demonstration,
        inputs: usize,
        action_count: usize,
    ) -> Result<Self, AgentError> {
        let Demonstration { observations, actions, episode_return } = demonstration;
        check_count("steps demonstrated", observations.len(), actions.len().max(1))?;
        for observation in observations {
            check_count("observation length", observation.len(), inputs)?;
        }
        let numbers = observations.iter().flatten();
        if !numbers.clone().all(|number| number.is_finite()) {
            return Err(AgentError::NotFinite("observation"));
        }
        if !episode_return.is_finite() {
            return Err(AgentError::NotFinite("return of a demonstration"));
        }
        if let Some(&action) = actions.iter().find(|&&action| action >= action_count) {
            return Err(AgentError::Action { action, action_count });
        }
        Ok(Self {
            episode_return: *episode_return,
            observations: numbers.copied().collect(),
            actions: actions.clone(),
        })
    }

    /// The best episode of a snapshot, if it has one.
    pub(crate) fn load(
        inputs: usize,
        action_count: usize,
        snapshot: &AgentSnapshot,
    ) -> Result<Option<Self>, AgentError> {
        let best: Option<Self> = snapshot.get("best")?;
        let Some(example) = &best else { return Ok(None) };
        let fail = |part: &str, reason: &str| Err(snapshot.error(format!("best.{part}"), reason));
        if example.actions.is_empty() {
            return fail("actions", "empty");
        }
        if example.actions.iter().any(|&action| action >= action_count) {
            return fail("actions", "an action is not below `action_count`");
        }
        if Some(example.observations.len()) != example.actions.len().checked_mul(inputs) {
            return fail("observations", "not `observation_len` numbers for every action");
        }
        if !example.observations.iter().all(|number| number.is_finite()) {
            return fail("observations", "a number is not finite");
        }
        Ok(best)
    }
}

impl DeviceNetwork {
    /// Mean negative log-likelihood of the example's actions.
    pub(crate) fn imitation_loss(&self, example: &Example) -> Tensor<1> {
        let features = self.features(&example.observations, example.actions.len(), 1);
        self.log_policy(features, &example.actions).1.mean().neg()
    }
}
