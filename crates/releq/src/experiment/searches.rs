//! The stage of an experiment in which the agent searches, and those that it is compared with.

use std::sync::{Arc, atomic::Ordering};

use releq_agent::{Agent, Evolution, Listed, LocalSearch, RandomSearch};
use releq_core::{Bitwidth, Weights};

use super::{
    AgentShape, Choice, Laps, Signal,
    named::Named,
    pieces::TOGETHER,
    retrains,
    stages::{Run, problem},
};
use crate::{
    Budget, Event, Planning, Problem, ReleqError, Search, SearchOutcome, Sensitivities, Stage,
    StopReason,
    evaluate::{ByDivergence, Cached, Evaluator, RetrainSetup},
    guard::guard,
    jobs::RemoteEvaluator,
    run_folder::{FullPrecision, Recorded, SHORT, StageRecord},
    search::agent_name,
};

/// Episodes at a time of the searches that the agent's is compared with: as many as a planned search measures, since
/// more would be chosen with less knowledge.
const BESIDE: usize = 4;

/// What the searches found, and the problem that they searched.
pub(super) struct Searched {
    pub(super) problem: Problem,
    pub(super) sensitivities: Option<Sensitivities>,
    pub(super) found: SearchOutcome,
    pub(super) comparisons: Vec<SearchOutcome>,
    /// What ended a comparison before it had measured anything.
    pub(super) failed: Option<String>,
}

impl Run<'_> {
    /// The agent's search, then those that it is compared with.
    pub(super) fn search(
        &self,
        weights: &Weights,
        full_precision: &FullPrecision,
        sensitivities: Option<Sensitivities>,
        laps: &mut Laps,
    ) -> Result<Searched, ReleqError> {
        let problem = problem(self.network, self.config, &self.pieces, Some(weights))?;
        let shape = AgentShape::new(&problem, self.config.seed);
        let setup = self.setup(weights);
        let mut searches = Searches {
            run: self,
            problem: &problem,
            setup: &setup,
            full_precision,
            sensitivities: sensitivities.as_ref(),
            evaluator: None,
            done: 0,
            all_recorded: true,
        };
        let mut agent = self.own.agent(self.config, &shape)?;
        let planning = match &self.config.agent {
            Choice::Ours(kind) => kind.planning(),
            Choice::Own(_) => None,
        };
        let found = searches.next(agent.as_mut(), planning, self.config.budget, Stage::Search)?;
        laps.lap("search");

        let (mut comparisons, mut failed) = (Vec::new(), None);
        let over = matches!(found.stop, StopReason::Cancelled | StopReason::Failed);
        if self.config.compare && !over {
            let budget = Budget { evaluations: Some(found.evaluations), ..Budget::default() };
            let AgentShape { action_count, episode_len, seed, .. } = shape;
            let mut local = LocalSearch::new(action_count, episode_len, seed, BESIDE);
            let mut evolution = Evolution::new(action_count, episode_len, seed, BESIDE);
            let mut random = RandomSearch::new(action_count, seed, TOGETHER);
            let mut knapsack = match &sensitivities {
                Some(sensitivities) => match knapsack(&problem, sensitivities) {
                    Ok(knapsack) => Some(knapsack),
                    Err(error) => {
                        failed = Some(error.chain());
                        None
                    }
                },
                None => None,
            };
            let knapsack = knapsack.as_mut().map(|agent| agent as &mut dyn Agent);
            let others = [&mut local as &mut dyn Agent, &mut evolution, &mut random];
            for agent in knapsack.into_iter().chain(others) {
                match searches.next(agent, None, budget, Stage::Comparison) {
                    Ok(outcome) => comparisons.push(outcome),
                    Err(ReleqError::Cancelled) => break,
                    // The agent's own search is worth having without.
                    Err(error) => failed = failed.or_else(|| Some(error.chain())),
                }
            }
        }
        laps.lap("comparisons");
        drop(searches);
        Ok(Searched { problem, sensitivities, found, comparisons, failed })
    }

    fn evaluator<'s>(
        &'s self,
        setup: &RetrainSetup<'s>,
        full_precision: &FullPrecision,
    ) -> Result<Box<dyn Evaluator + 's>, ReleqError> {
        if let Choice::Own(name) = &self.config.evaluator
            && let Some(make) = self.own.evaluator(self.config)?
        {
            let made = guard(|| format!("the maker of the evaluator `{name}`"), || make(setup))?;
            return Ok(Box::new(Named::new("evaluator", name, made)));
        }
        let mut retrain = retrains::short(self.config, *setup, full_precision.search_validation)?;
        if let Some((workers, bench)) = self.workers(setup.weights) {
            let full_precision = retrain.full_precision();
            let bench = Arc::clone(bench);
            let remote = RemoteEvaluator::new(workers, bench, full_precision, self.cancel);
            return Ok(Box::new(remote.on_answer(|| self.answered(workers))));
        }
        let comparing = || self.comparing.load(Ordering::Relaxed);
        retrain = retrain.on_step(
            self.telling(move || if comparing() { Stage::Comparison } else { Stage::Search }),
        );
        if let Some(kept) = &self.kept {
            retrain = retrain.keep_states(kept.states(SHORT));
        }
        Ok(Box::new(retrain))
    }
}

/// The searches of a run, one after the other, with one evaluator.
struct Searches<'s, 'a> {
    run: &'s Run<'a>,
    problem: &'s Problem,
    setup: &'s RetrainSetup<'s>,
    full_precision: &'s FullPrecision,
    sensitivities: Option<&'s Sensitivities>,
    /// Made for the first search that is not on record.
    evaluator: Option<Box<dyn Evaluator + 's>>,
    done: usize,
    /// Whether all until now are on record. Records are told apart by their order, so none may follow one that is missing.
    all_recorded: bool,
}

impl Searches<'_, '_> {
    /// The outcome of the next search, from the record if it is there.
    fn next(
        &mut self,
        agent: &mut dyn Agent,
        planning: Option<Planning>,
        budget: Budget,
        stage: Stage,
    ) -> Result<SearchOutcome, ReleqError> {
        let Run { kept, clock, .. } = self.run;
        let records = kept.iter().flat_map(|kept| &kept.stage_records);
        let recorded = records.into_iter().filter_map(|stage| match stage {
            StageRecord::Search { outcome, run_seconds } => Some((outcome, *run_seconds)),
            _ => None,
        });
        let name = agent_name(agent, planning.is_some());
        let recorded = recorded.into_iter().nth(self.done);
        self.done += 1;
        if let Some((outcome, run_seconds)) = recorded.filter(|(found, _)| found.agent == name) {
            clock.replayed(run_seconds);
            return Ok((**outcome).clone());
        }
        let run = self.run;
        run.comparing.store(stage == Stage::Comparison, Ordering::Relaxed);
        // Without a single evaluation there is no search to speak of.
        if budget.evaluations != Some(0) {
            (run.on_event)(&Event::SearchBegun { stage, agent: name, budget });
        }
        let sensitivities = self.sensitivities.cloned();
        let outcome = Search::new(self.problem, agent, self.evaluator()?, budget)
            .planning(planning)
            .sensitivities(sensitivities)
            .clock(clock)
            .cancel(run.cancel)
            .on_event(stage, run.on_event)
            .run()
            .inspect_err(|_| self.all_recorded = false)?;
        let over = matches!(outcome.stop, StopReason::Cancelled | StopReason::Failed);
        self.all_recorded &= !over && outcome.error.is_none() && !run.cancel.is_cancelled();
        if let Some(kept) = kept
            && self.all_recorded
        {
            kept.record_stage(&StageRecord::Search {
                outcome: Box::new(outcome.clone()),
                run_seconds: clock.seconds(),
            })?;
        }
        Ok(outcome)
    }

    fn evaluator(&mut self) -> Result<&dyn Evaluator, ReleqError> {
        if self.evaluator.is_none() {
            let Run { kept, clock, .. } = self.run;
            let inner = self.run.evaluator(self.setup, self.full_precision)?;
            let cached: Box<dyn Evaluator> = match kept {
                Some(kept) => Box::new(Cached::new(Recorded::new(inner, kept, clock.clone()))),
                None => Box::new(Cached::new(inner)),
            };
            let per_nat = self.sensitivities.and_then(Sensitivities::accuracy_per_nat);
            self.evaluator = Some(match per_nat {
                Some(per_nat) if self.run.config.signal == Signal::Divergence => {
                    Box::new(ByDivergence::new(cached, per_nat))
                }
                _ => cached,
            });
        }
        self.evaluator.as_deref().ok_or(ReleqError::Cancelled)
    }
}

/// The assignments that the sensitivities propose, as an agent. The first of them are spread over the frontier, so that
/// few evaluations see all of it.
fn knapsack(problem: &Problem, sensitivities: &Sensitivities) -> Result<Listed, ReleqError> {
    let proposed = sensitivities.frontier(problem)?;
    let action = |bits: &Bitwidth| problem.actions().iter().position(|action| action == bits);
    let list: Vec<Vec<usize>> = halving(proposed.len())
        .into_iter()
        .map(|place| {
            let bits = &proposed[place].bits;
            problem.searched().iter().filter_map(|&layer| action(&bits[layer])).collect()
        })
        .collect();
    let (actions, steps) = (problem.action_count(), problem.episode_len());
    Ok(Listed::new("knapsack", actions, steps, list, TOGETHER)?)
}

/// All of 0 to `count`, the ends first, then the middle, the quarters, and so on.
fn halving(count: usize) -> Vec<usize> {
    let last = count.saturating_sub(1);
    let mut order = Vec::with_capacity(count);
    let mut seen = vec![false; count];
    let mut parts = 1;
    while order.len() < count {
        for part in 0..=parts {
            let place = last * part / parts;
            if !std::mem::replace(&mut seen[place], true) {
                order.push(place);
            }
        }
        parts *= 2;
    }
    order
}
