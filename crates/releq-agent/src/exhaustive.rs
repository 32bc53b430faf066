//! Enumeration of every sequence of actions.

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, StepActions, UpdateStats,
    sequences::{Best, Sequences},
};

/// Plays every sequence of actions once, in lexicographic order.
///
/// Its greedy answer is the sequence with the highest return so far, the first of equals.
#[derive(Clone, Debug)]
pub struct Exhaustive {
    sequences: Sequences,
    /// The next sequence to play; `None` after the last.
    next: Option<Vec<usize>>,
    best: Best,
}

impl Exhaustive {
    const NAME: &str = "exhaustive";
    const VERSION: u32 = 1;
    const FIELDS: &[&str] = &[
        "action_count",
        "episode_len",
        "episodes_per_batch",
        "next",
        "best_return",
        "best_actions",
    ];

    /// Enumerates the sequences of `episode_len` steps with `action_count` actions,
    /// `episodes_per_batch` at a time. All three are at least 1.
    #[must_use]
    pub fn new(action_count: usize, episode_len: usize, episodes_per_batch: usize) -> Self {
        Self::with_actions(StepActions::all(action_count), episode_len, episodes_per_batch)
    }

    /// A search among these actions, of which some may amount to the same.
    #[must_use]
    pub fn with_actions(
        actions: StepActions,
        episode_len: usize,
        episodes_per_batch: usize,
    ) -> Self {
        let sequences = Sequences::new(actions, episode_len, episodes_per_batch);
        let first = (0..sequences.episode_len).map(|step| sequences.actions.of(step)[0]).collect();
        Self { next: Some(first), sequences, best: Best::default() }
    }

    /// The sequence after `sequence`; `None` after the last.
    fn following(&self, sequence: &[usize]) -> Option<Vec<usize>> {
        let mut following = sequence.to_vec();
        let actions = &self.sequences.actions;
        for (step, digit) in following.iter_mut().enumerate().rev() {
            if let Some(next) = actions.above(step, *digit) {
                *digit = next;
                return Some(following);
            }
            *digit = actions.of(step)[0];
        }
        None
    }
}

impl Agent for Exhaustive {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        match mode {
            Mode::Greedy => self.sequences.greedy(self.best.get(), max_episodes),
            // `next` moves on when the batch is finished, so that a dropped batch is played again.
            Mode::Explore => {
                let next = std::iter::successors(self.next.clone(), |last| self.following(last));
                let batch = next.take(self.sequences.most(max_episodes)).collect();
                self.sequences.explore(batch)
            }
        }
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        self.sequences.act(observations)
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        let (stats, batch) = self.sequences.finish(rewards)?;
        if let Some(last) = batch.last() {
            self.next = self.following(&last.actions);
        }
        self.best.see(batch);
        Ok(stats)
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        let mut snapshot = self.sequences.snapshot(Self::NAME, Self::VERSION)?;
        self.best.save(&mut snapshot)?;
        snapshot.set("next", &self.next)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect(Self::NAME, Self::VERSION, Self::FIELDS)?;
        self.sequences.expect(snapshot)?;
        let (count, episode_len) = (self.sequences.actions.count(), self.sequences.episode_len);
        let next = match snapshot.state["next"].is_null() {
            true => None,
            false => Some(snapshot.get_actions("next", episode_len, count)?),
        };
        (self.best, self.next) = (Best::load(snapshot, &self.sequences)?, next);
        self.sequences.reset();
        Ok(())
    }
}
