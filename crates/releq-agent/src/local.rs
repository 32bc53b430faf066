//! Local search from the best uniform sequence.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, StepActions, UpdateStats,
    sequences::{Played, Sequences},
};

/// What a sceptic would try first: plays every uniform sequence of actions, then improves the best of them by moves.
///
/// A move takes one step's action up or down to the next; once no such move improves the return, moves that take one up and
/// another down are tried. Where none of those does either, the search goes on from the best sequence with three
/// steps changed at random. The first improvement is taken, and moves come in random order. Its greedy answer is the
/// best sequence.
#[derive(Clone, Debug)]
pub struct LocalSearch {
    sequences: Sequences,
    state: State,
    /// Where the batch in progress began, so that a dropped one is played again.
    begun_from: Option<State>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    best: Option<Played>,
    /// What moves start from; `None` while the uniform sequences are played.
    current: Option<Played>,
    /// What is to be played next, the last first.
    queue: Vec<Next>,
    /// Whether a move of this pass has improved the current sequence.
    improved: bool,
    /// Whether the moves of this pass change two steps.
    exchanges: bool,
    /// Whether what is played next was changed at random.
    kicked: bool,
    rng: ChaCha8Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Next {
    /// This action at every step.
    Uniform(usize),
    /// The best sequence with some steps changed at random.
    Kick,
    /// One step up, another down.
    Move { up: Option<usize>, down: Option<usize> },
}

impl LocalSearch {
    const NAME: &str = "local";
    const VERSION: u32 = 1;
    const FIELDS: &[&str] = &["action_count", "episode_len", "episodes_per_batch", "state"];
    /// Steps that are changed at random where nothing improves.
    const KICKED: usize = 3;

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
        let sequences = Sequences::new(actions, episode_len, episodes_per_batch);
        let state = State {
            best: None,
            current: None,
            queue: (0..sequences.actions.count()).rev().map(Next::Uniform).collect(),
            improved: false,
            exchanges: false,
            kicked: false,
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        Self { sequences, state, begun_from: None }
    }

    /// The sequence that `next` stands for, if there is one.
    fn sequence(&mut self, next: Next) -> Option<Vec<usize>> {
        let Sequences { actions: all, episode_len, .. } = &self.sequences;
        let from = |played: &Option<Played>| played.as_ref().map(|played| played.actions.clone());
        match next {
            Next::Uniform(action) => Some(self.sequences.uniform(action)),
            Next::Kick => {
                let mut actions = from(&self.state.best)?;
                for _ in 0..Self::KICKED {
                    let step = self.state.rng.random_range(0..*episode_len);
                    actions[step] = all.any(step, &mut self.state.rng);
                }
                Some(actions)
            }
            Next::Move { up, down } => {
                let mut actions = from(&self.state.current)?;
                if let Some(step) = up {
                    actions[step] = all.above(step, actions[step])?;
                }
                if let Some(step) = down {
                    actions[step] = all.below(step, actions[step])?;
                }
                Some(actions)
            }
        }
    }

    /// Queues the next pass, once one is over.
    fn next_pass(&mut self) {
        let steps = self.sequences.episode_len;
        let State { best, current, queue, improved, exchanges, kicked, rng } = &mut self.state;
        if current.is_none() {
            current.clone_from(best);
            (*improved, *exchanges) = (true, false);
        }
        let mut moves: Vec<Next> = Vec::new();
        if *improved {
            *exchanges = false;
            for step in 0..steps {
                moves.push(Next::Move { up: Some(step), down: None });
                moves.push(Next::Move { up: None, down: Some(step) });
            }
        } else if !*exchanges {
            *exchanges = true;
            let pairs = (0..steps).flat_map(|up| (0..steps).map(move |down| (up, down)));
            moves.extend(
                pairs
                    .filter(|(up, down)| up != down)
                    .map(|(up, down)| Next::Move { up: Some(up), down: Some(down) }),
            );
        }
        moves.shuffle(rng);
        if moves.is_empty() {
            // Nothing improves: elsewhere.
            moves.push(Next::Kick);
            *kicked = true;
        }
        *improved = false;
        *queue = moves;
    }
}

impl Agent for LocalSearch {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        if let Some(state) = self.begun_from.take() {
            self.state = state;
        }
        if mode == Mode::Greedy {
            return self.sequences.greedy(self.state.best.as_ref(), max_episodes);
        }
        let most = self.sequences.most(max_episodes);
        let begun_from = self.state.clone();
        let mut batch = Vec::new();
        while batch.len() < most {
            match self.state.queue.pop() {
                Some(next) => {
                    batch.extend(self.sequence(next));
                    if next == Next::Kick {
                        break;
                    }
                }
                // What comes next depends on what is being played.
                None if !batch.is_empty() => break,
                None => self.next_pass(),
            }
        }
        self.begun_from = Some(begun_from);
        self.sequences.explore(batch)
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        self.sequences.act(observations)
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        let (stats, batch) = self.sequences.finish(rewards)?;
        self.begun_from = None;
        let State { best, current, improved, kicked, .. } = &mut self.state;
        for played in batch {
            if played.is_better(best.as_ref()) {
                *best = Some(played.clone());
            }
            // Moves start from what was changed at random, however good that is.
            let starts = std::mem::take(kicked) || played.is_better(current.as_ref());
            if current.is_some() && starts {
                *current = Some(played);
                *improved = true;
            }
        }
        Ok(stats)
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        let mut snapshot = self.sequences.snapshot(Self::NAME, Self::VERSION)?;
        let returns = [&self.state.best, &self.state.current];
        let returns = returns.into_iter().flatten().map(|played| played.episode_return);
        snapshot.check_finite("state", returns)?;
        snapshot.set("state", &self.state)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        snapshot.expect(Self::NAME, Self::VERSION, Self::FIELDS)?;
        self.sequences.expect(snapshot)?;
        let state: State = snapshot.get("state")?;
        let played = [("best", &state.best), ("current", &state.current)];
        for (name, played) in played {
            let Some(Played { actions, .. }) = played else { continue };
            if !self.sequences.is_episode(actions) {
                return Err(snapshot.error(format!("state.{name}"), "no episode of this agent"));
            }
        }
        let Sequences { actions, episode_len, .. } = &self.sequences;
        let exists = |next: &Next| match *next {
            Next::Uniform(action) => action < actions.count(),
            Next::Kick => true,
            Next::Move { up, down } => {
                [up, down].into_iter().flatten().all(|step| step < *episode_len)
            }
        };
        if !state.queue.iter().all(exists) {
            return Err(snapshot.error("state.queue", "a step or action that does not exist"));
        }
        (self.state, self.begun_from) = (state, None);
        self.sequences.reset();
        Ok(())
    }
}
