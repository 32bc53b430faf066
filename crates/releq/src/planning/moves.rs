//! The assignments next to an assignment.

use releq_core::Bitwidth;

/// Every assignment that is one move away from `bits`: one searched layer up or down by one or two of its `actions`, or
/// one layer up and another down by one.
pub(super) fn neighbours<'a>(
    bits: &[Bitwidth],
    searched: &[usize],
    actions: &impl Fn(usize) -> &'a [Bitwidth],
) -> Vec<Vec<Bitwidth>> {
    let moved = |layer: usize, by: isize| moved(bits[layer], by, actions(layer));
    let mut all = Vec::new();
    for &layer in searched {
        for by in [-2, -1, 1, 2] {
            if let Some(to) = moved(layer, by) {
                let mut next = bits.to_vec();
                next[layer] = to;
                all.push(next);
            }
        }
        let Some(up) = moved(layer, 1) else { continue };
        for &other in searched {
            if let Some(down) = moved(other, -1).filter(|_| other != layer) {
                let mut next = bits.to_vec();
                (next[layer], next[other]) = (up, down);
                all.push(next);
            }
        }
    }
    all
}

/// Every assignment that has one bitwidth less than `bits` in one searched layer.
pub(super) fn one_less<'a>(
    bits: &[Bitwidth],
    searched: &[usize],
    actions: &impl Fn(usize) -> &'a [Bitwidth],
) -> Vec<Vec<Bitwidth>> {
    let with = |layer: usize| {
        let mut next = bits.to_vec();
        next[layer] = moved(bits[layer], -1, actions(layer))?;
        Some(next)
    };
    searched.iter().filter_map(|&layer| with(layer)).collect()
}

/// The bitwidth so many places further in the list of `actions`.
fn moved(bits: Bitwidth, by: isize, actions: &[Bitwidth]) -> Option<Bitwidth> {
    let place = actions.iter().position(|&action| action == bits)?;
    place.checked_add_signed(by).and_then(|place| actions.get(place)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_stay_within_the_actions_and_the_searched_layers() {
        let bits = |all: &[u8]| -> Vec<Bitwidth> {
            all.iter().map(|&bits| Bitwidth::new(bits).unwrap()).collect()
        };
        let (weights, activations) = (bits(&[2, 3, 4]), bits(&[4, 8]));
        let all = |_: usize| weights.as_slice();
        let mut moves = neighbours(&bits(&[2, 8, 3]), &[0, 2], &all);
        moves.sort();
        let mut expected =
            [[3, 8, 3], [4, 8, 3], [2, 8, 2], [2, 8, 4], [3, 8, 2]].map(|all| bits(&all));
        expected.sort();
        assert_eq!(moves, expected);
        let less = one_less(&bits(&[2, 8, 4]), &[0, 2], &all);
        assert_eq!(less, [bits(&[2, 8, 3])]);
        let own = |layer: usize| if layer == 1 { activations.as_slice() } else { all(layer) };
        let less = one_less(&bits(&[2, 8, 4]), &[0, 1, 2], &own);
        assert_eq!(less, [bits(&[2, 4, 4]), bits(&[2, 8, 3])]);
    }
}
