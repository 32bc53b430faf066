//! Regularized evolution.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, StepActions, UpdateStats,
    sequences::{Played, Sequences},
};

/// Regularized evolution: of five members drawn from a population of twenty the best is copied with one step's action
/// changed, and the oldest member dies. The population begins with random sequences; the greedy answer is the best
/// sequence of all.
///
/// # Source
/// Real et al. 2019 (arXiv 1802.01548); the sizes are ours, for a few hundred episodes.
#[derive(Clone, Debug)]
pub struct Evolution {
    sequences: Sequences,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The oldest first.
    population: Vec<Played>,
    best: Option<Played>,
    rng: ChaCha8Rng,
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
        Self::with_actions(StepActions::all(action_count), episode_len, seed, episodes_per_batch)
    }

    /// A search among these actions, of which some may amount to the same.
    #[must_use]
    pub fn with_actions(
        actions: StepActions,
        episode_len: usize,
        seed: u64,
        episodes_per_batch: usize,
    ) -> Self {
        Self {
            sequences: Sequences::new(actions, episode_len, episodes_per_batch),
            state: State {
                population: Vec::new(),
                best: None,
                rng: ChaCha8Rng::seed_from_u64(seed),
            },
        }
    }

    fn next(&mut self) -> Vec<usize> {
        let Sequences { actions, episode_len: steps, .. } = &self.sequences;
        let State { population, rng, .. } = &mut self.state;
        if population.len() < Self::POPULATION {
            return (0..*steps).map(|step| actions.any(step, rng)).collect();
        }
        let mut parent = rng.random_range(0..population.len());
        for _ in 1..Self::TOURNAMENT {
            let other = rng.random_range(0..population.len());
            if population[other].episode_return > population[parent].episode_return {
                parent = other;
            }
        }
        let mut child = population[parent].actions.clone();
        // Another action than it had, where there is another.
        let open: Vec<usize> = (0..*steps).filter(|&step| actions.of(step).len() > 1).collect();
        if !open.is_empty() {
            let step = open[rng.random_range(0..open.len())];
            let choices = actions.of(step);
            let had = choices.partition_point(|&choice| choice < child[step]);
            child[step] = choices[(had + rng.random_range(1..choices.len())) % choices.len()];
        }
        child
    }
}

impl Agent for Evolution {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        match mode {
            Mode::Greedy => self.sequences.greedy(self.state.best.as_ref(), max_episodes),
            Mode::Explore => {
                let children = (0..self.sequences.most(max_episodes)).map(|_| self.next());
                let children = children.collect();
                self.sequences.explore(children)
            }
        }
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        self.sequences.act(observations)
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        let (stats, members) = self.sequences.finish(rewards)?;
        let State { population, best, .. } = &mut self.state;
        for member in members {
            if member.is_better(best.as_ref()) {
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
        let mut snapshot = self.sequences.snapshot(Self::NAME, Self::VERSION)?;
        let members = self.state.population.iter().chain(&self.state.best);
        snapshot.check_finite("state", members.map(|member| member.episode_return))?;
        snapshot.set("state", &self.state)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect(Self::NAME, Self::VERSION, Self::FIELDS)?;
        self.sequences.expect(snapshot)?;
        let state: State = snapshot.get("state")?;
        if state.population.len() > Self::POPULATION {
            return Err(snapshot.error("state.population", "too many members"));
        }
        for Played { actions, .. } in state.population.iter().chain(&state.best) {
            if !self.sequences.is_episode(actions) {
                return Err(snapshot.error("state.population", "no episode of this agent"));
            }
        }
        self.state = state;
        self.sequences.reset();
        Ok(())
    }
}
