//! The order of calls, shared by all agents.

use crate::{AgentError, error::check_count};

/// The batch in progress: how many episodes it has and how many steps were played.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turns {
    episodes: usize,
    steps: usize,
}

impl Turns {
    /// Drops an unfinished batch and starts one of `episodes`, or none if that is 0.
    pub(crate) fn begin(&mut self, episodes: usize) -> Option<usize> {
        *self = Self { episodes, steps: 0 };
        (episodes > 0).then_some(episodes)
    }

    /// Whether a batch is in progress.
    pub(crate) const fn is_open(&self) -> bool {
        self.episodes > 0
    }

    /// Refuses a snapshot of an unfinished batch.
    pub(crate) fn check_closed(&self, agent: &str) -> Result<(), AgentError> {
        if self.is_open() {
            return Err(AgentError::UnfinishedBatch { agent: agent.to_owned() });
        }
        Ok(())
    }

    /// Returns the index of the step that `observations` belong to; the call is counted by
    /// [`acted`](Self::acted).
    pub(crate) fn step(&self, observations: &[Vec<f32>]) -> Result<usize, AgentError> {
        if !self.is_open() {
            return Err(AgentError::OutOfTurn { call: "act", expected: "begin" });
        }
        check_count("episodes observed", observations.len(), self.episodes)?;
        Ok(self.steps)
    }

    /// As [`step`](Self::step), where episodes have `episode_len` steps.
    pub(crate) fn step_within(
        &self,
        observations: &[Vec<f32>],
        episode_len: usize,
    ) -> Result<usize, AgentError> {
        let step = self.step(observations)?;
        if step < episode_len {
            return Ok(step);
        }
        Err(AgentError::Count {
            what: "steps in the episode",
            got: step + 1,
            expected: episode_len,
        })
    }

    /// Counts one step.
    pub(crate) const fn acted(&mut self) {
        self.steps += 1;
    }

    /// Ends the batch and returns the undiscounted return of every episode. Refused rewards leave
    /// the batch open.
    pub(crate) fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<Vec<f64>, AgentError> {
        if !self.is_open() {
            return Err(AgentError::OutOfTurn { call: "finish", expected: "begin" });
        }
        if self.steps == 0 {
            return Err(AgentError::OutOfTurn { call: "finish", expected: "act" });
        }
        check_count("steps rewarded", rewards.len(), self.steps)?;
        let mut returns = vec![0.0; self.episodes];
        for rewards in rewards {
            check_count("episodes rewarded", rewards.len(), self.episodes)?;
            for (total, reward) in returns.iter_mut().zip(rewards) {
                if !reward.is_finite() {
                    return Err(AgentError::NotFinite("reward"));
                }
                *total += reward;
            }
        }
        *self = Self::default();
        Ok(returns)
    }
}

/// The mean of the returns of a batch.
pub(crate) fn mean(returns: &[f64]) -> f64 {
    returns.iter().sum::<f64>() / returns.len() as f64
}
