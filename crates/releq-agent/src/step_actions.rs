//! Which actions differ at a step.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{AgentError, error::check_count};

/// The actions of an episode: how many there are, and at which steps some of them amount to the same.
///
/// A search that takes one step's action up by one would stand still where that changes nothing, and take it for a move that
/// does not help. With these it goes on to the next action that differs.
///
/// # Examples
///
/// Five actions, of which the second step tells only the last and the others apart:
///
/// ```
/// use releq_agent::StepActions;
///
/// let actions = StepActions::new(5, vec![vec![0, 1, 2, 3, 4], vec![3, 3, 3, 3, 4]])?;
/// assert_eq!(actions.of(0), [0, 1, 2, 3, 4]);
/// assert_eq!(actions.of(1), [3, 4]);
/// assert_eq!(actions.same(1, 0), 3);
/// # Ok::<(), releq_agent::AgentError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepActions {
    all: Vec<usize>,
    /// Step by step, what each action amounts to. All actions differ at steps beyond.
    same: Vec<Vec<usize>>,
    /// Step by step, the actions that differ, ascending.
    different: Vec<Vec<usize>>,
}

impl StepActions {
    /// So many actions, at least 1, that all differ at every step.
    #[must_use]
    pub fn all(count: usize) -> Self {
        let all = (0..count.max(1)).collect();
        Self { all, same: Vec::new(), different: Vec::new() }
    }

    /// `count` actions; `same` has for every step the action that each amounts to, which amounts to itself. All actions differ at
    /// steps beyond.
    ///
    /// # Errors
    /// [`AgentError::Count`] for a step without `count` actions, or where what an action amounts to does not amount to itself;
    /// [`AgentError::Action`] for one that does not exist.
    pub fn new(count: usize, same: Vec<Vec<usize>>) -> Result<Self, AgentError> {
        let mut actions = Self::all(count);
        for step in &same {
            check_count("actions of a step", step.len(), actions.all.len())?;
            for &action in step {
                let Some(&again) = step.get(action) else {
                    return Err(AgentError::Action { action, action_count: count });
                };
                check_count(
                    "the action that an action stands for, which stands for itself",
                    again,
                    action,
                )?;
            }
            let mut different = step.clone();
            different.sort_unstable();
            different.dedup();
            actions.different.push(different);
        }
        actions.same = same;
        Ok(actions)
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.all.len()
    }

    /// Those that differ at this step, from 0, ascending.
    #[must_use]
    pub fn of(&self, step: usize) -> &[usize] {
        self.different.get(step).unwrap_or(&self.all)
    }

    /// What an action amounts to at a step: one of [`of`](Self::of).
    #[must_use]
    pub fn same(&self, step: usize, action: usize) -> usize {
        self.same.get(step).and_then(|same| same.get(action)).map_or(action, |&same| same)
    }

    /// Any of those that differ at this step.
    pub(crate) fn any(&self, step: usize, rng: &mut ChaCha8Rng) -> usize {
        let choices = self.of(step);
        choices[rng.random_range(0..choices.len())]
    }

    /// The next higher one that differs at this step.
    pub(crate) fn above(&self, step: usize, action: usize) -> Option<usize> {
        self.of(step).iter().copied().find(|&other| other > action)
    }

    /// The next lower one that differs at this step.
    pub(crate) fn below(&self, step: usize, action: usize) -> Option<usize> {
        self.of(step).iter().rev().copied().find(|&other| other < action)
    }
}
