//! The Pareto frontier of cost and accuracy.

use super::Scored;

/// The Pareto frontier of `scored`: no other has both lower State_Quantization and higher State_Accuracy. What
/// failed or exceeds a limit is not on it.
///
/// Sorted by State_Quantization ascending, accuracies strictly increasing; of equal points the first
/// assignment in order of its bitwidths stands.
#[must_use]
pub fn pareto_frontier(scored: &[Scored]) -> Vec<&Scored> {
    pareto_frontier_by(scored, |scored| scored.acc_state)
}

/// As [`pareto_frontier`], by another accuracy than State_Accuracy, such as the measured one.
#[must_use]
pub fn pareto_frontier_by(scored: &[Scored], accuracy: impl Fn(&Scored) -> f64) -> Vec<&Scored> {
    let mut sorted: Vec<&Scored> = scored.iter().filter(|s| s.is_candidate()).collect();
    sorted.sort_by(|a, b| {
        a.quant_state
            .total_cmp(&b.quant_state)
            .then_with(|| accuracy(b).total_cmp(&accuracy(a)))
            .then_with(|| a.bits.cmp(&b.bits))
    });
    let mut frontier: Vec<&Scored> = Vec::new();
    for scored in sorted {
        if frontier.last().is_none_or(|last| accuracy(scored) > accuracy(last)) {
            frontier.push(scored);
        }
    }
    frontier
}
