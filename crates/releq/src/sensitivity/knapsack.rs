//! From sensitivities to assignments: the least damage for every cost, by dynamic programming.

use releq_core::{Bitwidth, BitwidthAssignment};

use super::Sensitivities;
use crate::{Problem, ReleqError};

/// Partial assignments that are kept between two layers. More change nothing where costs are sums of bits; where every
/// layer has a cost of its own, those that are nearly alike are dropped.
const MOST_KEPT: usize = 4096;

/// An assignment that sensitivities propose.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Proposed {
    /// The bitwidths.
    pub bits: BitwidthAssignment,
    /// Sum of the divergences of its layers, in nats.
    pub divergence: f64,
    /// State_Quantization.
    pub quant_state: f64,
}

/// Layers that have been given bits, the cheapest and least harmful of their kind.
#[derive(Clone)]
struct Partial {
    cost: f64,
    divergence: f64,
    /// Action of each searched layer so far.
    actions: Vec<usize>,
}

impl Sensitivities {
    /// The assignments of `problem` within its limits that no other beats in both the sum of divergences and the cost, the
    /// cheapest first.
    ///
    /// A layer is taken to add to the cost what it adds when it alone departs from the highest bitwidth. That is exact for
    /// costs that are sums over the layers; of others, the costs of the assignments that come out are computed anew.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] for sensitivities of another problem; [`ReleqError::Cost`].
    pub fn frontier(&self, problem: &Problem) -> Result<Vec<Proposed>, ReleqError> {
        let highest = problem.all_at(problem.highest());
        let base = problem.quant_state(&highest)?;
        let mut partials = vec![Partial { cost: 0.0, divergence: 0.0, actions: Vec::new() }];
        for &layer in problem.searched() {
            let mut choices = Vec::new();
            for (action, &bits) in problem.actions().iter().enumerate() {
                let mut one = highest.clone();
                one[layer] = bits;
                let cost = problem.quant_state(&one)? - base;
                choices.push((action, cost, self.of(layer, bits)?));
            }
            let longer = partials.iter().flat_map(|partial| {
                choices.iter().map(|&(action, cost, divergence)| {
                    let mut actions = partial.actions.clone();
                    actions.push(action);
                    Partial {
                        cost: partial.cost + cost,
                        divergence: partial.divergence + divergence,
                        actions,
                    }
                })
            });
            partials = thinned(undominated(longer.collect()));
        }
        let assignment = |actions: &[usize]| -> Vec<Bitwidth> {
            let mut bits = highest.clone();
            for (&layer, &action) in problem.searched().iter().zip(actions) {
                bits[layer] = problem.actions()[action];
            }
            bits
        };
        let mut within = Vec::new();
        for partial in partials {
            let bits = assignment(&partial.actions);
            if problem.over_limit(&bits)?.is_none() {
                within.push(Partial { cost: problem.quant_state(&bits)?, ..partial });
            }
        }
        let proposed = undominated(within).into_iter().map(|partial| {
            let bits = BitwidthAssignment::new(assignment(&partial.actions))?;
            let Partial { cost: quant_state, divergence, .. } = partial;
            Ok(Proposed { bits, divergence, quant_state })
        });
        proposed.collect()
    }

    fn of(&self, layer: usize, bits: Bitwidth) -> Result<f64, ReleqError> {
        let known = self.layers.iter().find(|known| known.layer == layer);
        known.and_then(|known| known.divergence(bits)).ok_or_else(|| ReleqError::Setting {
            setting: "sensitivities",
            reason: format!("layer {layer} was not measured at {bits} bits"),
        })
    }
}

/// Those that no other beats in both, the cheapest first.
fn undominated(mut all: Vec<Partial>) -> Vec<Partial> {
    // Of equals the one of fewer bits in the first layers, so that the answer does not depend on the sort.
    all.sort_by(|a, b| {
        let cheaper = a.cost.total_cmp(&b.cost);
        cheaper.then(a.divergence.total_cmp(&b.divergence)).then_with(|| a.actions.cmp(&b.actions))
    });
    let mut least = f64::INFINITY;
    // Sums of equal costs in another order differ in their last bits.
    let mut kept: Vec<Partial> = Vec::new();
    for partial in all {
        if partial.divergence < least {
            least = partial.divergence;
            if kept.last().is_some_and(|last| (partial.cost - last.cost).abs() < 1e-12) {
                kept.pop();
            }
            kept.push(partial);
        }
    }
    kept
}

/// At most [`MOST_KEPT`] of a frontier, evenly over its cost.
fn thinned(all: Vec<Partial>) -> Vec<Partial> {
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return all };
    if all.len() <= MOST_KEPT {
        return all;
    }
    let (from, width) = (first.cost, (last.cost - first.cost) / MOST_KEPT as f64);
    let mut kept: Vec<Partial> = Vec::with_capacity(MOST_KEPT);
    let mut place_of_last = usize::MAX;
    for partial in all {
        let place = ((partial.cost - from) / width) as usize;
        if place != place_of_last {
            place_of_last = place;
            kept.push(partial);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use releq_core::LayerProfile;

    use super::*;
    use crate::{SearchLayer, sensitivity::tests::by_weights};

    fn problem(layers: usize, fixed: Option<usize>) -> Problem {
        let layers = (0..layers)
            .map(|layer| SearchLayer {
                profile: LayerProfile::linear(format!("layer{layer}"), 4, 4),
                weight_std: 0.1,
                fixed: (Some(layer) == fixed).then_some(Bitwidth::EIGHT),
            })
            .collect();
        let actions = (2..=5).map(|bits| Bitwidth::new(bits).unwrap());
        Problem::builder().layers(layers).actions(actions).build().unwrap()
    }

    /// By looking at every assignment.
    fn exhaustive(known: &Sensitivities, problem: &Problem) -> Vec<(f64, f64)> {
        let layers = problem.searched().len();
        let mut all = Vec::new();
        for code in 0..problem.actions().len().pow(u32::try_from(layers).unwrap()) {
            let mut bits = problem.all_at(problem.highest());
            let mut rest = code;
            for &layer in problem.searched() {
                bits[layer] = problem.actions()[rest % problem.actions().len()];
                rest /= problem.actions().len();
            }
            let cost = problem.quant_state(&bits).unwrap();
            all.push((cost, known.divergence(&bits).unwrap()));
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut frontier: Vec<(f64, f64)> = Vec::new();
        for (cost, divergence) in all {
            if frontier.last().is_none_or(|last| divergence < last.1 - 1e-15) {
                if frontier.last().is_some_and(|last| (cost - last.0).abs() < 1e-12) {
                    frontier.pop();
                }
                frontier.push((cost, divergence));
            }
        }
        frontier
    }

    proptest! {
        #[test]
        fn it_is_the_frontier_of_all_assignments(
            weights in prop::collection::vec(0.01f64..100.0, 4),
            fixed in prop::option::of(0usize..4),
        ) {
            let problem = problem(4, fixed);
            let mut known = by_weights(&weights, 2..=5);
            known.layers.retain(|layer| Some(layer.layer) != fixed);
            let got: Vec<(f64, f64)> = known
                .frontier(&problem)
                .unwrap()
                .into_iter()
                .map(|proposed| (proposed.quant_state, proposed.divergence))
                .collect();
            let expected = exhaustive(&known, &problem);
            prop_assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().zip(&expected) {
                prop_assert!((got.0 - expected.0).abs() < 1e-9 && (got.1 - expected.1).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let known = by_weights(&[1.0, 1.0], 2..=4);
        let error = known.frontier(&problem(2, None)).unwrap_err().to_string();
        assert!(error.contains("layer 0 was not measured at 5 bits"), "{error}");
    }
}
