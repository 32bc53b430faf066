//! Regularized evolution.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, UpdateStats,
    turns::{Turns, mean},
};

/// Regularized evolution: of five members drawn from a population of twenty the best is copied with one step's action
/// changed, and the oldest member dies. The population begins with random sequences; the greedy answer is the best
/// sequence of all.
///
/// # Source
/// Real et al. 2019 (arXiv 1802.01548); the sizes are ours, for a few hundred episodes.
#[derive(Clone, Debug)]
pub struct Evolution {
    actions: usize,
    episode_len: usize,
    episodes_per_batch: usize,
    state: State,
    /// What the running batch plays.
    batch: Vec<Vec<usize>>,
    turns: Turns,
    mode: Mode,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The oldest first.
    population: Vec<Member>,
    best: Option<Member>,
    rng: ChaCha8Rng,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    actions: Vec<usize>,
    episode_return: f64,
}

impl Evolution {
    const NAME: &str = "evolution";
    const VERSION: u32 = 1;
    const FIELDS: &[&str] = &["action_count", "episode_len", "episodes_per_batch", "state"];
    const POPULATION: usize = 20;
    const TOURNAMENT: usize = 5;

    /// A search over episodes of `episode_len` steps with `action_count` actions, `episodes_per_batch` at a time. All
    /// are at least 1.
    #[must_use]
    pub fn new(
        action_count: usize,
        episode_len: usize,
        seed: u64,
        episodes_per_batch: usize,
    ) -> Self {
        Self {
            actions: action_count.max(1),
            episode_len: episode_len.max(1),
            episodes_per_batch: episodes_per_batch.max(1),
            state: State {
                population: Vec::new(),
                best: None,
                rng: ChaCha8Rng::seed_from_u64(seed),
            },
            batch: Vec::new(),
            turns: Turns::default(),
            mode: Mode::Explore,
        }
    }

    fn next(&mut self) -> Vec<usize> {
        let (actions, steps) = (self.actions, self.episode_len);
        let State { population, rng, .. } = &mut self.state;
        if population.len() < Self::POPULATION {
            return (0..steps).map(|_| rng.random_range(0..actions)).collect();
        }
        let mut parent = rng.random_range(0..population.len());
        for _ in 1..Self::TOURNAMENT {
            let other = rng.random_range(0..population.len());
            if population[other].episode_return > population[parent].episode_return {
                parent = other;
            }
        }
        let mut child = population[parent].actions.clone();
        let step = rng.random_range(0..steps);
        if actions > 1 {
            // Another action than it had.
            child[step] = (child[step] + rng.random_range(1..actions)) % actions;
        }
        child
    }
}

impl Agent for Evolution {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        self.mode = mode;
        self.batch.clear();
        match mode {
            Mode::Greedy => {
                let best = self.state.best.as_ref().filter(|_| max_episodes > 0);
                self.batch.extend(best.map(|best| best.actions.clone()));
            }
            Mode::Explore => {
                for _ in 0..max_episodes.min(self.episodes_per_batch) {
                    let next = self.next();
                    self.batch.push(next);
                }
            }
        }
        self.turns.begin(self.batch.len())
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        let step = self.turns.act_within(observations, self.episode_len)?;
        Ok(self.batch.iter().map(|actions| actions[step]).collect())
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        let returns = self.turns.finish(rewards)?;
        let stats = UpdateStats { mean_return: mean(&returns), ..UpdateStats::default() };
        if self.mode == Mode::Greedy {
            return Ok(stats);
        }
        let State { population, best, .. } = &mut self.state;
        for (actions, episode_return) in std::mem::take(&mut self.batch).into_iter().zip(returns) {
            let member = Member { actions, episode_return };
            if best.as_ref().is_none_or(|best| episode_return > best.episode_return) {
                *best = Some(member.clone());
            }
            population.push(member);
            if population.len() > Self::POPULATION {
                population.remove(0);
            }
        }
        Ok(stats)
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        self.turns.check_finished(Self::NAME)?;
        let mut snapshot = AgentSnapshot::new(Self::NAME, Self::VERSION);
        let members = self.state.population.iter().chain(&self.state.best);
        snapshot.check_finite("state", members.map(|member| member.episode_return))?;
        snapshot.set("action_count", &self.actions)?;
        snapshot.set("episode_len", &self.episode_len)?;
        snapshot.set("episodes_per_batch", &self.episodes_per_batch)?;
        snapshot.set("state", &self.state)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect(Self::NAME, Self::VERSION, Self::FIELDS)?;
        snapshot.expect_setting("action_count", self.actions)?;
        snapshot.expect_setting("episode_len", self.episode_len)?;
        snapshot.expect_setting("episodes_per_batch", self.episodes_per_batch)?;
        let state: State = snapshot.get("state")?;
        if state.population.len() > Self::POPULATION {
            return Err(snapshot.error("state.population", "too many members"));
        }
        for Member { actions, .. } in state.population.iter().chain(&state.best) {
            if actions.len() != self.episode_len || actions.iter().any(|&a| a >= self.actions) {
                return Err(snapshot.error("state.population", "no episode of this agent"));
            }
        }
        (self.state, self.turns) = (state, Turns::default());
        Ok(())
    }
}
