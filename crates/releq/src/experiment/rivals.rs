//! The searches that the agent's is compared with.

use releq_agent::{Agent, Evolution, Listed, LocalSearch, RandomSearch};
use releq_core::Bitwidth;

use super::{AgentShape, pieces::TOGETHER};
use crate::{Problem, ReleqError, Sensitivities};

/// Episodes at a time of those that learn from what they measure: as many as a planned search measures, since more would be
/// chosen with less knowledge.
const BESIDE: usize = 4;

/// A search that the agent's is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rival {
    Knapsack,
    Local,
    Evolution,
    Random,
}

impl Rival {
    /// In the order of reports.
    pub(super) const ALL: [Self; 4] = [Self::Knapsack, Self::Local, Self::Evolution, Self::Random];

    /// Episodes that it plays at a time.
    pub(super) const fn batch(self) -> usize {
        match self {
            Self::Local | Self::Evolution => BESIDE,
            Self::Knapsack | Self::Random => TOGETHER,
        }
    }

    /// Its agent; `None` where it needs sensitivities and there are none.
    pub(super) fn agent(
        self,
        problem: &Problem,
        sensitivities: Option<&Sensitivities>,
        shape: &AgentShape,
    ) -> Result<Option<Box<dyn Agent>>, ReleqError> {
        let (AgentShape { actions, episode_len, seed, .. }, batch) = (shape.clone(), self.batch());
        Ok(Some(match self {
            Self::Knapsack => match sensitivities {
                Some(sensitivities) => Box::new(knapsack(problem, sensitivities)?),
                None => return Ok(None),
            },
            Self::Local => Box::new(LocalSearch::with_actions(actions, episode_len, seed, batch)),
            Self::Evolution => Box::new(Evolution::with_actions(actions, episode_len, seed, batch)),
            Self::Random => Box::new(RandomSearch::with_actions(actions, seed, batch)),
        }))
    }
}

/// The assignments that the sensitivities propose, as an agent. The first of them are spread over the frontier, so that
/// few evaluations see all of it.
fn knapsack(problem: &Problem, sensitivities: &Sensitivities) -> Result<Listed, ReleqError> {
    let proposed = sensitivities.frontier(problem)?;
    let action = |bits: &Bitwidth| problem.actions().iter().position(|action| action == bits);
    let list: Vec<Vec<usize>> = halving(proposed.len())
        .into_iter()
        .map(|place| {
            let bits = &proposed[place].bits;
            problem.searched().iter().filter_map(|&layer| action(&bits[layer])).collect()
        })
        .collect();
    let (actions, steps) = (problem.action_count(), problem.episode_len());
    Ok(Listed::new("knapsack", actions, steps, list, Rival::Knapsack.batch())?)
}

/// All of 0 to `count`, the ends first, then the middle, the quarters, and so on.
fn halving(count: usize) -> Vec<usize> {
    let last = count.saturating_sub(1);
    let mut order = Vec::with_capacity(count);
    let mut seen = vec![false; count];
    let mut parts = 1;
    while order.len() < count {
        for part in 0..=parts {
            let place = last * part / parts;
            if !std::mem::replace(&mut seen[place], true) {
                order.push(place);
            }
        }
        parts *= 2;
    }
    order
}
