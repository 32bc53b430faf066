//! The long retrains at the end, and what a report's table says of them.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use releq_core::{
    Bitwidth, BitwidthAssignment, CostError, CostModel, LayerKind, LayerProfile, Network, Operands,
    Weights, checked_network_cost, parallel,
};
use releq_data::Dataset;
use releq_train::{Hits, Trainer};

use super::{
    ExperimentConfig,
    seeds::{Final, Seeds},
    walk::{Verdict, Walk, measured},
};
use crate::{
    Answer, Event, FinalRow, Problem, Reference, ReleqError, RoundedAccuracy, RowCost, Scored,
    SearchOutcome, Sensitivities,
    evaluate::{Retrain, Retrained},
    guard::guard,
    problem::nearest,
    run_folder::{Clock, FinalRecord, OpenRun},
};

/// Label of the agent's row.
const RELEQ: &str = "releq";

/// Whether that is how a report may label a row by itself.
pub(super) fn is_reserved(label: &str) -> bool {
    let uniform = || label.strip_prefix(UNIFORM).is_some_and(|b| b.parse::<Bitwidth>().is_ok());
    label == RELEQ || label == FULL_PRECISION || label.ends_with(SEARCH) || uniform()
}

/// How the label of a row begins that has the same bits everywhere.
const UNIFORM: &str = "uniform ";

/// How the label of a row ends that a rival search found.
const SEARCH: &str = " search";

/// Label of the row in which every layer stays in float.
const FULL_PRECISION: &str = "full precision";

/// A verdict within so many standard errors of the border of the tolerance is uncertain.
const BORDER: f64 = 1.0;

/// What the finals need besides the searches.
pub(super) struct Finals<'a> {
    pub(super) network: &'a Network,
    pub(super) config: &'a ExperimentConfig,
    pub(super) problem: &'a Problem,
    /// The bitwidths of the rows with the same bits everywhere.
    pub(super) uniform: &'a [Bitwidth],
    pub(super) report_costs: &'a [Arc<dyn CostModel>],
    /// Full precision before the long retrain.
    pub(super) before: Seeds,
    pub(super) sensitivities: Option<&'a Sensitivities>,
    pub(super) on_event: &'a (dyn Fn(&Event) + Sync),
    pub(super) clock: &'a Clock,
    pub(super) kept: Option<&'a OpenRun<'a>>,
    /// How many retrains are done at a time, now.
    pub(super) at_once: &'a (dyn Fn() -> usize + Sync),
    /// Whether the searches have measured what the end will measure again: nothing is retrained, and the images are the same.
    pub(super) repeats: bool,
    /// Whether the first retrain of an assignment was done ahead, so that it takes no time.
    pub(super) is_there: &'a (dyn Fn(&BitwidthAssignment) -> bool + Sync),
}

/// What the finals came to, or as far as they came.
pub(super) struct Finished {
    pub(super) rows: Vec<FinalRow>,
    pub(super) reference: Reference,
    pub(super) answer: Option<Answer>,
    /// What the answer loses where activations are rounded as well, once that is measured.
    pub(super) rounded: Option<RoundedAccuracy>,
    /// Whether the caller stopped them.
    pub(super) cancelled: bool,
    /// What ended them, if a piece failed.
    pub(super) error: Option<String>,
}

/// One long retrain of an assignment: which one, counted from 0, and whether its weights are wanted.
pub(super) type Long<'l> = dyn Fn(&BitwidthAssignment, usize, bool) -> Result<(Final, Option<Weights>), ReleqError>
    + Sync
    + 'l;

/// The long retrains done so far.
type Done = BTreeMap<BitwidthAssignment, Seeds>;

impl Finals<'_> {
    /// Every search looks among its candidates for the cheapest whose long retrain is
    /// within the tolerance on the validation images; full precision, what the configuration names and uniform
    /// bitwidths are retrained beside them. The answer is chosen among all of these.
    ///
    /// The agent's row comes first. The test images choose nothing. What was retrained before a cancellation
    /// or a failure is kept.
    pub(super) fn run(
        &self,
        long: &Long<'_>,
        found: &SearchOutcome,
        comparisons: &[SearchOutcome],
    ) -> Result<Finished, ReleqError> {
        let beside = beside(self.network, self.config, self.uniform)?;
        let most = self.config.finalists;
        let mut candidates = self.candidates(found);
        let mut unproposed = None;
        // Without a search there is nothing to add to.
        if !candidates.is_empty() {
            match self.proposed(&candidates) {
                Ok(proposed) => candidates.extend(proposed),
                Err(error) => unproposed = Some(error.chain()),
            }
        }
        let walk = |label: String, search: &SearchOutcome, candidates| {
            Walk::new(label, self.unsettled(search, candidates), most)
        };
        let mut walks = vec![walk(RELEQ.to_owned(), found, candidates)];
        let rival = |rival: &SearchOutcome| {
            walk(format!("{}{SEARCH}", rival.agent), rival, self.candidates(rival))
        };
        walks.extend(comparisons.iter().map(rival));
        let done = Mutex::new(self.on_record());
        let (mut cancelled, mut error) = stopped(self.retrain_all(long, &beside, &walks, &done));
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let against = self.reference(&done);
        let (reference, _) = against;

        let (mut rows, mut unpriced) = (Vec::new(), Vec::new());
        let firsts = firsts(&done);
        for walk in &walks {
            let first = |bits: &BitwidthAssignment| self.verdict(&firsts, bits);
            if let Some(bits) = walk.chosen(&first, &|bits| self.verdict(&done, bits)) {
                rows.push(self.row(&walk.label, bits, &done[bits], against, &mut unpriced));
            }
        }
        for (label, bits) in &beside {
            if let Some(retrained) = done.get(bits) {
                rows.push(self.row(label, bits, retrained, against, &mut unpriced));
            }
        }
        let answer = self.answer(&rows, reference);
        if let Some(answer) = answer.as_ref().filter(|_| !cancelled && error.is_none()) {
            (cancelled, error) = stopped(self.keep_weights(long, &answer.bits));
        }
        let error = error.or(unproposed).or_else(|| unpriced.into_iter().next());
        Ok(Finished { rows, reference, answer, rounded: None, cancelled, error })
    }

    /// What a search measured and the problem admits: an evaluator may have answered for something else.
    fn candidates(&self, search: &SearchOutcome) -> Vec<(f64, BitwidthAssignment)> {
        let mut candidates = measured(search);
        candidates.retain(|(_, bits)| self.problem.admits(bits));
        candidates
    }

    /// What is left to find out of a search's candidates. Where the end only repeats what the search has measured, that is the
    /// cheapest one within the tolerance, and those still cheaper that it has not measured: a bisection would be led past it by
    /// the first candidate that a few images judge too harshly. Within the tolerance is who is so by the images classified
    /// correctly and by what the search itself goes by: the luckiest of many is so by the first alone.
    fn unsettled(
        &self,
        search: &SearchOutcome,
        mut candidates: Vec<(f64, BitwidthAssignment)>,
    ) -> Vec<(f64, BitwidthAssignment)> {
        let before = self.before.accuracies().map(|[validation, _]| validation);
        let Some(full_precision) = before.filter(|_| self.repeats) else { return candidates };
        let floor = full_precision - self.config.tolerance;
        let is_good = |scored: &&Scored| {
            scored.accuracy.min(scored.acc_state * full_precision) >= floor
                && scored.is_candidate()
                && self.problem.admits(&scored.bits)
        };
        let all = || search.scored.iter().chain(&search.greedy);
        let cheapest = all().filter(is_good).min_by(|a, b| {
            a.quant_state.total_cmp(&b.quant_state).then(b.acc_state.total_cmp(&a.acc_state))
        });
        if let Some(cheapest) = cheapest {
            let measured: BTreeSet<_> = all().map(|scored| &scored.bits).collect();
            candidates
                .retain(|(cost, bits)| *cost < cheapest.quant_state && !measured.contains(bits));
            candidates.push((cheapest.quant_state, cheapest.bits.clone()));
        }
        candidates
    }

    /// The long retrains that earlier lives of the run have done.
    fn on_record(&self) -> Done {
        let records = self.kept.iter().flat_map(|kept| &kept.final_records);
        let mut done = Done::new();
        for record in records {
            self.clock.replayed(record.run_seconds);
            // An answer whose weights were lost is on record twice.
            let seeds = done.entry(record.bits.clone()).or_default();
            if record.seed == seeds.count() {
                seeds.add(record.retrained());
            }
        }
        done
    }

    /// Retrains the answer again if its weights are lost.
    fn keep_weights(&self, long: &Long<'_>, bits: &BitwidthAssignment) -> Result<(), ReleqError> {
        match self.kept {
            Some(kept) if kept.retrained_weights(bits).is_none() => {
                log::warn!("the weights of the answer are missing; it is retrained again");
                self.retrain_one(long, bits, 0).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Candidates that the agent's search has not measured, with their costs. A short retrain understates some networks so
    /// much that the search looks too high, others so little that it looks too low; the answer must not be lost for that.
    ///
    /// They are what the sensitivities propose, as far as no measured candidate is as cheap and as little harmed by them. Without
    /// sensitivities they are the uniform bitwidths above all that was measured.
    fn proposed(
        &self,
        measured: &[(f64, BitwidthAssignment)],
    ) -> Result<Vec<(f64, BitwidthAssignment)>, ReleqError> {
        if let Some(sensitivities) = self.sensitivities {
            let proposed = sensitivities.frontier(self.problem)?.into_iter().filter(|proposed| {
                !measured.iter().any(|(cost, bits)| {
                    *cost <= proposed.quant_state
                        && sensitivities.divergence(bits).is_some_and(|d| d <= proposed.divergence)
                })
            });
            return Ok(proposed.map(|proposed| (proposed.quant_state, proposed.bits)).collect());
        }
        let costliest = measured.iter().map(|(cost, _)| *cost).fold(0.0, f64::max);
        let mut uniform = Vec::new();
        for &bits in self.problem.actions() {
            let all = self.problem.all_at(bits);
            let cost = self.problem.quant_state(&all)?;
            if cost > costliest && self.problem.over_limit(&all)?.is_none() {
                uniform.push((cost, BitwidthAssignment::new(all)?));
            }
        }
        Ok(uniform)
    }

    fn retrain_all(
        &self,
        long: &Long<'_>,
        beside: &[(String, BitwidthAssignment)],
        walks: &[Walk],
        done: &Mutex<Done>,
    ) -> Result<(), ReleqError> {
        let wanted = distinct(beside);
        loop {
            let verdicts = locked(done).clone();
            let firsts = firsts(&verdicts);
            let mut pending = wanted.clone();
            pending.retain(|bits| !verdicts.contains_key(bits));
            // A verdict is relative to full precision, so before that is known only the first candidates are.
            let known = |done: &Done, bits: &BitwidthAssignment| {
                if pending.is_empty() { self.verdict(done, bits) } else { None }
            };
            let first = |bits: &BitwidthAssignment| known(&firsts, bits);
            let now = |bits: &BitwidthAssignment| known(&verdicts, bits);
            let steps: usize = walks.iter().map(|walk| walk.steps_left(&first, &now)).sum();
            let foreseen = pending.len() + steps;
            let there: Vec<_> =
                pending.iter().filter(|bits| (self.is_there)(bits)).cloned().collect();
            if !there.is_empty() {
                self.retrain(long, &there, foreseen, done)?;
                continue;
            }
            let open: Vec<_> = walks
                .iter()
                .map(|walk| walk.upcoming(&first, &now))
                .filter(|upcoming| !upcoming.is_empty())
                .collect();
            // Threads that would stand idle retrain candidates that a walk may come to. Its way does not depend on them,
            // so the rows are the same for any number of threads.
            let idle = (self.at_once)().saturating_sub(pending.len());
            let longest = open.iter().map(Vec::len).max().unwrap_or(0);
            let by_rank =
                (0..longest).flat_map(|rank| open.iter().filter_map(move |rest| rest.get(rank)));
            let mut next = pending.clone();
            next.extend(by_rank.take(idle.max(open.len())).map(|&bits| bits.clone()));
            let mut seen = BTreeSet::new();
            next.retain(|bits| !verdicts.contains_key(bits) && seen.insert(bits.clone()));
            if next.is_empty() {
                next = self.uncertain(&verdicts, beside, walks);
            }
            if next.is_empty() {
                return Ok(());
            }
            self.retrain(long, &next, foreseen, done)?;
        }
    }

    /// What another seed has to decide: everything that may be the answer or that a walk turned at, and whose accuracy is
    /// near the border; then full precision too, by which the border is.
    fn uncertain(
        &self,
        done: &Done,
        beside: &[(String, BitwidthAssignment)],
        walks: &[Walk],
    ) -> Vec<BitwidthAssignment> {
        // By the first seeds alone, so that a run that was killed between two second ones decides alike.
        let firsts = firsts(done);
        let (reference, full_precision) = self.reference(&firsts);
        let floor = reference.validation_accuracy - self.config.tolerance;
        // A correction has no seed.
        let most = if self.config.correction.is_some() { 1 } else { self.config.seeds };
        let near = |bits: &BitwidthAssignment| {
            let Some(seeds) = done.get(bits) else { return false };
            let (first, count) = (seeds.first(), seeds.count());
            let error = first.loss_errors(full_precision).map(|[validation, _]| validation);
            count < most
                && first.accuracies().zip(error).is_some_and(|([validation, _], error)| {
                    (validation - floor).abs() <= BORDER * error
                })
        };
        let first = |bits: &BitwidthAssignment| self.verdict(&firsts, bits);
        let now = |bits: &BitwidthAssignment| self.verdict(done, bits);
        let admitted = beside.iter().map(|(_, bits)| bits).filter(|bits| self.problem.admits(bits));
        let tried = walks.iter().flat_map(|walk| walk.tried(&first, &now));
        let mut again: BTreeSet<&BitwidthAssignment> =
            admitted.chain(tried).filter(|bits| near(bits)).collect();
        // Of all that there is, also of what no walk comes by any more.
        let counts = done.iter().map(|(bits, s)| s.count() + usize::from(again.contains(bits)));
        let wanted = counts.max().unwrap_or(0);
        if let Some((float, seeds)) = in_full_precision(done)
            && seeds.count() < wanted
        {
            again.insert(float);
        }
        again.into_iter().cloned().collect()
    }

    /// What is known of a candidate, if it was retrained.
    fn verdict(&self, done: &Done, bits: &BitwidthAssignment) -> Option<Verdict> {
        let accuracy = done.get(bits)?.accuracies().map_or(0.0, |[validation, _]| validation);
        Some(Verdict { good: self.is_good(self.reference(done).0, accuracy), accuracy })
    }

    /// What losses are measured against, and the retrains whose accuracies it has.
    fn reference<'d>(&'d self, done: &'d Done) -> (Reference, &'d Seeds) {
        let validation = |seeds: &Seeds| seeds.accuracies().map(|[validation, _]| validation);
        let float = in_full_precision(done).map(|(_, seeds)| seeds);
        let float = float.filter(|float| validation(float) >= validation(&self.before));
        let seeds = float.unwrap_or(&self.before);
        let [validation_accuracy, test_accuracy] = seeds.accuracies().unwrap_or_default();
        let retrained = float.is_some() && self.config.correction.is_none();
        (Reference { validation_accuracy, test_accuracy, retrained }, seeds)
    }

    fn is_good(&self, reference: Reference, validation_accuracy: f64) -> bool {
        let floor = reference.validation_accuracy - self.config.tolerance;
        validation_accuracy.total_cmp(&floor) != Ordering::Less
    }

    /// The cheapest row within the tolerance, the more accurate of equals; if there is none, the most
    /// accurate. Rows that the problem does not admit, whose retrain failed or that exceed a limit are
    /// shown, but are no answers.
    fn answer(&self, rows: &[FinalRow], reference: Reference) -> Option<Answer> {
        let mut candidates: Vec<(&FinalRow, f64)> = rows
            .iter()
            .filter(|row| {
                row.failure.is_none()
                    && self.problem.admits(&row.bits)
                    && matches!(self.problem.over_limit(&row.bits), Ok(None))
            })
            .filter_map(|row| Some((row, row.quant_state?)))
            .collect();
        // Sorting is stable: of equals the first row stands, which is the agent's if it found them.
        candidates.sort_by(|(a, a_cost), (b, b_cost)| {
            let accuracy = b.validation_accuracy.total_cmp(&a.validation_accuracy);
            a_cost.total_cmp(b_cost).then(accuracy)
        });
        let answer = |row: &FinalRow, within_tolerance| Answer {
            label: row.label.clone(),
            bits: row.bits.clone(),
            within_tolerance,
        };
        let good =
            candidates.iter().find(|(row, _)| self.is_good(reference, row.validation_accuracy));
        if let Some((row, _)) = good {
            return Some(answer(row, true));
        }
        candidates
            .sort_by(|(a, _), (b, _)| b.validation_accuracy.total_cmp(&a.validation_accuracy));
        candidates.first().map(|(row, _)| answer(row, false))
    }

    fn retrain(
        &self,
        long: &Long<'_>,
        assignments: &[BitwidthAssignment],
        foreseen: usize,
        done: &Mutex<Done>,
    ) -> Result<(), ReleqError> {
        let count = |done: &Done| done.values().map(Seeds::count).sum::<usize>();
        let total = count(&locked(done)) + foreseen.max(assignments.len());
        let report = |done: usize, bits: Option<&BitwidthAssignment>, answer: Option<&Final>| {
            (self.on_event)(&Event::Retrained {
                done,
                total,
                bits: bits.cloned(),
                accuracy: answer
                    .and_then(|answer| answer.as_ref().ok())
                    .map(|r| r[0].report().accuracy()),
                failure: answer.and_then(|answer| answer.as_ref().err()).cloned(),
            });
        };
        report(count(&locked(done)), None, None);
        parallel::try_for_each(assignments.iter(), (self.at_once)(), |bits| {
            let seed = locked(done).get(bits).map_or(0, Seeds::count);
            let answer = self.retrain_one(long, bits, seed)?;
            let count = {
                let mut done = locked(done);
                done.entry(bits.clone()).or_default().add(answer.clone());
                count(&done)
            };
            report(count, Some(bits), Some(&answer));
            Ok(())
        })
    }

    /// One long retrain, which the run keeps if it keeps anything; weights only of the first seed.
    fn retrain_one(
        &self,
        long: &Long<'_>,
        bits: &BitwidthAssignment,
        seed: usize,
    ) -> Result<Final, ReleqError> {
        let (answer, weights) = long(bits, seed, seed == 0 && self.kept.is_some())?;
        if let Some(kept) = self.kept {
            let record = FinalRecord::new(bits.clone(), seed, &answer, self.clock.seconds());
            kept.record_final(&record, weights.as_ref())?;
        }
        Ok(answer)
    }

    fn row(
        &self,
        label: &str,
        bits: &BitwidthAssignment,
        retrained: &Seeds,
        (reference, full_precision): (Reference, &Seeds),
        unpriced: &mut Vec<String>,
    ) -> FinalRow {
        let layers = self.network.profiles();
        let [validation, test] = retrained.accuracies().unwrap_or_default();
        FinalRow {
            label: label.to_owned(),
            bits: bits.clone(),
            mean_bits: self.network.weight_bits(bits).map_or(0.0, |bits| bits.mean()),
            validation_accuracy: validation,
            test_accuracy: test,
            loss_points: 100.0 * (reference.test_accuracy - test),
            loss_standard_error: retrained
                .loss_errors(full_precision)
                .map(|[_, error]| 100.0 * error),
            quant_state: if_priced(label, self.problem.quant_state(bits), unpriced),
            over_limit: if_priced(label, self.problem.over_limit(bits), unpriced).flatten(),
            costs: self
                .report_costs
                .iter()
                .filter_map(|model| if_priced(label, row_cost(model, &layers, bits), unpriced))
                .collect(),
            seeds: retrained.count(),
            failure: retrained.failure().cloned(),
        }
    }
}

/// Retrains at `bits` and classifies the validation and the test images; also gives the weights, if they are wanted and did
/// not diverge.
pub(super) fn retrain_long(
    long: &Retrain<'_>,
    bits: &BitwidthAssignment,
    again: usize,
    sets: [&dyn Dataset; 2],
    weights: bool,
) -> Result<(Final, Option<Weights>), ReleqError> {
    // As they were measured: another quantization would find other clips for the weights behind them.
    let take = |trainer: &dyn Trainer| weights.then(|| trainer.snapshot());
    let piece = || "trainer".to_owned();
    let (retrained, weights) = guard(piece, || {
        let (retrained, state) = long.retrain_with_weights(bits, again, &sets, take)?;
        let weights = state.flatten().map(|state| long.settled(state)).transpose()?;
        Ok((retrained, weights))
    })?;
    let answer = match retrained {
        Retrained::Done(hits) => match <[Hits; 2]>::try_from(hits) {
            Ok(sets) => Ok(sets),
            Err(hits) => Err(format!("{} sets were classified, not two", hits.len())),
        },
        Retrained::Diverged(reason) => Err(reason),
    };
    Ok((answer, weights))
}

/// What is retrained whatever the searches find, with its labels: full precision, what the configuration names, and uniform
/// bitwidths.
pub(super) fn beside(
    network: &Network,
    config: &ExperimentConfig,
    uniform: &[Bitwidth],
) -> Result<Vec<(String, BitwidthAssignment)>, ReleqError> {
    let float = self::uniform(network, config, Bitwidth::FLOAT)?;
    let mut beside = vec![(FULL_PRECISION.to_owned(), float)];
    for (label, bits) in &config.beside {
        beside.push((label.clone(), with_activations(network, config, bits)?));
    }
    for &bits in uniform {
        beside.push((format!("{UNIFORM}{bits}"), self::uniform(network, config, bits)?));
    }
    Ok(beside)
}

/// `bits` in every layer with weights; activations that are rounded get the nearest that may be chosen for them, of two the
/// higher, and stay as they are in full precision.
pub(super) fn uniform(
    network: &Network,
    config: &ExperimentConfig,
    bits: Bitwidth,
) -> Result<BitwidthAssignment, ReleqError> {
    let activations = match bits.is_float() {
        true => bits,
        false => nearest(config.activation_choices(), bits),
    };
    let of = |layer: &LayerProfile| match layer.kind {
        LayerKind::Activations => activations,
        _ => bits,
    };
    Ok(BitwidthAssignment::new(network.profiles().iter().map(of).collect())?)
}

/// An assignment that may be of the layers with weights alone, as published ones are: activations then get 8 bits, or the nearest
/// that may be chosen for them.
pub(super) fn with_activations(
    network: &Network,
    config: &ExperimentConfig,
    bits: &BitwidthAssignment,
) -> Result<BitwidthAssignment, ReleqError> {
    let layers = network.profiles();
    let is_rounded = |layer: &&LayerProfile| layer.kind == LayerKind::Activations;
    if bits.len() != layers.len() - layers.iter().filter(is_rounded).count() {
        return Ok(bits.clone());
    }
    let activations = nearest(config.activation_choices(), Bitwidth::EIGHT);
    let mut weights = bits.iter().copied();
    let of = |layer: &LayerProfile| match layer.kind {
        LayerKind::Activations => Some(activations),
        _ => weights.next(),
    };
    Ok(BitwidthAssignment::new(layers.iter().filter_map(of).collect())?)
}

/// The assignments of labels that may share them, in their order.
pub(super) fn distinct(beside: &[(String, BitwidthAssignment)]) -> Vec<BitwidthAssignment> {
    let mut seen = BTreeSet::new();
    beside.iter().map(|(_, bits)| bits).filter(|bits| seen.insert(*bits)).cloned().collect()
}

/// The first retrain of each assignment.
fn firsts(done: &Done) -> Done {
    done.iter().map(|(bits, seeds)| (bits.clone(), seeds.first())).collect()
}

/// The retrains in which every layer stays in float.
fn in_full_precision(done: &Done) -> Option<(&BitwidthAssignment, &Seeds)> {
    done.iter().find(|(bits, _)| bits.iter().all(|bits| bits.is_float()))
}

/// Whether the caller stopped something, and what else ended it.
fn stopped(result: Result<(), ReleqError>) -> (bool, Option<String>) {
    match result {
        Ok(()) => (false, None),
        Err(ReleqError::Cancelled) => (true, None),
        Err(error) => (false, Some(error.chain())),
    }
}

/// `None` where a cost model has no price for a bitwidth, as those of integer hardware for float, or fails: the
/// row has been retrained for long and is worth having without. `unpriced` has what failed.
fn if_priced<T>(label: &str, cost: Result<T, ReleqError>, unpriced: &mut Vec<String>) -> Option<T> {
    match cost {
        Ok(cost) => Some(cost),
        Err(ReleqError::Cost(CostError::Bitwidth { .. })) => None,
        Err(error) => {
            unpriced.push(format!("row `{label}` lacks a cost: {}", error.chain()));
            None
        }
    }
}

/// What one model says of an assignment, and of 8 bits everywhere.
pub(super) fn row_cost(
    model: &Arc<dyn CostModel>,
    layers: &[LayerProfile],
    bits: &BitwidthAssignment,
) -> Result<RowCost, ReleqError> {
    let operands = Operands::new(layers, |_| true);
    let computing = operands.of(layers);
    let cost = |bits: &[Bitwidth]| -> Result<f64, ReleqError> {
        Ok(checked_network_cost(model, &computing, &operands.bits(bits))?.0)
    };
    guard(
        || format!("cost model `{}`", model.name()),
        || {
            Ok(RowCost {
                model: model.name().to_owned(),
                unit: model.unit().to_owned(),
                cost: cost(bits)?,
                at_eight_bits: cost(&vec![Bitwidth::EIGHT; bits.len()])?,
            })
        },
    )
}

fn locked(done: &Mutex<Done>) -> MutexGuard<'_, Done> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}
