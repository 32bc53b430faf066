//! The ask/tell seam between an agent and whatever it acts in.

use serde::{Deserialize, Serialize};

use crate::AgentError;

/// Whether an agent tries things out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Tries things out and learns from them.
    Explore,
    /// Takes the most likely action each time and learns nothing.
    Greedy,
}

/// What came of one action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// Reward of the action.
    pub reward: f64,
    /// Whether the episode is over.
    pub terminated: bool,
}

/// What an agent learned from one batch of episodes; all zero for agents that do not learn.
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

/// Chooses actions, is told what came of them, and learns.
///
/// Several episodes of equal length run in lockstep: [`begin`](Self::begin) says how many,
/// [`act`](Self::act) and [`reward`](Self::reward) alternate once for every step, and
/// [`finish`](Self::finish) ends the batch.
pub trait Agent {
    /// Short name for tables, as `ppo`.
    fn name(&self) -> &str;

    /// Starts a batch of episodes, dropping one that was not finished. Gives how many there are, from
    /// 1 to `max_episodes`, or `None` when there is nothing left to try, or no greedy answer to give.
    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize>;

    /// One action for every running episode.
    ///
    /// # Shapes
    /// - `observations`: `[episodes][observation_len]`; output: `[episodes]`, each below the number of
    ///   actions
    ///
    /// # Errors
    /// [`AgentError`] for another number or length of observations, or a call out of turn.
    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError>;

    /// What came of the actions just taken.
    ///
    /// # Errors
    /// [`AgentError`] for another number of transitions, or a call out of turn.
    fn reward(&mut self, transitions: &[Transition]) -> Result<(), AgentError>;

    /// Ends the batch and learns from it; learns nothing from a greedy one.
    ///
    /// # Errors
    /// [`AgentError`] for a call out of turn.
    fn finish(&mut self) -> Result<UpdateStats, AgentError>;

    /// Probabilities behind the last actions, for agents that have any.
    ///
    /// # Shapes
    /// - output: `[episodes][actions]`
    fn probabilities(&self) -> Option<&[Vec<f32>]> {
        None
    }
}

/// Where episodes take place; all of equal length, in lockstep.
pub trait Environment {
    /// What can go wrong.
    type Error;

    /// Starts `episodes` episodes and gives the first observation of each.
    ///
    /// # Errors
    /// Whatever the environment cannot do.
    fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// Takes one action in every episode; gives the next observations and what came of the actions.
    ///
    /// # Errors
    /// Whatever the environment cannot do.
    #[allow(clippy::type_complexity, reason = "two lists of equal length, named right above")]
    fn step(&mut self, actions: &[usize]) -> Result<(Vec<Vec<f32>>, Vec<Transition>), Self::Error>;
}

/// Plays one batch of at most `max_episodes` episodes to their end; `None` if the agent is done.
///
/// # Errors
/// Whatever the agent or the environment fails with.
pub fn play<E: Environment>(
    agent: &mut dyn Agent,
    environment: &mut E,
    max_episodes: usize,
    mode: Mode,
) -> Result<Option<UpdateStats>, E::Error>
where
    E::Error: From<AgentError>,
{
    let Some(episodes) = agent.begin(max_episodes, mode) else { return Ok(None) };
    let mut observations = environment.reset(episodes)?;
    loop {
        let actions = agent.act(&observations)?;
        let (next, transitions) = environment.step(&actions)?;
        agent.reward(&transitions)?;
        if transitions.iter().all(|transition| transition.terminated) {
            return Ok(Some(agent.finish()?));
        }
        observations = next;
    }
}
