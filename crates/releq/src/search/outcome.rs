//! What a search found.

use std::collections::BTreeMap;

use releq_agent::UpdateStats;
use releq_core::BitwidthAssignment;
use releq_train::Compared;
use serde::{Deserialize, Serialize};

use super::StopReason;

/// An assignment with what it was measured at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scored {
    /// The bitwidths; of the table's entry, where a table answered a miss with its nearest.
    pub bits: BitwidthAssignment,
    /// Accuracy after the retrain, in 0 to 1; 0 where the evaluation failed.
    pub accuracy: f64,
    /// Standard error of the accuracy, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// The outputs beside those in full precision, where they were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
    /// State_Accuracy: accuracy over full-precision accuracy; what it is
    /// [estimated](crate::evaluate::Measurement::estimated) at, where it is.
    pub acc_state: f64,
    /// State_Quantization: cost over the cost of the highest bitwidth to choose from.
    pub quant_state: f64,
    /// What the reward makes of the two.
    pub reward: f64,
    /// Cost over limit, of the limit that it exceeds most; `None` within all limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_limit: Option<f64>,
    /// Why the evaluation failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The step after which the retrain was given up, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_after: Option<usize>,
}

impl Scored {
    /// Whether it may be an answer: measured, and within every limit.
    #[must_use]
    pub const fn is_candidate(&self) -> bool {
        self.failure.is_none() && self.over_limit.is_none()
    }
}

/// One batch of episodes in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BatchRecord {
    /// Episodes played, this batch included.
    pub episodes: usize,
    /// Distinct assignments measured, this batch included.
    pub evaluations: usize,
    /// Mean reward at the end of the batch's episodes.
    pub mean_reward: f64,
    /// Mean State_Accuracy there.
    pub mean_acc_state: f64,
    /// Mean State_Quantization there.
    pub mean_quant_state: f64,
    /// Probability that the agent gave each action at each step, mean over the batch's episodes, to four
    /// decimals: `[steps][actions]`. Steps are the searched layers, in order. Empty for agents without a
    /// stochastic policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub action_probabilities: Vec<Vec<f32>>,
    /// What the agent learned from it.
    pub update: UpdateStats,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SearchOutcome {
    /// Name of the agent.
    pub agent: String,
    /// Why it ended.
    pub stop: StopReason,
    /// Episodes played, the greedy one not counted.
    pub episodes: usize,
    /// Distinct assignments measured, the greedy one not counted.
    pub evaluations: usize,
    /// Evaluations that failed, as by a NaN loss.
    pub failures: usize,
    /// The agent's most likely choices after learning; `None` for agents without a policy to ask,
    /// or after a cancellation.
    pub greedy: Option<Scored>,
    /// Highest reward seen within all limits, the earliest such assignment.
    pub best: Option<Scored>,
    /// Every distinct assignment, in the order it was first asked for.
    pub scored: Vec<Scored>,
    /// Learning, batch by batch.
    pub history: Vec<BatchRecord>,
    /// What failed, where a piece ended the search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Wall time and the part of it spent in the evaluator.
    pub times: BTreeMap<String, f64>,
}

impl SearchOutcome {
    /// The assignment of lowest State_Quantization within all limits that keeps `1 - tolerance` of the full-precision
    /// accuracy; the more accurate of equals.
    #[must_use]
    pub fn best_within(&self, tolerance: f64) -> Option<&Scored> {
        self.scored
            .iter()
            .chain(&self.greedy)
            .filter(|scored| scored.is_candidate() && scored.acc_state >= 1.0 - tolerance)
            .min_by(|a, b| {
                a.quant_state
                    .total_cmp(&b.quant_state)
                    .then(b.acc_state.total_cmp(&a.acc_state))
                    .then_with(|| a.bits.cmp(&b.bits))
            })
    }
}
