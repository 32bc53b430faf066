//! When a search stops, and why it did.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// When to stop, whichever comes first; at least one limit is needed for an agent that never ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct Budget {
    /// Episodes to play.
    pub episodes: Option<usize>,
    /// Distinct assignments to measure; never exceeded. There may be fewer assignments, or the agent may
    /// settle before, so a search with this limit alone has a patience of 1000 episodes.
    pub evaluations: Option<usize>,
    /// Episodes in a row that may bring no assignment that is new; more mean that the agent has made up
    /// its mind.
    pub patience: Option<usize>,
    /// Wall time, looked at between batches of episodes. The one limit under which two equal runs
    /// may differ.
    pub wall_time: Option<Duration>,
}

releq_core::named_fields!(Budget);

/// Patience where there is no limit but the number of evaluations.
const PATIENCE: usize = 1000;

impl Budget {
    /// The patience that counts.
    pub(super) fn patience(&self) -> Option<usize> {
        let may_never_end = self.episodes.is_none() && self.wall_time.is_none();
        self.patience.or((self.evaluations.is_some() && may_never_end).then_some(PATIENCE))
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StopReason {
    /// The budget of episodes is used up.
    Episodes,
    /// The budget of evaluations is used up.
    Evaluations,
    /// The agent asked for nothing new for as long as the budget's patience.
    Converged,
    /// The wall time is over.
    WallTime,
    /// The agent has nothing left to try.
    Exhausted,
    /// The caller said stop.
    Cancelled,
    /// A piece failed; [`SearchOutcome::error`](super::SearchOutcome::error) says which.
    Failed,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Episodes => "episode budget used up",
            Self::Evaluations => "evaluation budget used up",
            Self::Converged => "the agent has settled",
            Self::WallTime => "wall time over",
            Self::Exhausted => "nothing left to try",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        })
    }
}
