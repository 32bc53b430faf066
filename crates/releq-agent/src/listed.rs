//! An agent that plays what it is told to.

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, StepActions, UpdateStats,
    sequences::{Best, Sequences},
};

/// Plays given sequences of actions, one after the other, and learns nothing.
///
/// So the proposals of a method that is no agent are measured as an agent's are. Its greedy answer is the sequence with
/// the highest return so far, the first of equals.
#[derive(Clone, Debug)]
pub struct Listed {
    name: String,
    list: Vec<Vec<usize>>,
    sequences: Sequences,
    /// How many of the list are played.
    played: usize,
    best: Best,
}

impl Listed {
    const VERSION: u32 = 1;
    const FIELDS: &[&str] = &[
        "action_count",
        "episode_len",
        "episodes_per_batch",
        "list",
        "played",
        "best_return",
        "best_actions",
    ];

    /// Plays the sequences of `list`, `episodes_per_batch` at a time, under this `name`.
    ///
    /// # Errors
    /// [`AgentError::Count`] for a sequence that has not `episode_len` actions, or an action that is not below
    /// `action_count`.
    pub fn new(
        name: impl Into<String>,
        action_count: usize,
        episode_len: usize,
        list: Vec<Vec<usize>>,
        episodes_per_batch: usize,
    ) -> Result<Self, AgentError> {
        for sequence in &list {
            if sequence.len() != episode_len {
                let (what, got, expected) = ("actions listed", sequence.len(), episode_len);
                return Err(AgentError::Count { what, got, expected });
            }
            if let Some(&action) = sequence.iter().find(|&&action| action >= action_count) {
                let (what, got) = ("a listed action, which must be below the actions", action);
                return Err(AgentError::Count { what, got, expected: action_count });
            }
        }
        let actions = StepActions::all(action_count);
        let sequences = Sequences::new(actions, episode_len, episodes_per_batch);
        Ok(Self { name: name.into(), list, sequences, played: 0, best: Best::default() })
    }
}

impl Agent for Listed {
    fn name(&self) -> &str {
        &self.name
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        match mode {
            Mode::Greedy => self.sequences.greedy(self.best.get(), max_episodes),
            Mode::Explore => {
                let next = self.list.iter().skip(self.played);
                let batch = next.take(self.sequences.most(max_episodes)).cloned().collect();
                self.sequences.explore(batch)
            }
        }
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        self.sequences.act(observations)
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        let (stats, batch) = self.sequences.finish(rewards)?;
        self.played += batch.len();
        self.best.see(batch);
        Ok(stats)
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        let mut snapshot = self.sequences.snapshot(&self.name, Self::VERSION)?;
        self.best.save(&mut snapshot)?;
        snapshot.set("list", &self.list)?;
        snapshot.set("played", &self.played)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect(&self.name, Self::VERSION, Self::FIELDS)?;
        self.sequences.expect(snapshot)?;
        if snapshot.get::<Vec<Vec<usize>>>("list")? != self.list {
            return Err(snapshot.error("list", "this agent plays another list"));
        }
        let played = snapshot.get::<usize>("played")?.min(self.list.len());
        (self.best, self.played) = (Best::load(snapshot, &self.sequences)?, played);
        self.sequences.reset();
        Ok(())
    }
}
