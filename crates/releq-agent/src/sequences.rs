//! The turns of agents that know a whole episode's actions before they play it.

use serde::{Deserialize, Serialize};

use crate::{
    AgentError, AgentSnapshot, Mode, StepActions, UpdateStats,
    turns::{Turns, mean},
};

/// A sequence of actions and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Played {
    pub(crate) actions: Vec<usize>,
    pub(crate) episode_return: f64,
}

impl Played {
    /// Whether it is better than `best`, if there is one.
    pub(crate) fn is_better(&self, best: Option<&Self>) -> bool {
        best.is_none_or(|best| self.episode_return > best.episode_return)
    }
}

/// The sequence of highest return so far, the first of equals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Best(Option<Played>);

impl Best {
    pub(crate) const fn get(&self) -> Option<&Played> {
        self.0.as_ref()
    }

    /// Learns from a batch.
    pub(crate) fn see(&mut self, batch: Vec<Played>) {
        for played in batch {
            if played.is_better(self.get()) {
                self.0 = Some(played);
            }
        }
    }

    /// Puts it into a snapshot.
    pub(crate) fn save(&self, snapshot: &mut AgentSnapshot) -> Result<(), AgentError> {
        let episode_return = self.get().map(|best| best.episode_return);
        snapshot.check_finite("best_return", episode_return)?;
        snapshot.set("best_return", &episode_return)?;
        snapshot.set("best_actions", &self.get().map(|best| &best.actions))
    }

    /// The one in a snapshot of an agent that plays such `sequences`.
    pub(crate) fn load(
        snapshot: &AgentSnapshot,
        sequences: &Sequences,
    ) -> Result<Self, AgentError> {
        let Some(episode_return) = snapshot.get::<Option<f64>>("best_return")? else {
            return Ok(Self(None));
        };
        let count = sequences.actions.count();
        let actions = snapshot.get_actions("best_actions", sequences.episode_len, count)?;
        Ok(Self(Some(Played { actions, episode_return })))
    }
}

/// Plays sequences that the agent has chosen.
#[derive(Clone, Debug)]
pub(crate) struct Sequences {
    pub(crate) actions: StepActions,
    pub(crate) episode_len: usize,
    episodes_per_batch: usize,
    /// Those of the running batch.
    playing: Vec<Vec<usize>>,
    mode: Mode,
    turns: Turns,
}

impl Sequences {
    /// Episodes of `episode_len` steps with these actions, `episodes_per_batch` at a time; all at least 1.
    pub(crate) fn new(actions: StepActions, episode_len: usize, episodes_per_batch: usize) -> Self {
        Self {
            actions,
            episode_len: episode_len.max(1),
            episodes_per_batch: episodes_per_batch.max(1),
            playing: Vec::new(),
            mode: Mode::Explore,
            turns: Turns::default(),
        }
    }

    /// Episodes in a batch where at most `max_episodes` are asked for.
    pub(crate) fn most(&self, max_episodes: usize) -> usize {
        max_episodes.min(self.episodes_per_batch)
    }

    /// Begins a batch of these sequences.
    pub(crate) fn explore(&mut self, sequences: Vec<Vec<usize>>) -> Option<usize> {
        (self.playing, self.mode) = (sequences, Mode::Explore);
        self.turns.begin(self.playing.len())
    }

    /// Begins a greedy batch: the best sequence, if one is known and an episode is asked for.
    pub(crate) fn greedy(&mut self, best: Option<&Played>, max_episodes: usize) -> Option<usize> {
        let best = best.map(|best| best.actions.clone());
        (self.playing, self.mode) = (best.into_iter().take(max_episodes).collect(), Mode::Greedy);
        self.turns.begin(self.playing.len())
    }

    /// The next action of every episode.
    pub(crate) fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        let step = self.turns.act_within(observations, self.episode_len)?;
        Ok(self.playing.iter().map(|sequence| sequence[step]).collect())
    }

    /// Ends the batch; gives what there is to learn from it, which is nothing where it was greedy.
    pub(crate) fn finish(
        &mut self,
        rewards: &[Vec<f64>],
    ) -> Result<(UpdateStats, Vec<Played>), AgentError> {
        let returns = self.turns.finish(rewards)?;
        let stats = UpdateStats { mean_return: mean(&returns), ..UpdateStats::default() };
        let playing = std::mem::take(&mut self.playing);
        let played = playing
            .into_iter()
            .zip(returns)
            .map(|(actions, episode_return)| Played { actions, episode_return });
        Ok((stats, if self.mode == Mode::Explore { played.collect() } else { Vec::new() }))
    }

    /// A snapshot with the settings.
    pub(crate) fn snapshot(&self, name: &str, version: u32) -> Result<AgentSnapshot, AgentError> {
        self.turns.check_finished(name)?;
        let mut snapshot = AgentSnapshot::new(name, version);
        snapshot.set("action_count", &self.actions.count())?;
        snapshot.set("episode_len", &self.episode_len)?;
        snapshot.set("episodes_per_batch", &self.episodes_per_batch)?;
        Ok(snapshot)
    }

    /// Refuses a snapshot with other settings.
    pub(crate) fn expect(&self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect_setting("action_count", self.actions.count())?;
        snapshot.expect_setting("episode_len", self.episode_len)?;
        snapshot.expect_setting("episodes_per_batch", self.episodes_per_batch)
    }

    /// Whether these are the actions of an episode.
    pub(crate) fn is_episode(&self, actions: &[usize]) -> bool {
        actions.len() == self.episode_len
            && actions.iter().all(|&action| action < self.actions.count())
    }

    /// This action at every step, or what it amounts to there.
    pub(crate) fn uniform(&self, action: usize) -> Vec<usize> {
        (0..self.episode_len).map(|step| self.actions.same(step, action)).collect()
    }

    /// Drops an unfinished batch.
    pub(crate) fn reset(&mut self) {
        self.playing.clear();
        self.turns = Turns::default();
    }
}
