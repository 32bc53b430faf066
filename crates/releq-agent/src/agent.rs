//! The ask/tell seam: what an agent is.

use serde::{Deserialize, Serialize};

use crate::{AgentError, AgentSnapshot};

/// Whether an agent explores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Explores, and learns from the rewards.
    Explore,
    /// Takes the action it believes best at every step, and learns nothing.
    Greedy,
}

/// What an agent learned from one batch of episodes.
///
/// Agents without a policy fill in [`mean_return`](Self::mean_return) and leave the rest at 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateStats {
    /// Mean undiscounted sum of rewards over the episodes of the batch.
    pub mean_return: f64,
    /// Mean clipped surrogate loss of the last epoch.
    pub policy_loss: f64,
    /// Mean squared error of the value head in the last epoch.
    pub value_loss: f64,
    /// Mean entropy of the policy in the last epoch, in nats.
    pub entropy: f64,
    /// Mean of `(ratio - 1) - ln(ratio)` in the last epoch, an estimate of the divergence from the
    /// policy that played (Schulman 2020).
    pub approx_kl: f64,
    /// Share of steps whose ratio lay outside the clip range in the last epoch.
    pub clip_fraction: f64,
    /// Share of the returns' variance that the value head explained while playing; 0 where the
    /// returns do not vary.
    pub explained_variance: f64,
}

/// An episode that is worth playing again.
#[derive(Clone, Debug, PartialEq)]
pub struct Demonstration {
    /// What was observed: `[steps][observation_len]`.
    pub observations: Vec<Vec<f32>>,
    /// The action at each step.
    pub actions: Vec<usize>,
    /// Undiscounted sum of its rewards.
    pub episode_return: f64,
}

/// Chooses actions, is told their rewards, and learns.
///
/// An agent plays batches of episodes of equal length in lockstep: [`begin`](Self::begin) says how
/// many, [`act`](Self::act) is called once per step, and [`finish`](Self::finish) hands over the
/// rewards of the whole batch. [`play`](crate::play) is that loop. Rewards come at the end because
/// agents learn from whole episodes; what an agent must know within an episode belongs in the
/// observation.
///
/// These three methods are all that an agent must have. The name defaults to the name of the type,
/// and an agent without [`snapshot`](Self::snapshot) works in every search, which then cannot be
/// resumed. An agent that never looks at a reward, such as random search, ignores the argument of
/// `finish`.
///
/// A call out of turn or with the wrong number of observations or rewards is an error, and changes
/// nothing; a field of type [`Turns`](crate::Turns) sees to that, and its page has a whole agent as an
/// example. `check_agent`, behind the feature `testing`, checks an agent of your own.
pub trait Agent {
    /// Short name for tables and snapshots, such as `ppo`; the name of the type unless overridden.
    fn name(&self) -> &str {
        let path = std::any::type_name::<Self>();
        let path = path.split('<').next().unwrap_or(path);
        path.rsplit("::").next().unwrap_or(path)
    }

    /// Starts a batch of episodes and returns their number, from 1 to `max_episodes`.
    ///
    /// Returns `None` if `max_episodes` is 0, if there is nothing left to try, or if the agent has no
    /// greedy answer. An unfinished batch is dropped in any case.
    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize>;

    /// Chooses one action for every running episode.
    ///
    /// # Shapes
    /// - `observations`: `[episodes][observation_len]`
    /// - output: `[episodes]`, each below the number of actions
    ///
    /// # Errors
    /// [`AgentError`] if no batch was begun, or for the wrong number or length of observations.
    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError>;

    /// Ends the batch, and learns from it unless it was a greedy one.
    ///
    /// # Shapes
    /// - `rewards`: `[steps][episodes]`, one row for every call of [`act`](Self::act)
    ///
    /// # Errors
    /// [`AgentError`] if no step was played, for the wrong number of rewards, or for one that is not
    /// finite.
    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError>;

    /// Learns to play as in `demonstrations`, of which the first is the best. Called between two batches.
    ///
    /// Agents without a policy have nothing to learn, and ignore it; so does the default.
    ///
    /// # Errors
    /// [`AgentError`], and nothing is learned, for demonstrations that are no episodes of this agent, or between
    /// `begin` and `finish`.
    fn imitate(&mut self, demonstrations: &[Demonstration]) -> Result<(), AgentError> {
        let _ = demonstrations;
        Ok(())
    }

    /// Probabilities of the actions at the last call of [`act`](Self::act), for agents with a
    /// stochastic policy.
    ///
    /// # Shapes
    /// - output: `[episodes][actions]`
    fn probabilities(&self) -> Option<&[Vec<f32>]> {
        None
    }

    /// Everything that the agent's future answers depend on, taken between two batches.
    ///
    /// # Errors
    /// [`AgentError::NoSnapshot`] for an agent that does not support it, which is the default;
    /// [`AgentError::UnfinishedBatch`] between `begin` and `finish`; [`AgentError::Snapshot`] if the
    /// state holds a number that is not finite.
    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        Err(AgentError::NoSnapshot { agent: self.name().to_owned() })
    }

    /// Continues from `snapshot` exactly as the agent that it was taken from would have.
    ///
    /// This agent must have been made with the same settings; the seed may differ. An unfinished
    /// batch is dropped.
    ///
    /// # Errors
    /// [`AgentError::NoSnapshot`] for an agent that does not support it, which is the default;
    /// [`AgentError::Snapshot`], naming the field, for a snapshot of another agent, another version
    /// or other settings, or a damaged one. The agent is then unchanged.
    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        let _ = snapshot;
        Err(AgentError::NoSnapshot { agent: self.name().to_owned() })
    }
}

macro_rules! forward_agent {
    ($pointer:ty) => {
        impl<T: Agent + ?Sized> Agent for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }
            fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
                (**self).begin(max_episodes, mode)
            }
            fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
                (**self).act(observations)
            }
            fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
                (**self).finish(rewards)
            }
            fn imitate(&mut self, demonstrations: &[Demonstration]) -> Result<(), AgentError> {
                (**self).imitate(demonstrations)
            }
            fn probabilities(&self) -> Option<&[Vec<f32>]> {
                (**self).probabilities()
            }
            fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
                (**self).snapshot()
            }
            fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
                (**self).restore(snapshot)
            }
        }
    };
}
forward_agent!(&mut T);
forward_agent!(Box<T>);
