//! Enumeration of every sequence of actions.

use crate::{Agent, AgentError, Mode, Transition, UpdateStats, error::check_count, turns::Turns};

/// Plays every sequence of actions once, in lexicographic order; its greedy answer is the best one
/// played, the first of equals.
#[derive(Clone, Debug)]
pub struct Exhaustive {
    actions: usize,
    episode_len: usize,
    episodes_per_batch: usize,
    /// The next sequence to play; `None` after the last.
    next: Option<Vec<usize>>,
    playing: Vec<Vec<usize>>,
    best: Option<(f64, Vec<usize>)>,
    mode: Mode,
    turns: Turns,
}

impl Exhaustive {
    /// All sequences of `episode_len` steps with `action_count` actions, `episodes_per_batch` at a time,
    /// each at least 1.
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

    fn take_next(&mut self) -> Option<Vec<usize>> {
        let now = self.next.take()?;
        let mut following = now.clone();
        for digit in following.iter_mut().rev() {
            *digit += 1;
            if *digit < self.actions {
                self.next = Some(following);
                break;
            }
            *digit = 0;
        }
        Some(now)
    }
}

impl Agent for Exhaustive {
    fn name(&self) -> &str {
        "exhaustive"
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        self.mode = mode;
        self.playing = match mode {
            Mode::Greedy => {
                self.best.iter().take(max_episodes.min(1)).map(|(_, best)| best.clone()).collect()
            }
            Mode::Explore => {
                let limit = max_episodes.min(self.episodes_per_batch);
                std::iter::from_fn(|| self.take_next()).take(limit).collect()
            }
        };
        (!self.playing.is_empty()).then(|| self.turns.begin(self.playing.len()))
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        let step = self.turns.act()?;
        check_count("episodes observed", observations.len(), self.turns.episodes())?;
        if step >= self.episode_len {
            return Err(AgentError::Count {
                what: "steps in the episode",
                got: step + 1,
                expected: self.episode_len,
            });
        }
        Ok(self.playing.iter().map(|sequence| sequence[step]).collect())
    }

    fn reward(&mut self, transitions: &[Transition]) -> Result<(), AgentError> {
        self.turns.reward(transitions)
    }

    fn finish(&mut self) -> Result<UpdateStats, AgentError> {
        let (stats, returns) = self.turns.finish()?;
        if self.mode == Mode::Explore {
            for (total, sequence) in returns.into_iter().zip(self.playing.drain(..)) {
                if self.best.as_ref().is_none_or(|(best, _)| total > *best) {
                    self.best = Some((total, sequence));
                }
            }
        }
        Ok(stats)
    }
}
