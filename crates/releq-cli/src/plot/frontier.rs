//! The frontier of what is drawn: of measured accuracy and cost.

use releq::{Scored, pareto_frontier_by};

/// Those of which no other is both cheaper and more accurate, ascending. By the accuracy that was measured, which figures
/// show; [`releq::pareto_frontier`] is by State_Accuracy, which may be an estimate. What failed or exceeds a limit is not
/// among them.
pub(super) fn frontier(scored: &[Scored]) -> Vec<&Scored> {
    pareto_frontier_by(scored, |scored| scored.accuracy)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use releq::core::BitwidthAssignment;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_drawn_has_its_own_frontier() {
        let scored = |bits: &str, accuracy: f64, estimate: f64, cost: f64, over: Option<f64>| {
            serde_json::from_value::<Scored>(json!({
                "bits": bits.parse::<BitwidthAssignment>().unwrap(),
                "accuracy": accuracy,
                "acc_state": estimate,
                "quant_state": cost,
                "reward": 0.0,
                "over_limit": over,
            }))
            .unwrap()
        };
        let scored = [
            scored("4-4", 0.95, 0.99, 0.5, None),
            scored("2-2", 0.90, 0.80, 0.25, None),
            // Better by the estimate alone.
            scored("3-3", 0.89, 0.97, 0.375, None),
            scored("5-2", 0.96, 0.90, 0.5, None),
            scored("2-3", 0.99, 0.99, 0.3, Some(1.5)),
        ];
        let bits: Vec<String> = frontier(&scored).iter().map(|s| s.bits.to_string()).collect();
        assert_eq!(bits, ["2-2", "5-2"]);
    }
}
