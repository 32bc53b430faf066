//! Greedy search, one step of the episode at a time.

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, StepActions, UpdateStats,
    turns::{Turns, mean},
};

/// Coordinate descent: starts from the highest action at every step, tries all actions at one step
/// while the others stay fixed, keeps the best, and moves on to the next step.
///
/// The search ends when a whole pass over the steps changes nothing. Its greedy answer is the sequence
/// kept so far.
#[derive(Clone, Debug)]
pub struct GreedySearch {
    actions: StepActions,
    kept: Vec<usize>,
    /// The highest return so far; `None` before the first batch.
    best_return: Option<f64>,
    /// The step whose actions are being tried.
    position: usize,
    /// Number of the actions that differ at this position tried so far.
    tried: usize,
    best_here: usize,
    /// Number of positions in a row that changed nothing.
    unchanged: usize,
    mode: Mode,
    turns: Turns,
}

impl GreedySearch {
    const NAME: &str = "greedy";
    const VERSION: u32 = 1;
    const FIELDS: &[&str] = &[
        "action_count",
        "episode_len",
        "kept",
        "best_return",
        "position",
        "tried",
        "best_here",
        "unchanged",
    ];

    /// A search over episodes of `episode_len` steps with `action_count` actions. Both are at least 1.
    #[must_use]
    pub fn new(action_count: usize, episode_len: usize) -> Self {
        Self::with_actions(StepActions::all(action_count), episode_len)
    }

    /// A search among these actions, of which some may amount to the same.
    #[must_use]
    pub fn with_actions(actions: StepActions, episode_len: usize) -> Self {
        let highest = actions.count() - 1;
        let kept: Vec<usize> =
            (0..episode_len.max(1)).map(|step| actions.same(step, highest)).collect();
        Self {
            actions,
            best_here: kept[0],
            kept,
            best_return: None,
            position: 0,
            tried: 0,
            unchanged: 0,
            mode: Mode::Explore,
            turns: Turns::default(),
        }
    }
}

impl Agent for GreedySearch {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        self.mode = mode;
        self.turns.begin(match mode {
            Mode::Greedy => max_episodes.min(1),
            Mode::Explore if self.unchanged >= self.kept.len() => 0,
            Mode::Explore => {
                max_episodes.min(self.actions.of(self.position).len().saturating_sub(self.tried))
            }
        })
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        let step = self.turns.act_within(observations, self.kept.len())?;
        Ok(if self.mode == Mode::Explore && step == self.position {
            let untried = self.actions.of(step).iter().skip(self.tried);
            untried.take(observations.len()).copied().collect()
        } else {
            vec![self.kept[step]; observations.len()]
        })
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        let returns = self.turns.finish(rewards)?;
        let stats = UpdateStats { mean_return: mean(&returns), ..UpdateStats::default() };
        if self.mode == Mode::Greedy {
            return Ok(stats);
        }
        let choices = self.actions.of(self.position);
        for (&action, &total) in choices.iter().skip(self.tried).zip(&returns) {
            if self.best_return.is_none_or(|best| total > best) {
                self.best_return = Some(total);
                self.best_here = action;
            }
        }
        self.tried += returns.len();
        if self.tried >= choices.len() {
            let changed = self.kept[self.position] != self.best_here;
            self.kept[self.position] = self.best_here;
            self.unchanged = if changed { 0 } else { self.unchanged + 1 };
            self.position = (self.position + 1) % self.kept.len();
            self.best_here = self.kept[self.position];
            self.tried = 0;
        }
        Ok(stats)
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        self.turns.check_finished(Self::NAME)?;
        let mut snapshot = AgentSnapshot::new(Self::NAME, Self::VERSION);
        snapshot.check_finite("best_return", self.best_return)?;
        snapshot.set("action_count", &self.actions.count())?;
        snapshot.set("episode_len", &self.kept.len())?;
        snapshot.set("kept", &self.kept)?;
        snapshot.set("best_return", &self.best_return)?;
        snapshot.set("position", &self.position)?;
        snapshot.set("tried", &self.tried)?;
        snapshot.set("best_here", &self.best_here)?;
        snapshot.set("unchanged", &self.unchanged)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect(Self::NAME, Self::VERSION, Self::FIELDS)?;
        snapshot.expect_setting("action_count", self.actions.count())?;
        snapshot.expect_setting("episode_len", self.kept.len())?;
        let count = self.actions.count();
        let position = snapshot.get_below("position", self.kept.len())?;
        let tried = snapshot.get_below("tried", count)?;
        let kept = snapshot.get_actions("kept", self.kept.len(), count)?.into_iter().enumerate();
        let restored = Self {
            actions: self.actions.clone(),
            kept: kept.map(|(step, action)| self.actions.same(step, action)).collect(),
            best_return: snapshot.get("best_return")?,
            position,
            // One that told more actions apart may have tried more of them.
            tried: if tried < self.actions.of(position).len() { tried } else { 0 },
            best_here: self.actions.same(position, snapshot.get_below("best_here", count)?),
            unchanged: snapshot.get_below("unchanged", self.kept.len() + 1)?,
            mode: Mode::Explore,
            turns: Turns::default(),
        };
        *self = restored;
        Ok(())
    }
}
