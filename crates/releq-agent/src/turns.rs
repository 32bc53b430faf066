//! The order of calls.

use crate::{AgentError, error::check_count};

/// Checks the calls of an [`Agent`](crate::Agent): one field that keeps the promises about turns and
/// counts.
///
/// It knows the batch in progress, its number of episodes and the steps played so far. A refused call
/// changes nothing.
///
/// # Examples
///
/// An agent that takes the same action at every step:
///
/// ```
/// use releq_agent::{Agent, AgentError, Mode, Turns, UpdateStats};
///
/// struct Constant {
///     action: usize,
///     turns: Turns,
/// }
///
/// impl Agent for Constant {
///     fn begin(&mut self, max_episodes: usize, _: Mode) -> Option<usize> {
///         self.turns.begin(max_episodes.min(1))
///     }
///     fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
///         self.turns.act(observations)?;
///         Ok(vec![self.action; observations.len()])
///     }
///     fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
///         let returns = self.turns.finish(rewards)?;
///         Ok(UpdateStats { mean_return: returns[0], ..UpdateStats::default() })
///     }
/// }
/// # #[cfg(feature = "testing")]
/// releq_agent::check_agent(
///     &mut |_| Box::new(Constant { action: 1, turns: Turns::default() }),
///     releq_agent::EpisodeShape { observation_len: 1, action_count: 2, episode_len: 3 },
/// );
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    episodes: usize,
    steps: usize,
}

impl Turns {
    /// Drops an unfinished batch and starts one of `episodes`; none, and `None`, if that is 0.
    pub fn begin(&mut self, episodes: usize) -> Option<usize> {
        *self = Self { episodes, steps: 0 };
        (episodes > 0).then_some(episodes)
    }

    /// Whether a batch is in progress.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.episodes > 0
    }

    /// Refuses a snapshot of the agent of this name while a batch is in progress.
    ///
    /// # Errors
    /// [`AgentError::UnfinishedBatch`].
    pub fn check_finished(&self, agent: &str) -> Result<(), AgentError> {
        if self.is_open() {
            return Err(AgentError::UnfinishedBatch { agent: agent.to_owned() });
        }
        Ok(())
    }

    /// Counts one step and returns its index, from 0.
    ///
    /// # Errors
    /// [`AgentError`] if no batch is in progress, or if there is not one observation per episode.
    pub fn act(&mut self, observations: &[Vec<f32>]) -> Result<usize, AgentError> {
        let step = self.step(observations)?;
        self.acted();
        Ok(step)
    }

    /// As [`act`](Self::act), without counting the step.
    pub(crate) fn step(&self, observations: &[Vec<f32>]) -> Result<usize, AgentError> {
        if !self.is_open() {
            return Err(AgentError::OutOfTurn { call: "act", expected: "begin" });
        }
        check_count("episodes observed", observations.len(), self.episodes)?;
        Ok(self.steps)
    }

    /// As [`act`](Self::act), where episodes have `episode_len` steps.
    pub(crate) fn act_within(
        &mut self,
        observations: &[Vec<f32>],
        episode_len: usize,
    ) -> Result<usize, AgentError> {
        let step = self.step(observations)?;
        if step >= episode_len {
            let (what, got) = ("steps in the episode", step + 1);
            return Err(AgentError::Count { what, got, expected: episode_len });
        }
        self.acted();
        Ok(step)
    }

    /// Counts one step.
    pub(crate) const fn acted(&mut self) {
        self.steps += 1;
    }

    /// Ends the batch and returns the undiscounted return of every episode.
    ///
    /// # Errors
    /// [`AgentError`] if no step was played, for the wrong number of rewards, or for one that is not
    /// finite.
    pub fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<Vec<f64>, AgentError> {
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
