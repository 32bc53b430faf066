//! Enumeration of every sequence of actions.

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, UpdateStats,
    turns::{Turns, mean},
};

/// Plays every sequence of actions once, in lexicographic order.
///
/// Its greedy answer is the sequence with the highest return so far, the first of equals.
#[derive(Clone, Debug)]
pub struct Exhaustive {
    actions: usize,
    episode_len: usize,
    episodes_per_batch: usize,
    /// The next sequence to play; `None` after the last.
    next: Option<Vec<usize>>,
    /// The sequences of the batch in progress.
    playing: Vec<Vec<usize>>,
    best: Option<Best>,
    mode: Mode,
    turns: Turns,
}

#[derive(Clone, Debug)]
struct Best {
    total: f64,
    actions: Vec<usize>,
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
        let episode_len = episode_len.max(1);
        Self {
            actions: action_count.max(1),
            episode_len,
            episodes_per_batch: episodes_per_batch.max(1),
            next: Some(vec![0; episode_len]),
            playing: Vec::new(),
            best: None,
            mode: Mode::Explore,
            turns: Turns::default(),
        }
    }

    /// The sequence after `sequence`; `None` after the last.
    fn following(&self, sequence: &[usize]) -> Option<Vec<usize>> {
        let mut following = sequence.to_vec();
        for digit in following.iter_mut().rev() {
            *digit += 1;
            if *digit < self.actions {
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
        self.mode = mode;
        self.playing = match mode {
            Mode::Greedy => {
                let best = self.best.as_ref().map(|best| best.actions.clone());
                best.into_iter().take(max_episodes).collect()
            }
            // `next` moves on when the batch is finished, so that a dropped batch is played again.
            Mode::Explore => {
                let limit = max_episodes.min(self.episodes_per_batch);
                let sequences =
                    std::iter::successors(self.next.clone(), |last| self.following(last));
                sequences.take(limit).collect()
            }
        };
        self.turns.begin(self.playing.len())
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        let step = self.turns.act_within(observations, self.episode_len)?;
        Ok(self.playing.iter().map(|sequence| sequence[step]).collect())
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        let returns = self.turns.finish(rewards)?;
        let stats = UpdateStats { mean_return: mean(&returns), ..UpdateStats::default() };
        if self.mode == Mode::Explore {
            self.next = self.playing.last().and_then(|last| self.following(last));
            for (total, actions) in returns.into_iter().zip(self.playing.drain(..)) {
                if self.best.as_ref().is_none_or(|best| total > best.total) {
                    self.best = Some(Best { total, actions });
                }
            }
        }
        Ok(stats)
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        self.turns.check_finished(Self::NAME)?;
        let mut snapshot = AgentSnapshot::new(Self::NAME, Self::VERSION);
        let best = self.best.as_ref();
        snapshot.check_finite("best_return", best.map(|best| best.total))?;
        snapshot.set("action_count", &self.actions)?;
        snapshot.set("episode_len", &self.episode_len)?;
        snapshot.set("episodes_per_batch", &self.episodes_per_batch)?;
        snapshot.set("next", &self.next)?;
        snapshot.set("best_return", &best.map(|best| best.total))?;
        snapshot.set("best_actions", &best.map(|best| &best.actions))?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect(Self::NAME, Self::VERSION, Self::FIELDS)?;
        snapshot.expect_setting("action_count", self.actions)?;
        snapshot.expect_setting("episode_len", self.episode_len)?;
        snapshot.expect_setting("episodes_per_batch", self.episodes_per_batch)?;
        let actions = |field: &str| snapshot.get_actions(field, self.episode_len, self.actions);
        let next = match snapshot.state["next"].is_null() {
            true => None,
            false => Some(actions("next")?),
        };
        let best = match snapshot.get::<Option<f64>>("best_return")? {
            None => None,
            Some(total) => Some(Best { total, actions: actions("best_actions")? }),
        };
        (self.next, self.best) = (next, best);
        self.playing.clear();
        self.turns = Turns::default();
        Ok(())
    }
}
