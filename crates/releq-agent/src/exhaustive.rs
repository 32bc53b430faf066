//! Enumeration of every sequence of actions.

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, UpdateStats,
    sequences::{Played, Sequences},
};

/// Plays every sequence of actions once, in lexicographic order.
///
/// Its greedy answer is the sequence with the highest return so far, the first of equals.
#[derive(Clone, Debug)]
pub struct Exhaustive {
    sequences: Sequences,
    /// The next sequence to play; `None` after the last.
    next: Option<Vec<usize>>,
    best: Option<Played>,
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
        let sequences = Sequences::new(action_count, episode_len, episodes_per_batch);
        Self { next: Some(vec![0; sequences.episode_len]), sequences, best: None }
    }

    /// The sequence after `sequence`; `None` after the last.
    fn following(&self, sequence: &[usize]) -> Option<Vec<usize>> {
        let mut following = sequence.to_vec();
        for digit in following.iter_mut().rev() {
            *digit += 1;
            if *digit < self.sequences.actions {
                return Some(following);
            }
            *digit = 0;
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
            Mode::Greedy => self.sequences.greedy(self.best.as_ref(), max_episodes),
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
        for played in batch {
            if played.is_better(self.best.as_ref()) {
                self.best = Some(played);
            }
        }
        Ok(stats)
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        let mut snapshot = self.sequences.snapshot(Self::NAME, Self::VERSION)?;
        let best = self.best.as_ref();
        snapshot.check_finite("best_return", best.map(|best| best.episode_return))?;
        snapshot.set("next", &self.next)?;
        snapshot.set("best_return", &best.map(|best| best.episode_return))?;
        snapshot.set("best_actions", &best.map(|best| &best.actions))?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect(Self::NAME, Self::VERSION, Self::FIELDS)?;
        self.sequences.expect(snapshot)?;
        let Sequences { actions: count, episode_len, .. } = self.sequences;
        let actions = |field: &str| snapshot.get_actions(field, episode_len, count);
        let next = match snapshot.state["next"].is_null() {
            true => None,
            false => Some(actions("next")?),
        };
        let best = match snapshot.get::<Option<f64>>("best_return")? {
            None => None,
            Some(episode_return) => {
                Some(Played { actions: actions("best_actions")?, episode_return })
            }
        };
        (self.next, self.best) = (next, best);
        self.sequences.reset();
        Ok(())
    }
}
