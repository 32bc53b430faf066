//! The long retrains at the end, and what a report's table says of them.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use releq_core::{
    Bitwidth, BitwidthAssignment, CostModel, LayerBits, LayerProfile, Network,
    checked_network_cost, parallel,
};
use releq_data::Dataset;
use releq_train::AccuracyReport;

use super::ExperimentConfig;
use crate::{
    Event, FinalRow, Problem, ReleqError, RowCost, SearchOutcome,
    evaluate::{Retrain, Retrained},
    guard::guard,
    pareto_frontier,
};

/// Label of the agent's row.
pub(crate) const RELEQ: &str = "releq";

/// Uniform bitwidths that every report shows for comparison.
const UNIFORM: [u8; 4] = [8, 4, 3, 2];

/// How much more a short retrain may lose than the tolerance and still reach the finals: the long
/// retrain wins back about this much.
const SHORT_RETRAIN_ALLOWANCE: f64 = 0.02;

/// Reports on the validation and the test images, or why there are none.
type Final = Result<[AccuracyReport; 2], String>;

/// Accuracy of the full-precision weights, in 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct FullPrecision {
    pub(super) validation: f64,
    pub(super) test: f64,
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
}

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
}

impl Finals<'_> {
    /// Every search tries its candidates from the cheapest upwards until the long retrain of one is
    /// within the tolerance on the validation images; what the configuration names and uniform bitwidths
    /// are retrained beside them.
    ///
    /// The agent's row comes first. The test images choose nothing.
    pub(super) fn run(
        &self,
        long: &Retrain<'_>,
        found: &SearchOutcome,
        comparisons: &[SearchOutcome],
    ) -> Result<Vec<FinalRow>, ReleqError> {
        let layers = self.network.quantizable_layers();
        let uniform = UNIFORM
            .into_iter()
            .map(|bits| Ok(BitwidthAssignment::uniform(Bitwidth::new(bits)?, layers)?))
            .collect::<Result<Vec<_>, ReleqError>>()?;
        let mut walks = vec![self.walk(RELEQ.to_owned(), found)];
        walks.extend(comparisons.iter().map(|o| self.walk(format!("{} search", o.agent), o)));

        let mut done: BTreeMap<BitwidthAssignment, Final> = BTreeMap::new();
        let beside: Vec<(String, BitwidthAssignment)> = self
            .config
            .beside
            .iter()
            .cloned()
            .chain(uniform.into_iter().map(|bits| (format!("uniform {}", bits[0]), bits)))
            .collect();
        let mut pending: Vec<_> = beside.iter().map(|(_, bits)| bits.clone()).collect();
        loop {
            let open: Vec<_> =
                walks.iter().map(Walk::rest).filter(|rest| !rest.is_empty()).collect();
            // Threads that would stand idle retrain the candidates that come next. A walk still ends at
            // its first good one, so the rows are the same for any number of threads.
            let idle = self.config.threads.get().saturating_sub(pending.len());
            let by_rank = (0..self.config.finalists + 1)
                .flat_map(|rank| open.iter().filter_map(move |rest| rest.get(rank)));
            pending.extend(by_rank.take(idle.max(open.len())).cloned());
            let mut seen = BTreeSet::new();
            pending.retain(|bits| !done.contains_key(bits) && seen.insert(bits.clone()));
            if pending.is_empty() {
                break;
            }
            let answers = self.retrain(long, &pending, done.len())?;
            done.extend(pending.drain(..).zip(answers));
            for walk in &mut walks {
                while let Some(retrained) = walk.rest().first().and_then(|next| done.get(next)) {
                    walk.tried += 1;
                    walk.settled = self.within_tolerance(retrained);
                }
            }
        }

        let mut rows = Vec::new();
        for walk in &walks {
            let tried = &walk.candidates[..walk.tried];
            let chosen = match tried.last() {
                Some(last) if self.within_tolerance(&done[last]) => Some(last),
                // None was good enough: the most accurate, the cheapest of equals.
                _ => tried.iter().rev().max_by(|a, b| {
                    let accuracy = |bits| done[bits].as_ref().map_or(0.0, |r| r[0].accuracy());
                    accuracy(a).total_cmp(&accuracy(b))
                }),
            };
            if let Some(bits) = chosen {
                rows.push(self.row(&walk.label, bits, &done[bits])?);
            }
        }
        for (label, bits) in &beside {
            rows.push(self.row(label, bits, &done[bits])?);
        }
        Ok(rows)
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

    fn within_tolerance(&self, retrained: &Final) -> bool {
        let floor = self.full_precision.validation - self.config.tolerance;
        retrained
            .as_ref()
            .is_ok_and(|reports| reports[0].accuracy().total_cmp(&floor) != Ordering::Less)
    }

    fn retrain(
        &self,
        long: &Retrain<'_>,
        assignments: &[BitwidthAssignment],
        before: usize,
    ) -> Result<Vec<Final>, ReleqError> {
        let done = AtomicUsize::new(before);
        let report = |bits: Option<&BitwidthAssignment>, answer: Option<&Final>| {
            (self.on_event)(&Event::Retrained {
                done: done.load(Relaxed),
                total: before + assignments.len(),
                bits: bits.cloned(),
                accuracy: answer.and_then(|answer| answer.as_ref().ok()).map(|r| r[0].accuracy()),
                failure: answer.and_then(|answer| answer.as_ref().err()).cloned(),
            });
        };
        report(None, None);
        parallel::try_map(assignments.iter(), self.config.threads.get(), |bits| {
            let answer = guard(
                || "trainer".to_owned(),
                || match long.retrain(bits, &[self.validation, self.test])? {
                    Retrained::Done(reports) => Ok(Ok([reports[0], reports[1]])),
                    Retrained::Diverged(reason) => Ok(Err(reason)),
                },
            )?;
            done.fetch_add(1, Relaxed);
            report(Some(bits), Some(&answer));
            Ok(answer)
        })
    }

    fn row(
        &self,
        label: &str,
        bits: &BitwidthAssignment,
        retrained: &Final,
    ) -> Result<FinalRow, ReleqError> {
        let layers = self.network.profiles();
        let [validation, test] = match retrained {
            Ok(reports) => reports.map(|report| report.accuracy()),
            Err(_) => [0.0, 0.0],
        };
        Ok(FinalRow {
            label: label.to_owned(),
            bits: bits.clone(),
            mean_bits: bits.mean(),
            validation_accuracy: validation,
            test_accuracy: test,
            loss_points: 100.0 * (self.full_precision.test - test),
            quant_state: self.problem.quant_state(bits)?,
            over_limit: self.problem.over_limit(bits)?,
            costs: self
                .report_costs
                .iter()
                .map(|model| row_cost(model, &layers, bits))
                .collect::<Result<_, _>>()?,
            failure: retrained.as_ref().err().cloned(),
        })
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
