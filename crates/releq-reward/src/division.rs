//! Accuracy over cost.

use serde::{Deserialize, Serialize};

use crate::{Reward, reward::finite_or_worst};

/// `acc_state / quant_state`, one of the two rewards that ReLeQ's shaping is compared with.
///
/// The reward is at least 0. It is bounded because a negative `acc_state` counts as 0 and a `quant_state`
/// below 1/32, which no bitwidth reaches, as 1/32: at most 32 times `acc_state`.
///
/// # Source
/// Elthakeb et al., arXiv 1811.01704, the comparison of reward formulations; the two bounds are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Division;

/// One bit of 32: the smallest state of quantization.
const LEAST_QUANT_STATE: f64 = 1.0 / 32.0;

impl Reward for Division {
    fn name(&self) -> &str {
        "division"
    }

    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        let (acc_state, quant_state) = finite_or_worst(acc_state, quant_state);
        acc_state.max(0.0) / quant_state.max(LEAST_QUANT_STATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_cases() {
        for (acc_state, quant_state, expected) in [
            (1.0, 0.5, 2.0),
            (0.9, 0.75, 1.2),
            (0.0, 0.25, 0.0),
            (1.0, 0.0, 32.0),
            (-1.0, 0.5, 0.0),
        ] {
            assert_eq!(Division.reward(acc_state, quant_state), expected);
        }
    }
}
