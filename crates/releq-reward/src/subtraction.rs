//! Accuracy less cost.

use serde::{Deserialize, Serialize};

use crate::{Reward, reward::finite_or_worst};

/// `acc_state - quant_state`, one of the two rewards that ReLeQ's shaping is compared with.
///
/// The reward is at least -1 and at most `acc_state`: a negative `acc_state` counts as 0, and
/// `quant_state` is kept within [0, 1].
///
/// # Source
/// Elthakeb et al., arXiv 1811.01704, the comparison of reward formulations; the bounds are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtraction;

impl Reward for Subtraction {
    fn name(&self) -> &str {
        "subtraction"
    }

    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        let (acc_state, quant_state) = finite_or_worst(acc_state, quant_state);
        acc_state.max(0.0) - quant_state.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_cases() {
        for (acc_state, quant_state, expected) in
            [(1.0, 0.5, 0.5), (0.5, 0.75, -0.25), (0.0, 1.0, -1.0), (-1.0, 9.0, -1.0)]
        {
            assert_eq!(Subtraction.reward(acc_state, quant_state), expected);
        }
    }
}
