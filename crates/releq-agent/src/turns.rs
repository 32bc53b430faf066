//! Whose turn it is, and what each episode has earned: shared by the agents that do not learn.

use crate::{AgentError, Transition, UpdateStats, error::check_count};

#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    returns: Vec<f64>,
    step: usize,
    acted: bool,
}

impl Turns {
    pub(crate) fn begin(&mut self, episodes: usize) -> usize {
        *self = Self { returns: vec![0.0; episodes], step: 0, acted: false };
        episodes
    }

    pub(crate) const fn episodes(&self) -> usize {
        self.returns.len()
    }

    /// Gives the index of the step that the actions are for.
    pub(crate) fn act(&mut self) -> Result<usize, AgentError> {
        if self.returns.is_empty() {
            return Err(AgentError::OutOfTurn { call: "act", expected: "begin" });
        }
        if std::mem::replace(&mut self.acted, true) {
            return Err(AgentError::OutOfTurn { call: "act", expected: "reward" });
        }
        self.step += 1;
        Ok(self.step - 1)
    }

    pub(crate) fn reward(&mut self, transitions: &[Transition]) -> Result<(), AgentError> {
        if !self.acted {
            return Err(AgentError::OutOfTurn { call: "reward", expected: "act" });
        }
        check_count("transitions", transitions.len(), self.returns.len())?;
        for (total, transition) in self.returns.iter_mut().zip(transitions) {
            if !transition.reward.is_finite() {
                return Err(AgentError::NotFinite("reward"));
            }
            *total += transition.reward;
        }
        self.acted = false;
        Ok(())
    }

    /// The figures and the return of every episode.
    pub(crate) fn finish(&mut self) -> Result<(UpdateStats, Vec<f64>), AgentError> {
        if self.returns.is_empty() || self.acted || self.step == 0 {
            return Err(AgentError::OutOfTurn { call: "finish", expected: "act and reward" });
        }
        let returns = std::mem::take(&mut self.returns);
        let mean_return = returns.iter().sum::<f64>() / returns.len() as f64;
        Ok((UpdateStats { mean_return, ..UpdateStats::default() }, returns))
    }
}
