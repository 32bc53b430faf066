//! Greedy search, one step of the episode at a time.

use crate::{Agent, AgentError, Mode, Transition, UpdateStats, error::check_count, turns::Turns};

/// Starts from the highest action everywhere; tries every action at one step with the others kept,
/// keeps the best, goes on to the next step, and round again until a whole pass changes nothing.
///
/// Its greedy answer is the sequence kept so far.
#[derive(Clone, Debug)]
pub struct GreedySearch {
    actions: usize,
    kept: Vec<usize>,
    best_return: f64,
    position: usize,
    /// Actions tried at this position, so far.
    tried: usize,
    best_here: usize,
    /// Positions in a row that changed nothing.
    unchanged: usize,
    mode: Mode,
    turns: Turns,
}

impl GreedySearch {
    /// A search over episodes of `episode_len` steps with `action_count` actions, each at least 1.
    #[must_use]
    pub fn new(action_count: usize, episode_len: usize) -> Self {
        let actions = action_count.max(1);
        Self {
            actions,
            kept: vec![actions - 1; episode_len.max(1)],
            best_return: f64::NEG_INFINITY,
            position: 0,
            tried: 0,
            best_here: actions - 1,
            unchanged: 0,
            mode: Mode::Explore,
            turns: Turns::default(),
        }
    }
}

impl Agent for GreedySearch {
    fn name(&self) -> &str {
        "greedy"
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        self.mode = mode;
        let episodes = match mode {
            Mode::Greedy => max_episodes.min(1),
            Mode::Explore if self.unchanged >= self.kept.len() => 0,
            Mode::Explore => max_episodes.min(self.actions - self.tried),
        };
        (episodes > 0).then(|| self.turns.begin(episodes))
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        let step = self.turns.act()?;
        check_count("episodes observed", observations.len(), self.turns.episodes())?;
        let Some(&kept) = self.kept.get(step) else {
            return Err(AgentError::Count {
                what: "steps in the episode",
                got: step + 1,
                expected: self.kept.len(),
            });
        };
        Ok(if self.mode == Mode::Explore && step == self.position {
            (self.tried..self.tried + observations.len()).collect()
        } else {
            vec![kept; observations.len()]
        })
    }

    fn reward(&mut self, transitions: &[Transition]) -> Result<(), AgentError> {
        self.turns.reward(transitions)
    }

    fn finish(&mut self) -> Result<UpdateStats, AgentError> {
        let (stats, returns) = self.turns.finish()?;
        if self.mode == Mode::Greedy {
            return Ok(stats);
        }
        for (offset, &total) in returns.iter().enumerate() {
            if total > self.best_return {
                self.best_return = total;
                self.best_here = self.tried + offset;
            }
        }
        self.tried += returns.len();
        if self.tried == self.actions {
            let changed = self.kept[self.position] != self.best_here;
            self.kept[self.position] = self.best_here;
            self.unchanged = if changed { 0 } else { self.unchanged + 1 };
            self.position = (self.position + 1) % self.kept.len();
            self.best_here = self.kept[self.position];
            self.tried = 0;
        }
        Ok(stats)
    }
}
