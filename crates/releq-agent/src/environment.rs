//! Where an agent acts, and the loop between the two.

use crate::{Agent, AgentError, Mode, UpdateStats};

/// The result of one action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// Reward of the action.
    pub reward: f64,
    /// Whether the episode is over.
    pub terminated: bool,
}

/// Where episodes take place: all of equal length, in lockstep.
pub trait Environment {
    /// The environment's error.
    type Error;

    /// Starts `episodes` episodes and returns the first observation of each.
    ///
    /// # Errors
    /// Whatever goes wrong in the environment.
    fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// Takes one action in every episode; returns the next observations and the results of the
    /// actions.
    ///
    /// # Errors
    /// Whatever goes wrong in the environment.
    #[allow(clippy::type_complexity, reason = "two lists of equal length, named right above")]
    fn step(&mut self, actions: &[usize]) -> Result<(Vec<Vec<f32>>, Vec<Transition>), Self::Error>;
}

macro_rules! forward_environment {
    ($pointer:ty) => {
        impl<T: Environment + ?Sized> Environment for $pointer {
            type Error = T::Error;
            fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, Self::Error> {
                (**self).reset(episodes)
            }
            fn step(
                &mut self,
                actions: &[usize],
            ) -> Result<(Vec<Vec<f32>>, Vec<Transition>), Self::Error> {
                (**self).step(actions)
            }
        }
    };
}
forward_environment!(&mut T);
forward_environment!(Box<T>);

/// Plays one batch of at most `max_episodes` episodes to the end and lets the agent learn from it.
///
/// Returns `None` if the agent has nothing left to try.
///
/// # Errors
/// The first error of the agent or the environment.
pub fn play<E: Environment + ?Sized>(
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
    let mut rewards = Vec::new();
    loop {
        let actions = agent.act(&observations)?;
        let (next, transitions) = environment.step(&actions)?;
        rewards.push(transitions.iter().map(|transition| transition.reward).collect());
        if transitions.iter().all(|transition| transition.terminated) {
            return Ok(Some(agent.finish(&rewards)?));
        }
        observations = next;
    }
}
