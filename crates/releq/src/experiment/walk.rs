//! A search's way through its candidates for the long retrain.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
};

use releq_core::BitwidthAssignment;

use crate::{SearchOutcome, pareto_frontier};

/// What the long retrain of one candidate came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    /// Whether it is within the tolerance.
    pub(super) good: bool,
    /// On the validation images; 0 where the retrain failed.
    pub(super) accuracy: f64,
}

/// The frontier of what a search measured and its greedy answer, with their costs.
pub(super) fn measured(outcome: &SearchOutcome) -> Vec<(f64, BitwidthAssignment)> {
    let greedy = outcome.greedy.iter().filter(|greedy| greedy.is_candidate());
    let all = pareto_frontier(&outcome.scored).into_iter().chain(greedy);
    all.map(|scored| (scored.quant_state, scored.bits.clone())).collect()
}

/// Looks for the cheapest candidate whose long retrain is within the tolerance, by bisection: of candidates on a
/// frontier, a costlier one is more accurate.
pub(super) struct Walk {
    pub(super) label: String,
    /// Cheapest first.
    candidates: Vec<BitwidthAssignment>,
    /// Most candidates that are retrained on its way by the first verdicts, and as they are now.
    most: usize,
}

/// What is known of a candidate, if it was retrained.
pub(super) type Known<'k> = dyn Fn(&BitwidthAssignment) -> Option<Verdict> + 'k;

/// How far a walk is.
struct Progress {
    /// Places that may still have the answer.
    open: Range<usize>,
    /// Places that are retrained, and what came of them.
    tried: Vec<(usize, Verdict)>,
}

impl Walk {
    /// Among these candidates and what they cost, with at most `most` long retrains.
    pub(super) fn new(
        label: String,
        mut candidates: Vec<(f64, BitwidthAssignment)>,
        most: usize,
    ) -> Self {
        candidates
            .sort_by(|(a, a_bits), (b, b_bits)| a.total_cmp(b).then_with(|| a_bits.cmp(b_bits)));
        candidates.dedup_by(|(_, a), (_, b)| a == b);
        Self { label, candidates: candidates.into_iter().map(|(_, bits)| bits).collect(), most }
    }

    /// How far it is by the verdicts of `first` alone, and by those as they are now. Both ways together are no longer than a
    /// walk may be: once the first one has used all of it, what it has tried has to do.
    fn progress(&self, first: &Known<'_>, now: &Known<'_>) -> [Progress; 2] {
        let at_first = self.way(first, &[]);
        let now = self.way(now, &at_first.tried);
        [at_first, now]
    }

    fn way(&self, verdict: &Known<'_>, before: &[(usize, Verdict)]) -> Progress {
        let mut progress = Progress { open: 0..self.candidates.len(), tried: Vec::new() };
        let mut left = self.most.saturating_sub(before.len());
        while let Some(place) = middle(&progress.open)
            && let Some(verdict) = verdict(&self.candidates[place])
        {
            if before.iter().all(|&(tried, _)| tried != place) {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
            progress.tried.push((place, verdict));
            let [cheaper, costlier] = around(&progress.open, place);
            progress.open = if verdict.good { cheaper } else { costlier };
        }
        progress
    }

    /// What it has tried, on its way by the first verdicts or as they are now.
    pub(super) fn tried(
        &self,
        first: &Known<'_>,
        now: &Known<'_>,
    ) -> BTreeSet<&BitwidthAssignment> {
        let both = self.progress(first, now).into_iter();
        both.flat_map(|way| way.tried).map(|(place, _)| &self.candidates[place]).collect()
    }

    /// The places that may still have the answer, and how many of them it may yet try.
    fn rest(&self, first: &Known<'_>, now: &Known<'_>) -> (Range<usize>, usize) {
        let [at_first, now] = self.progress(first, now);
        let both = at_first.tried.iter().chain(&now.tried);
        let tried: BTreeSet<usize> = both.map(|&(place, _)| place).collect();
        (now.open, self.most - tried.len())
    }

    /// What it has yet to try, the next one first; those after it only if its verdict leads there. `first` and `now` are
    /// asked about every candidate that was retrained.
    pub(super) fn upcoming(&self, first: &Known<'_>, now: &Known<'_>) -> Vec<&BitwidthAssignment> {
        let mut upcoming = Vec::new();
        let mut parts = VecDeque::from([self.rest(first, now)]);
        while let Some((part, left)) = parts.pop_front() {
            if left > 0
                && let Some(place) = middle(&part)
            {
                upcoming.push(&self.candidates[place]);
                parts.extend(around(&part, place).map(|part| (part, left - 1)));
            }
        }
        upcoming
    }

    /// Most steps that it has yet to take.
    pub(super) fn steps_left(&self, first: &Known<'_>, now: &Known<'_>) -> usize {
        let (open, left) = self.rest(first, now);
        let halvings = usize::BITS - open.len().leading_zeros();
        left.min(halvings as usize)
    }

    /// The candidate that stands for the search: of all that it has tried, by the verdicts of `first` or as they are now, the
    /// cheapest within the tolerance; if none is, the most accurate, the cheapest of equals. `None` before the first verdict.
    ///
    /// What led on at first may be no part of the way any more once another seed has changed a verdict before it. It is as
    /// good an answer as before.
    pub(super) fn chosen(&self, first: &Known<'_>, now: &Known<'_>) -> Option<&BitwidthAssignment> {
        let [at_first, Progress { mut tried, .. }] = self.progress(first, now);
        let at_first = at_first.tried.into_iter().map(|(place, _)| place);
        tried.extend(at_first.filter_map(|place| Some((place, now(&self.candidates[place])?))));
        let good = tried.iter().filter(|(_, verdict)| verdict.good).map(|(place, _)| *place).min();
        let place = good.or_else(|| {
            let best = tried.iter().max_by(|(a, of_a), (b, of_b)| {
                of_a.accuracy.total_cmp(&of_b.accuracy).then(b.cmp(a))
            });
            best.map(|(place, _)| *place)
        });
        place.map(|place| &self.candidates[place])
    }
}

fn middle(range: &Range<usize>) -> Option<usize> {
    (!range.is_empty()).then(|| range.start + range.len() / 2)
}

/// What is left of `range` on both sides of a place in it.
fn around(range: &Range<usize>, place: usize) -> [Range<usize>; 2] {
    [range.start..place, place + 1..range.end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use releq_core::Bitwidth;

    use super::*;

    fn walk(candidates: usize, most: usize) -> Walk {
        let bits = |i: usize| {
            let both = [i / 16, i % 16].map(|x| Bitwidth::new(x as u8 + 1).unwrap());
            BitwidthAssignment::new(both.to_vec()).unwrap()
        };
        Walk { label: String::new(), candidates: (0..candidates).map(bits).collect(), most }
    }

    /// Takes all steps, `at_once` retrains at a time; gives the place that was chosen and the number of retrains.
    fn settle(walk: &Walk, first_good: usize, at_once: usize) -> (Option<usize>, usize) {
        let place = |bits: &BitwidthAssignment| walk.candidates.iter().position(|c| c == bits);
        let mut done: BTreeSet<usize> = BTreeSet::new();
        loop {
            let verdict = |bits: &BitwidthAssignment| {
                let place = place(bits).filter(|place| done.contains(place))?;
                Some(Verdict { good: place >= first_good, accuracy: place as f64 })
            };
            let next: Vec<usize> = walk
                .upcoming(&verdict, &verdict)
                .into_iter()
                .filter_map(place)
                .take(at_once)
                .collect();
            if next.is_empty() {
                assert_eq!(walk.steps_left(&verdict, &verdict), 0);
                return (walk.chosen(&verdict, &verdict).and_then(place), done.len());
            }
            done.extend(next);
        }
    }

    proptest! {
        #[test]
        fn it_finds_the_cheapest_good_one_with_any_number_of_threads(
            (count, first_good) in (1usize..200).prop_flat_map(|n| (Just(n), 0..n)),
            threads in 1usize..5,
        ) {
            let walk = walk(count, 8);
            let (found, retrains) = settle(&walk, first_good, 1);
            prop_assert_eq!(found, Some(first_good));
            let unknown = |_: &BitwidthAssignment| None;
            prop_assert!(retrains <= walk.steps_left(&unknown, &unknown));
            prop_assert_eq!(settle(&walk, first_good, threads).0, found);
        }
    }

    #[test]
    fn what_another_seed_led_away_from_still_counts() {
        // Places 0 to 6. At first 3 is good and leads to 1, which is good and leads to 0, which is not.
        let walk = walk(7, 8);
        let place = |bits: &BitwidthAssignment| walk.candidates.iter().position(|c| c == bits);
        let verdict = |good: &'static [usize]| {
            move |bits: &BitwidthAssignment| {
                let place = place(bits)?;
                Some(Verdict { good: good.contains(&place), accuracy: place as f64 })
            }
        };
        let first = verdict(&[1, 3, 5]);
        assert_eq!(walk.chosen(&first, &first).and_then(place), Some(1));
        // Another seed finds that 3 is not good, which leads to 5.
        let last = verdict(&[1, 5]);
        assert_eq!(walk.chosen(&last, &last).and_then(place), Some(5));
        assert_eq!(walk.chosen(&first, &last).and_then(place), Some(1));
        // Nor is 1 then.
        assert_eq!(walk.chosen(&first, &verdict(&[5])).and_then(place), Some(5));
    }

    #[test]
    fn both_ways_together_are_no_longer_than_a_walk_may_be() {
        // As above: 3, 1 and 0 at first, and then 5 beside 3.
        for (most, next) in [(3, None), (4, Some(5)), (7, Some(5))] {
            let walk = walk(7, most);
            let place = |bits: &BitwidthAssignment| walk.candidates.iter().position(|c| c == bits);
            let verdict = |good: &'static [usize]| {
                move |bits: &BitwidthAssignment| {
                    let place = place(bits).filter(|&place| place < 5)?;
                    Some(Verdict { good: good.contains(&place), accuracy: place as f64 })
                }
            };
            let (first, now) = (verdict(&[1, 3]), verdict(&[1]));
            assert!(walk.upcoming(&first, &first).is_empty(), "{most}");
            let upcoming = walk.upcoming(&first, &now);
            assert_eq!(upcoming.first().and_then(|bits| place(bits)), next, "{most}");
            assert_eq!(walk.tried(&first, &now).len(), 3, "{most}");
        }
    }

    #[test]
    fn without_a_good_one_the_most_accurate_stands() {
        assert_eq!(settle(&walk(5, 8), 9, 1).0, Some(4));
        assert_eq!(settle(&walk(0, 8), 0, 1), (None, 0));
        assert_eq!(settle(&walk(5, 1), 9, 1), (Some(2), 1));
        assert_eq!(settle(&walk(5, 0), 9, 1), (None, 0));
    }
}
