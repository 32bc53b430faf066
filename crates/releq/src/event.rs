//! What a run reports while it goes on.

use std::fmt;

use releq_core::{Bitwidth, BitwidthAssignment};
use serde::{Deserialize, Serialize};

use crate::search::{BatchRecord, Budget, Scored};

/// Part of an experiment that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stage {
    /// Training in full precision, from the start or from given weights.
    Pretrain,
    /// Every layer at every bitwidth, alone.
    Sensitivities,
    /// The agent's search.
    Search,
    /// The searches that the agent's is compared with.
    Comparison,
    /// The long retrains, or corrections, at the end.
    Final,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pretrain => "full precision",
            Self::Sensitivities => "sensitivities",
            Self::Search => "search",
            Self::Comparison => "comparison",
            Self::Final => "finals",
        })
    }
}

/// News of a run, for whoever shows, logs or sends them: a progress bar, a log file and a socket read the
/// same events.
///
/// [`progress`](Self::progress) gives what a bar needs, `Display` the latest figure for a person, and
/// `serde` the whole event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A search begins.
    SearchBegun {
        /// [`Stage::Search`] or [`Stage::Comparison`].
        stage: Stage,
        /// Name of the agent.
        agent: String,
        /// When the search ends.
        budget: Budget,
    },
    /// One step of the training in full precision.
    TrainingStep {
        /// Steps taken, this one included.
        step: usize,
        /// Steps planned.
        steps: usize,
        /// Mean loss of the step's batch.
        loss: f32,
        /// Learning rate of the step.
        learning_rate: f32,
    },
    /// One layer at one bitwidth, all others in full precision.
    Sensitivity {
        /// Measurements done, this one included.
        done: usize,
        /// Measurements planned.
        total: usize,
        /// Name of the layer.
        layer: String,
        /// The bitwidth.
        bits: Bitwidth,
        /// Divergence of the outputs from those in full precision, in nats.
        divergence: f64,
    },
    /// One batch of episodes of a search.
    Episodes {
        /// [`Stage::Search`] or [`Stage::Comparison`].
        stage: Stage,
        /// Name of the agent.
        agent: String,
        /// When the search ends.
        budget: Budget,
        /// Means over the batch, and how far the search is.
        record: Box<BatchRecord>,
        /// Evaluations so far that failed.
        failures: usize,
        /// The assignment of highest reward so far.
        best: Option<Box<Scored>>,
    },
    /// A step of a retrain that is under way, a few times a second at most.
    RetrainStep {
        /// The stage that it belongs to.
        stage: Stage,
        /// The assignment.
        bits: BitwidthAssignment,
        /// Steps taken, this one included.
        step: usize,
        /// Steps planned.
        steps: usize,
    },
    /// One long retrain.
    Retrained {
        /// Retrains done, this one included.
        done: usize,
        /// Retrains foreseen, with the most steps that the searches for the cheapest candidate within the tolerance may yet
        /// take. It changes: in the end there are fewer where searches share candidates, and more where another seed decides.
        total: usize,
        /// The assignment; `None` before the first retrain.
        bits: Option<BitwidthAssignment>,
        /// Accuracy on the validation images, in 0 to 1, unless the retrain failed.
        accuracy: Option<f64>,
        /// Why the retrain failed, if it did.
        failure: Option<String>,
    },
}

impl Event {
    /// The stage that the event is from.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self {
            Self::TrainingStep { .. } => Stage::Pretrain,
            Self::Sensitivity { .. } => Stage::Sensitivities,
            Self::SearchBegun { stage, .. }
            | Self::Episodes { stage, .. }
            | Self::RetrainStep { stage, .. } => *stage,
            Self::Retrained { .. } => Stage::Final,
        }
    }

    /// Name of the agent whose search it is from, where the event tells.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        match self {
            Self::SearchBegun { agent, .. } | Self::Episodes { agent, .. } => Some(agent),
            _ => None,
        }
    }

    /// How much of the stage is done, and how much there is; 0 of 0 where the event does not tell. Steps, retrains, and
    /// for a search evaluations or episodes, whichever its budget limits.
    #[must_use]
    pub const fn progress(&self) -> (usize, usize) {
        match self {
            Self::TrainingStep { step, steps, .. } => (*step, *steps),
            // Of the one retrain; what the stage has done is not known here.
            Self::RetrainStep { .. } => (0, 0),
            Self::SearchBegun { budget, .. } => of_search(budget, 0, 0),
            Self::Episodes { budget, record, .. } => {
                of_search(budget, record.evaluations, record.episodes)
            }
            Self::Sensitivity { done, total, .. } | Self::Retrained { done, total, .. } => {
                (*done, *total)
            }
        }
    }
}

/// What a search has done, and what there is to do: evaluations or episodes, whichever its budget limits.
const fn of_search(budget: &Budget, evaluations: usize, episodes: usize) -> (usize, usize) {
    match (budget.evaluations, budget.episodes) {
        (Some(limit), _) => (evaluations, limit),
        (None, Some(limit)) => (episodes, limit),
        (None, None) => (episodes, 0),
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrainingStep { loss, .. } => write!(f, "loss {loss:.4}"),
            Self::Sensitivity { layer, bits, divergence, .. } => {
                write!(f, "{layer} at {bits} bits: {divergence:.4} nats")
            }
            Self::Episodes { best: Some(best), .. } => {
                write!(f, "best {} at {:.2} %", best.bits, 100.0 * best.accuracy)
            }
            Self::Retrained { bits: Some(bits), accuracy: Some(accuracy), .. } => {
                write!(f, "{bits} at {:.2} %", 100.0 * accuracy)
            }
            Self::Retrained { bits: Some(bits), failure: Some(failure), .. } => {
                write!(f, "{bits}: {failure}")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_a_bar_a_person_and_a_program() {
        let step = Event::TrainingStep { step: 3, steps: 10, loss: 0.25, learning_rate: 0.1 };
        assert_eq!((step.stage(), step.progress()), (Stage::Pretrain, (3, 10)));
        assert_eq!(step.to_string(), "loss 0.2500");
        let retrained = Event::Retrained {
            done: 1,
            total: 4,
            bits: "2-2-3-2".parse().ok(),
            accuracy: None,
            failure: Some("the loss became NaN".into()),
        };
        assert_eq!((retrained.stage(), retrained.progress()), (Stage::Final, (1, 4)));
        assert_eq!(retrained.to_string(), "2-2-3-2: the loss became NaN");
        let budget = Budget { evaluations: Some(9), ..Budget::default() };
        let (stage, agent) = (Stage::Comparison, "random".to_owned());
        let begun = Event::SearchBegun { stage, agent, budget };
        assert_eq!((begun.stage(), begun.progress()), (Stage::Comparison, (0, 9)));
        assert_eq!((begun.agent(), step.agent()), (Some("random"), None));
        let bits = "2-2-3-2".parse().unwrap();
        let under_way = Event::RetrainStep { stage, bits, step: 3, steps: 10 };
        assert_eq!((under_way.stage(), under_way.progress()), (Stage::Comparison, (0, 0)));
        for event in [step, retrained, begun, under_way] {
            let json = serde_json::to_string(&event).unwrap();
            assert!(json.contains("\"event\":"), "{json}");
            assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        }
    }
}
