//! Uniform random search.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, StepActions, UpdateStats,
    turns::{Turns, mean},
};

/// Chooses every action uniformly at random; has no greedy answer.
#[derive(Clone, Debug)]
pub struct RandomSearch {
    actions: StepActions,
    episodes_per_batch: usize,
    rng: ChaCha8Rng,
    turns: Turns,
}

impl RandomSearch {
    const NAME: &str = "random";
    const VERSION: u32 = 1;
    const FIELDS: &[&str] = &["action_count", "episodes_per_batch", "rng"];

    /// A search over `action_count` actions that plays `episodes_per_batch` episodes at a time. Both
    /// are at least 1.
    #[must_use]
    pub fn new(action_count: usize, seed: u64, episodes_per_batch: usize) -> Self {
        Self::with_actions(StepActions::all(action_count), seed, episodes_per_batch)
    }

    /// A search among these actions, of which some may amount to the same.
    #[must_use]
    pub fn with_actions(actions: StepActions, seed: u64, episodes_per_batch: usize) -> Self {
        Self {
            actions,
            episodes_per_batch: episodes_per_batch.max(1),
            rng: ChaCha8Rng::seed_from_u64(seed),
            turns: Turns::default(),
        }
    }
}

impl Agent for RandomSearch {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        self.turns.begin(match mode {
            Mode::Explore => max_episodes.min(self.episodes_per_batch),
            Mode::Greedy => 0,
        })
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        let step = self.turns.act(observations)?;
        Ok(observations.iter().map(|_| self.actions.any(step, &mut self.rng)).collect())
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        let returns = self.turns.finish(rewards)?;
        Ok(UpdateStats { mean_return: mean(&returns), ..UpdateStats::default() })
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        self.turns.check_finished(Self::NAME)?;
        let mut snapshot = AgentSnapshot::new(Self::NAME, Self::VERSION);
        snapshot.set("action_count", &self.actions.count())?;
        snapshot.set("episodes_per_batch", &self.episodes_per_batch)?;
        snapshot.set("rng", &self.rng)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect(Self::NAME, Self::VERSION, Self::FIELDS)?;
        snapshot.expect_setting("action_count", self.actions.count())?;
        snapshot.expect_setting("episodes_per_batch", self.episodes_per_batch)?;
        self.rng = snapshot.get("rng")?;
        self.turns = Turns::default();
        Ok(())
    }
}
