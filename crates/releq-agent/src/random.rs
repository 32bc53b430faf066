//! Uniform random search.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Agent, AgentError, Mode, Transition, UpdateStats, error::check_count, turns::Turns};

/// Chooses every action uniformly at random; has no greedy answer.
#[derive(Clone, Debug)]
pub struct RandomSearch {
    actions: usize,
    episodes_per_batch: usize,
    rng: ChaCha8Rng,
    turns: Turns,
}

impl RandomSearch {
    /// A search over `action_count` actions with `episodes_per_batch` episodes at a time, each at
    /// least 1.
    #[must_use]
    pub fn new(action_count: usize, seed: u64, episodes_per_batch: usize) -> Self {
        Self {
            actions: action_count.max(1),
            episodes_per_batch: episodes_per_batch.max(1),
            rng: ChaCha8Rng::seed_from_u64(seed),
            turns: Turns::default(),
        }
    }
}

impl Agent for RandomSearch {
    fn name(&self) -> &str {
        "random"
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        let episodes = max_episodes.min(self.episodes_per_batch);
        (mode == Mode::Explore && episodes > 0).then(|| self.turns.begin(episodes))
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        self.turns.act()?;
        check_count("episodes observed", observations.len(), self.turns.episodes())?;
        Ok((0..observations.len()).map(|_| self.rng.random_range(0..self.actions)).collect())
    }

    fn reward(&mut self, transitions: &[Transition]) -> Result<(), AgentError> {
        self.turns.reward(transitions)
    }

    fn finish(&mut self) -> Result<UpdateStats, AgentError> {
        let (stats, _) = self.turns.finish()?;
        Ok(stats)
    }
}
