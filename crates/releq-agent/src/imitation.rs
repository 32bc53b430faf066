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
        check_count("steps demonstrated", observations.len(), actions.len())?;
        check_count("steps demonstrated", actions.len(), actions.len().max(1))?;
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
    /// Mean negative log-likelihood of each example's actions, times its weight, summed over the examples.
    ///
    /// All go through the network at once, which costs little more than one; behind the end of a shorter one are rows
    /// of weight 0.
    pub(crate) fn imitation_loss(&self, examples: &[(f64, Example)]) -> Tensor<1> {
        let episodes = examples.len();
        let steps = examples.iter().map(|(_, example)| example.actions.len()).max().unwrap_or(0);
        let mut rows = Rows::default();
        let mut weights = vec![0.0; steps * episodes];
        for step in 0..steps {
            for (episode, (weight, example)) in examples.iter().enumerate() {
                rows.push(example, step);
                if step < example.actions.len() {
                    weights[step * episodes + episode] =
                        (weight / example.actions.len() as f64) as f32;
                }
            }
        }
        let features = self.features(&rows.observations, steps, episodes);
        let (_, taken) = self.log_policy(features, &rows.actions);
        (taken * self.rows(&weights, weights.len())).sum().neg()
    }
}

/// Observations and actions of several episodes side by side, step by step.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) observations: Vec<f32>,
    pub(crate) actions: Vec<usize>,
}

impl Rows {
    /// Adds a step of `example`; zeros where it has ended.
    pub(crate) fn push(&mut self, example: &Example, step: usize) {
        let inputs = example.observations.len() / example.actions.len();
        match example.observations.get(step * inputs..(step + 1) * inputs) {
            Some(observation) => self.observations.extend_from_slice(observation),
            None => return self.skip(1, inputs),
        }
        self.actions.push(example.actions[step]);
    }

    /// Adds rows of zeros, of episodes that have ended.
    pub(crate) fn skip(&mut self, episodes: usize, inputs: usize) {
        self.observations.resize(self.observations.len() + episodes * inputs, 0.0);
        self.actions.resize(self.actions.len() + episodes, 0);
    }
}
