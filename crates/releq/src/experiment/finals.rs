//! The long retrains at the end, and what a report's table says of them.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use releq_core::{
    Bitwidth, BitwidthAssignment, CostError, CostModel, LayerBits, LayerProfile, Network,
    checked_network_cost, parallel,
};
use releq_data::Dataset;
use releq_train::{AccuracyReport, Trainer};

use super::ExperimentConfig;
use crate::{
    Answer, Event, FinalRow, Problem, Reference, ReleqError, RowCost, SearchOutcome,
    evaluate::{Retrain, Retrained},
    guard::guard,
    pareto_frontier,
    run_folder::{Clock, FinalRecord, OpenRun},
};

/// Label of the agent's row.
const RELEQ: &str = "releq";

/// Label of the row in which every layer stays in float.
const FULL_PRECISION: &str = "full precision";

/// Uniform bitwidths that every report shows for comparison.
const UNIFORM: [u8; 4] = [8, 4, 3, 2];

/// How much more a short retrain may lose than the tolerance and still reach the finals: the long
/// retrain wins back about this much.
const SHORT_RETRAIN_ALLOWANCE: f64 = 0.02;

/// Reports on the validation and the test images, or why there are none.
type Final = Result<[AccuracyReport; 2], String>;

/// Accuracy of the full-precision weights before the long retrain, in 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct FullPrecision {
    pub(super) validation: f64,
    pub(super) test: f64,
    /// On the validation images of short retrains, unless the evaluator is the caller's own.
    pub(super) search_validation: Option<f64>,
}

/// What the finals need besides the searches.
pub(super) struct Finals<'a> {
    pub(super) network: &'a Network,
    pub(super) config: &'a ExperimentConfig,
    pub(super) problem: &'a Problem,
    pub(super) report_costs: &'a [Arc<dyn CostModel>],
    pub(super) validation: &'a dyn Dataset,
    pub(super) test: &'a dyn Dataset,
    pub(super) full_precision: FullPrecision,
    pub(super) on_event: &'a (dyn Fn(&Event) + Sync),
    pub(super) clock: &'a Clock,
    pub(super) kept: Option<&'a OpenRun<'a>>,
}

/// What the finals came to, or as far as they came.
pub(super) struct Finished {
    pub(super) rows: Vec<FinalRow>,
    pub(super) reference: Reference,
    pub(super) answer: Option<Answer>,
    /// Whether the caller stopped them.
    pub(super) cancelled: bool,
    /// What ended them, if a piece failed.
    pub(super) error: Option<String>,
}

/// The long retrains done so far.
type Done = BTreeMap<BitwidthAssignment, Final>;

/// A search's way through its candidates.
struct Walk {
    label: String,
    /// Cheapest first.
    candidates: Vec<BitwidthAssignment>,
    tried: usize,
    settled: bool,
}

impl Walk {
    /// What it has yet to try.
    fn rest(&self) -> &[BitwidthAssignment] {
        if self.settled { &[] } else { &self.candidates[self.tried..] }
    }

    /// Takes what is done into account.
    fn advance(&mut self, done: &Done, good: impl Fn(&Final) -> bool) {
        while let Some(retrained) = self.rest().first().and_then(|next| done.get(next)) {
            self.tried += 1;
            self.settled = good(retrained);
        }
    }

    /// The candidate that stands for the search: the one it settled on; if none was good enough, the most
    /// accurate, the cheapest of equals.
    fn chosen(&self, done: &Done) -> Option<&BitwidthAssignment> {
        let tried = &self.candidates[..self.tried];
        if self.settled {
            return tried.last();
        }
        let accuracy = |bits| done[bits].as_ref().map_or(0.0, |r| r[0].accuracy());
        tried.iter().rev().max_by(|a, b| accuracy(a).total_cmp(&accuracy(b)))
    }
}

impl Finals<'_> {
    /// Every search tries its candidates from the cheapest upwards until the long retrain of one is
    /// within the tolerance on the validation images; full precision, what the configuration names and uniform
    /// bitwidths are retrained beside them. The answer is chosen among all of these.
    ///
    /// The agent's row comes first. The test images choose nothing. What was retrained before a cancellation
    /// or a failure is kept.
    pub(super) fn run(
        &self,
        long: &Retrain<'_>,
        found: &SearchOutcome,
        comparisons: &[SearchOutcome],
    ) -> Result<Finished, ReleqError> {
        let beside = self.beside()?;
        let mut walks = vec![self.walk(RELEQ.to_owned(), found)];
        walks.extend(comparisons.iter().map(|o| self.walk(format!("{} search", o.agent), o)));
        let done = Mutex::new(self.on_record());
        let (mut cancelled, mut error) =
            stopped(self.retrain_all(long, &beside, &mut walks, &done));
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let reference = self.reference(&done);

        let mut rows = Vec::new();
        for walk in &mut walks {
            walk.advance(&done, |retrained| self.within_tolerance(reference, retrained));
            if let Some(bits) = walk.chosen(&done) {
                rows.push(self.row(&walk.label, bits, &done[bits], reference));
            }
        }
        for (label, bits) in &beside {
            if let Some(retrained) = done.get(bits) {
                rows.push(self.row(label, bits, retrained, reference));
            }
        }
        let answer = self.answer(&rows, reference);
        if let Some(answer) = answer.as_ref().filter(|_| !cancelled && error.is_none()) {
            (cancelled, error) = stopped(self.keep_weights(long, &answer.bits));
        }
        Ok(Finished { rows, reference, answer, cancelled, error })
    }

    /// The long retrains that earlier lives of the run have done.
    fn on_record(&self) -> Done {
        let records = self.kept.iter().flat_map(|kept| &kept.final_records);
        let done = records.inspect(|record| self.clock.replayed(record.run_seconds));
        done.map(|record| (record.bits.clone(), record.retrained())).collect()
    }

    /// Retrains the answer again if its weights are lost.
    fn keep_weights(
        &self,
        long: &Retrain<'_>,
        bits: &BitwidthAssignment,
    ) -> Result<(), ReleqError> {
        match self.kept {
            Some(kept) if !kept.has_retrained(bits) => {
                log::warn!("the weights of the answer are missing; it is retrained again");
                self.retrain_one(long, bits).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What is retrained whatever the searches found.
    fn beside(&self) -> Result<Vec<(String, BitwidthAssignment)>, ReleqError> {
        let layers = self.network.quantizable_layers();
        let float = BitwidthAssignment::uniform(Bitwidth::FLOAT, layers)?;
        let mut beside = vec![(FULL_PRECISION.to_owned(), float)];
        beside.extend(self.config.beside.iter().cloned());
        for bits in UNIFORM {
            let uniform = BitwidthAssignment::uniform(Bitwidth::new(bits)?, layers)?;
            beside.push((format!("uniform {bits}"), uniform));
        }
        Ok(beside)
    }

    /// Full precision first, since the walks end by its accuracy.
    fn retrain_all(
        &self,
        long: &Retrain<'_>,
        beside: &[(String, BitwidthAssignment)],
        walks: &mut [Walk],
        done: &Mutex<Done>,
    ) -> Result<(), ReleqError> {
        loop {
            let mut pending: Vec<_> = beside.iter().map(|(_, bits)| bits.clone()).collect();
            self.advance(walks, beside, &locked(done));
            let open: Vec<_> =
                walks.iter().map(Walk::rest).filter(|rest| !rest.is_empty()).collect();
            // Threads that would stand idle retrain the candidates that come next. A walk still ends at
            // its first good one, so the rows are the same for any number of threads.
            pending.retain(|bits| !locked(done).contains_key(bits));
            let idle = self.config.threads.get().saturating_sub(pending.len());
            let longest = open.iter().map(|rest| rest.len()).max().unwrap_or(0);
            let by_rank =
                (0..longest).flat_map(|rank| open.iter().filter_map(move |rest| rest.get(rank)));
            pending.extend(by_rank.take(idle.max(open.len())).cloned());
            let mut seen = BTreeSet::new();
            pending.retain(|bits| !locked(done).contains_key(bits) && seen.insert(bits.clone()));
            if pending.is_empty() {
                return Ok(());
            }
            self.retrain(long, &pending, done)?;
        }
    }

    /// Lets the walks take what is done into account, as soon as it is known what they are compared with: what
    /// an earlier life of the run has done may lack full precision.
    fn advance(&self, walks: &mut [Walk], beside: &[(String, BitwidthAssignment)], done: &Done) {
        if beside.iter().all(|(_, bits)| done.contains_key(bits)) {
            let reference = self.reference(done);
            for walk in walks {
                walk.advance(done, |retrained| self.within_tolerance(reference, retrained));
            }
        }
    }

    /// The frontier of what the search measured and its greedy answer, as far as they are near enough
    /// to the tolerance; if nothing is, the most accurate.
    fn walk(&self, label: String, outcome: &SearchOutcome) -> Walk {
        let frontier = pareto_frontier(&outcome.scored);
        let floor = 1.0 - self.config.tolerance - SHORT_RETRAIN_ALLOWANCE;
        let mut near: Vec<_> =
            frontier.iter().copied().filter(|scored| scored.acc_state >= floor).collect();
        if near.is_empty() {
            near.extend(frontier.last());
        }
        near.truncate(self.config.finalists);
        near.extend(outcome.greedy.as_ref().filter(|greedy| greedy.is_candidate()));
        near.sort_by(|a, b| a.quant_state.total_cmp(&b.quant_state));
        let mut candidates = Vec::new();
        for scored in near {
            if !candidates.contains(&scored.bits) {
                candidates.push(scored.bits.clone());
            }
        }
        Walk { label, candidates, tried: 0, settled: false }
    }

    /// What losses are measured against.
    fn reference(&self, done: &Done) -> Reference {
        let FullPrecision { validation, test, .. } = self.full_precision;
        let before =
            Reference { validation_accuracy: validation, test_accuracy: test, retrained: false };
        let float = done.iter().find(|(bits, _)| bits.iter().all(|bits| bits.is_float()));
        match float {
            Some((_, Ok(reports))) if reports[0].accuracy() >= validation => Reference {
                validation_accuracy: reports[0].accuracy(),
                test_accuracy: reports[1].accuracy(),
                retrained: true,
            },
            _ => before,
        }
    }

    fn within_tolerance(&self, reference: Reference, retrained: &Final) -> bool {
        retrained.as_ref().is_ok_and(|reports| self.is_good(reference, reports[0].accuracy()))
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
        long: &Retrain<'_>,
        assignments: &[BitwidthAssignment],
        done: &Mutex<Done>,
    ) -> Result<(), ReleqError> {
        let total = locked(done).len() + assignments.len();
        let report = |done: usize, bits: Option<&BitwidthAssignment>, answer: Option<&Final>| {
            (self.on_event)(&Event::Retrained {
                done,
                total,
                bits: bits.cloned(),
                accuracy: answer.and_then(|answer| answer.as_ref().ok()).map(|r| r[0].accuracy()),
                failure: answer.and_then(|answer| answer.as_ref().err()).cloned(),
            });
        };
        report(locked(done).len(), None, None);
        parallel::try_for_each(assignments.iter(), self.config.threads.get(), |bits| {
            let answer = self.retrain_one(long, bits)?;
            let count = {
                let mut done = locked(done);
                done.insert(bits.clone(), answer.clone());
                done.len()
            };
            report(count, Some(bits), Some(&answer));
            Ok(())
        })
    }

    /// One long retrain, which the run keeps if it keeps anything.
    fn retrain_one(
        &self,
        long: &Retrain<'_>,
        bits: &BitwidthAssignment,
    ) -> Result<Final, ReleqError> {
        let sets = [self.validation, self.test];
        let take = |trainer: &dyn Trainer| self.kept.map(|_| trainer.weights());
        let piece = || "trainer".to_owned();
        let (retrained, weights) = guard(piece, || long.retrain_with_weights(bits, &sets, take))?;
        let answer = match retrained {
            Retrained::Done(reports) => Ok([reports[0], reports[1]]),
            Retrained::Diverged(reason) => Err(reason),
        };
        if let Some(kept) = self.kept {
            let record = FinalRecord::new(bits.clone(), &answer, self.clock.seconds());
            kept.record_final(&record, weights.flatten().as_ref())?;
        }
        Ok(answer)
    }

    fn row(
        &self,
        label: &str,
        bits: &BitwidthAssignment,
        retrained: &Final,
        reference: Reference,
    ) -> FinalRow {
        let layers = self.network.profiles();
        let [validation, test] = match retrained {
            Ok(reports) => reports.map(|report| report.accuracy()),
            Err(_) => [0.0, 0.0],
        };
        FinalRow {
            label: label.to_owned(),
            bits: bits.clone(),
            mean_bits: bits.mean(),
            validation_accuracy: validation,
            test_accuracy: test,
            loss_points: 100.0 * (reference.test_accuracy - test),
            quant_state: if_priced(label, self.problem.quant_state(bits)),
            over_limit: if_priced(label, self.problem.over_limit(bits)).flatten(),
            costs: self
                .report_costs
                .iter()
                .filter_map(|model| if_priced(label, row_cost(model, &layers, bits)))
                .collect(),
            failure: retrained.as_ref().err().cloned(),
        }
    }
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
/// row has been retrained for long and is worth having without.
fn if_priced<T>(label: &str, cost: Result<T, ReleqError>) -> Option<T> {
    match cost {
        Ok(cost) => Some(cost),
        Err(ReleqError::Cost(CostError::Bitwidth { .. })) => None,
        Err(error) => {
            log::warn!("row `{label}` lacks a cost: {}", error.chain());
            None
        }
    }
}

/// What one model says of an assignment, and of 8 bits everywhere.
fn row_cost(
    model: &Arc<dyn CostModel>,
    layers: &[LayerProfile],
    bits: &BitwidthAssignment,
) -> Result<RowCost, ReleqError> {
    let cost = |bits: &[Bitwidth]| -> Result<f64, ReleqError> {
        let bits: Vec<LayerBits> = bits.iter().map(|&b| LayerBits::weights_only(b)).collect();
        Ok(checked_network_cost(model, layers, &bits)?.0)
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
