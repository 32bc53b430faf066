//! The reward of the authors' code.

use serde::{Deserialize, Serialize};

use crate::{Reward, reward::finite_or_worst};

/// A linear reward on a 50 x 50 grid of states, with which ReLeQ's authors made their last tables.
///
/// ```text
/// q = (floor(50 * quant_state) - 1) / 49       y = (floor(50 * acc_state) - 1) / 49
/// reward = 0                                             if q < 1/4
///        = 2 * max(4 * (1/4 - q) + 6 * y, 0)             otherwise
/// ```
///
/// It lies in [0, 12]. It rises with `acc_state`. From a `quant_state` of 0.28 on it falls or stays as the
/// cost rises; below, where q < 1/4, it is 0, so fewer bits are *worse* there. The source has it so.
///
/// # Source
/// `ppo_all_layers`, lines 555-585, of the code released with Elthakeb et al., arXiv 1811.01704. There an
/// `acc_state` from 1.02 on, or a state below 0.02, indexes outside the grid; here both indices are clamped
/// to 0 to 49.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinearGrid;

/// Cells along each side of the grid.
const CELLS: f64 = 50.0;

/// The coordinate in [0, 1] of the cell that `state` falls into.
fn cell(state: f64) -> f64 {
    ((CELLS * state).floor() - 1.0).clamp(0.0, CELLS - 1.0) / (CELLS - 1.0)
}

impl Reward for LinearGrid {
    fn name(&self) -> &str {
        "linear-grid"
    }

    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        let (acc_state, quant_state) = finite_or_worst(acc_state, quant_state);
        let (y, q) = (cell(acc_state), cell(quant_state));
        if q < 0.25 { 0.0 } else { 2.0 * (4.0 * (0.25 - q) + 6.0 * y).max(0.0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn worked_cases() {
        for (acc_state, quant_state, expected) in [
            // q = 13/49 and y = 49/49, then y = 48/49, then q = 24/49.
            (1.0, 0.28, 2.0 * (4.0 * (0.25 - 13.0 / 49.0) + 6.0)),
            (0.99, 0.29, 2.0 * (4.0 * (0.25 - 13.0 / 49.0) + 6.0 * 48.0 / 49.0)),
            (1.0, 0.5, 2.0 * (4.0 * (0.25 - 24.0 / 49.0) + 6.0)),
            // q = 11/49 is below a quarter; q = 1 costs more than y = 24/49 earns.
            (1.0, 0.25, 0.0),
            (0.5, 1.0, 0.0),
            // Outside the grid on either side.
            (1.5, 0.5, 2.0 * (4.0 * (0.25 - 24.0 / 49.0) + 6.0)),
            (0.0, 0.3, 0.0),
        ] {
            let got = LinearGrid.reward(acc_state, quant_state);
            assert!((got - expected).abs() < 1e-12, "({acc_state}, {quant_state}): {got}");
        }
    }

    proptest! {
        #[test]
        fn bounded_and_monotone(
            (acc, more_acc) in (0.0..2.0, 0.0..1.0),
            (quant, more_quant) in (0.28..1.0, 0.0..1.0),
        ) {
            let here = LinearGrid.reward(acc, quant);
            prop_assert!((0.0..=12.0).contains(&here));
            prop_assert!(LinearGrid.reward(acc + more_acc, quant) >= here);
            prop_assert!(LinearGrid.reward(acc, quant + more_quant) <= here);
        }
    }
}
