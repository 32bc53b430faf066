//! From sensitivities to assignments: the least damage for every cost, by dynamic programming.

use releq_core::{Bitwidth, BitwidthAssignment, LayerKind};

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
    /// A layer is taken to add to the cost what it adds when it alone departs from the highest bitwidth, or from that and what
    /// the activations that it reads are rounded to. That is exact for costs that are sums over the layers; of others, the
    /// costs of the assignments that come out are computed anew.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] for sensitivities of another problem; [`ReleqError::Cost`].
    pub fn frontier(&self, problem: &Problem) -> Result<Vec<Proposed>, ReleqError> {
        let highest = problem.all_at(problem.highest());
        let base = problem.quant_state(&highest)?;
        let groups = groups(problem);
        let mut partials = vec![Partial { cost: 0.0, divergence: 0.0, actions: Vec::new() }];
        for Group { activations, readers } in &groups {
            let mut all = Vec::new();
            let rounded = activations.map_or(1, |layer| problem.actions_of(layer).len());
            for action in 0..rounded {
                let (mut from, mut from_cost) = (highest.clone(), base);
                let mut kept = partials.clone();
                if let Some(layer) = *activations {
                    let choice = self.choice(problem, (&highest, base), layer, action)?;
                    from[layer] = problem.actions_of(layer)[action];
                    from_cost = problem.quant_state(&from)?;
                    kept = longer(&kept, &[choice]);
                }
                for &layer in readers {
                    let choices = (0..problem.actions_of(layer).len())
                        .map(|action| self.choice(problem, (&from, from_cost), layer, action))
                        .collect::<Result<Vec<_>, _>>()?;
                    kept = thinned(undominated(longer(&kept, &choices)));
                }
                all.extend(kept);
            }
            partials = thinned(undominated(all));
        }
        let assignment = |actions: &[usize]| -> Vec<Bitwidth> {
            let mut bits = highest.clone();
            let order =
                groups.iter().flat_map(|group| group.activations.iter().chain(&group.readers));
            for (&layer, &action) in order.zip(actions) {
                bits[layer] = problem.actions_of(layer)[action];
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

    /// What it costs and harms that one layer alone departs from an assignment of cost `base`.
    fn choice(
        &self,
        problem: &Problem,
        (from, base): (&[Bitwidth], f64),
        layer: usize,
        action: usize,
    ) -> Result<Choice, ReleqError> {
        let bits = problem.actions_of(layer)[action];
        let mut one = from.to_vec();
        one[layer] = bits;
        let cost = problem.quant_state(&one)? - base;
        Ok(Choice { action, cost, divergence: self.of(layer, bits)? })
    }

    fn of(&self, layer: usize, bits: Bitwidth) -> Result<f64, ReleqError> {
        let known = self.layers.iter().find(|known| known.layer == layer);
        known.and_then(|known| known.divergence(bits)).ok_or_else(|| ReleqError::Setting {
            setting: "sensitivities",
            reason: format!("layer {layer} was not measured at {bits} bits"),
        })
    }
}

/// Searched layers whose costs depend on each other, but on nothing else.
struct Group {
    /// Activations that are rounded, if that is searched.
    activations: Option<usize>,
    /// The layers with weights that read them, or one by itself.
    readers: Vec<usize>,
}

/// The searched layers in groups.
fn groups(problem: &Problem) -> Vec<Group> {
    let profile = |layer: usize| &problem.layers()[layer].profile;
    let searched = problem.searched();
    let is_rounded = |layer: usize| profile(layer).kind == LayerKind::Activations;
    let reads = |layer: usize| {
        let read = profile(layer).reads.as_deref()?;
        searched.iter().copied().find(|&other| is_rounded(other) && profile(other).name == read)
    };
    let mut groups = Vec::new();
    for &layer in searched {
        if is_rounded(layer) {
            let readers = searched.iter().copied().filter(|&reader| reads(reader) == Some(layer));
            groups.push(Group { activations: Some(layer), readers: readers.collect() });
        } else if reads(layer).is_none() {
            groups.push(Group { activations: None, readers: vec![layer] });
        }
    }
    groups
}

/// What one action for one layer adds.
struct Choice {
    action: usize,
    cost: f64,
    divergence: f64,
}

/// Every partial assignment with every choice for one layer more.
fn longer(partials: &[Partial], choices: &[Choice]) -> Vec<Partial> {
    let with = |partial: &Partial, choice: &Choice| {
        let mut actions = partial.actions.clone();
        actions.push(choice.action);
        Partial {
            cost: partial.cost + choice.cost,
            divergence: partial.divergence + choice.divergence,
            actions,
        }
    };
    partials.iter().flat_map(|partial| choices.iter().map(|choice| with(partial, choice))).collect()
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
    use releq_core::{LayerProfile, Shape};

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

    #[test]
    fn weights_and_what_they_read_are_chosen_together() {
        let activations = |name: &str| SearchLayer {
            profile: LayerProfile::activations(name, Shape::Vector { features: 4 }),
            weight_std: 0.0,
            fixed: None,
        };
        let layer = |name: &str, inputs: usize, reads: &str| {
            let mut profile = LayerProfile::linear(name, inputs, 4);
            profile.reads = Some(reads.to_owned());
            SearchLayer { profile, weight_std: 0.1, fixed: None }
        };
        let layers = vec![
            activations("a"),
            layer("one", 4, "a"),
            layer("two", 9, "a"),
            activations("b"),
            layer("three", 6, "b"),
        ];
        let bits = |all: &[u8]| -> Vec<Bitwidth> {
            all.iter().map(|&bits| Bitwidth::new(bits).unwrap()).collect()
        };
        let problem = Problem::builder()
            .layers(layers)
            .actions(bits(&[2, 3, 4]))
            .activation_actions(bits(&[4, 8]))
            .cost(releq_hw::BitOperations)
            .build()
            .unwrap();
        assert_eq!(problem.actions(), bits(&[2, 3, 4, 8]));
        assert_eq!(problem.all_at(Bitwidth::EIGHT), bits(&[8, 4, 4, 8, 4]));
        assert_eq!(problem.all_at(Bitwidth::new(2).unwrap()), bits(&[4, 2, 2, 4, 2]));
        assert!(problem.admits(&bits(&[4, 2, 3, 8, 4])));
        assert!(!problem.admits(&bits(&[3, 2, 3, 8, 4])));
        assert!(!problem.admits(&bits(&[4, 2, 8, 8, 4])));
        // By hand: weights times bits times bits, over those at 4 and 8 bits.
        let quant_state = problem.quant_state(&bits(&[4, 2, 3, 8, 4])).unwrap();
        let by_hand =
            (16 * 2 * 4 + 36 * 3 * 4 + 24 * 4 * 8) as f64 / ((16 + 36 + 24) * 4 * 8) as f64;
        assert!((quant_state - by_hand).abs() < 1e-12);

        let known = by_weights(&[0.7, 1.0, 0.2, 1.5, 0.4], 2..=8);
        let mut expected: Vec<(f64, f64)> = Vec::new();
        for code in 0..4 * 27 {
            let activation = |place: u32| [4, 8][code >> place & 1];
            let weight = |place: u32| u8::try_from(code / 4 / 3usize.pow(place) % 3 + 2).unwrap();
            let all = bits(&[activation(0), weight(0), weight(1), activation(1), weight(2)]);
            let divergence = known.divergence(&all).unwrap();
            expected.push((problem.quant_state(&all).unwrap(), divergence));
        }
        expected.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut least = f64::INFINITY;
        expected.retain(|&(_, divergence)| {
            let better = divergence < least - 1e-12;
            least = least.min(divergence);
            better
        });
        let got = known.frontier(&problem).unwrap();
        assert_eq!(got.len(), expected.len());
        for (got, (cost, divergence)) in got.iter().zip(expected) {
            assert!((got.quant_state - cost).abs() < 1e-9, "{got:?}, {cost}");
            assert!((got.divergence - divergence).abs() < 1e-9, "{got:?}, {divergence}");
        }
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
