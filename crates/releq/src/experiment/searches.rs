//! The stage of an experiment in which the agent searches, and those that it is compared with.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    thread::{self, Scope},
};

use releq_agent::Agent;
use releq_core::Weights;

use super::{
    AgentShape, Choice, Laps, Signal,
    lead::{Lead, Leading},
    named::Named,
    retrains,
    rivals::Rival,
    stages::{Run, problem},
};
use crate::{
    Budget, EvaluationMode, Event, Planning, Problem, ReleqError, Search, SearchOutcome,
    Sensitivities, Stage, StopReason,
    evaluate::{ByDivergence, Cached, Evaluator, RetrainSetup},
    guard::guard,
    jobs::RemoteEvaluator,
    run_folder::{FullPrecision, Recorded, SHORT, StageRecord},
    search::agent_name,
};

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
        let (setup, evaluator) = (self.setup(weights), OnceLock::new());
        let mut searches = Searches {
            run: self,
            problem: &problem,
            setup: &setup,
            full_precision,
            sensitivities: sensitivities.as_ref(),
            evaluator: &evaluator,
            done: 0,
            all_recorded: true,
        };
        let mut agent = self.own.agent(self.config, &shape)?;
        let planning = match &self.config.agent {
            Choice::Ours(kind) => kind.planning(),
            Choice::Own(_) => None,
        };
        let budget = self.config.budget;
        let lead = Lead::default();
        let (mut comparisons, mut failed) = (Vec::new(), None);
        let found = thread::scope(|scope| {
            let mut ending = Ending { lead: &lead, evaluations: 0 };
            searches.follow(scope, &lead, &shape)?;
            let found =
                searches.next(agent.as_mut(), planning, budget, Stage::Search, Some(&lead))?;
            laps.lap("search");
            let over = matches!(found.stop, StopReason::Cancelled | StopReason::Failed);
            if !self.config.compare || over {
                return Ok::<_, ReleqError>(found);
            }
            ending.evaluations = found.evaluations;
            drop(ending);
            let budget = Budget { evaluations: Some(found.evaluations), ..Budget::default() };
            for rival in Rival::ALL {
                match searches.rival(rival, budget, &shape) {
                    Ok(outcome) => comparisons.extend(outcome),
                    Err(ReleqError::Cancelled) => break,
                    // The agent's own search is worth having without.
                    Err(error) => failed = failed.take().or_else(|| Some(error.chain())),
                }
            }
            Ok(found)
        })?;
        laps.lap("comparisons");
        drop(evaluator);
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
struct Searches<'s, 'e, 'a> {
    run: &'s Run<'a>,
    problem: &'s Problem,
    setup: &'s RetrainSetup<'s>,
    full_precision: &'s FullPrecision,
    sensitivities: Option<&'s Sensitivities>,
    /// Made for the first search that is not on record.
    evaluator: &'e OnceLock<Box<dyn Evaluator + 's>>,
    done: usize,
    /// Whether all until now are on record. Records are told apart by their order, so none may follow one that is missing.
    all_recorded: bool,
}

impl<'s, 'e> Searches<'s, 'e, '_> {
    /// Where workers carry out retrains, plays the searches that the agent's is compared with beside it, as far as that is: they
    /// find the answers there when it is their turn.
    fn follow<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        lead: &'scope Lead,
        shape: &'scope AgentShape,
    ) -> Result<(), ReleqError>
    where
        's: 'scope,
        'e: 'scope,
    {
        let Self { run, problem, sensitivities, .. } = *self;
        if !run.config.compare
            || run.workers(self.setup.weights).is_none()
            || problem.evaluation() != EvaluationMode::PerEpisode
            || run.config.budget.evaluations == Some(0)
            || matches!(run.config.evaluator, Choice::Own(_))
            || self.recorded().count() > Rival::ALL.len()
        {
            return Ok(());
        }
        let (evaluator, cancel) = (self.evaluator()?, run.cancel);
        for rival in Rival::ALL {
            let follow = move || {
                let Some(mut agent) = rival.agent(problem, sensitivities, shape)? else {
                    return Ok(());
                };
                let search = Search::new(problem, agent.as_mut(), evaluator, Budget::default());
                lead.follow(search.cancel(cancel), rival.batch())
            };
            // What fails here fails again when it is the rival's turn, which is where it is told of.
            let follow = move || guard(|| format!("{rival:?}"), follow).is_ok();
            // Without a thread, the rival's turn takes longer.
            if thread::Builder::new().spawn_scoped(scope, follow).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The search of a rival; `None` where it needs sensitivities and there are none.
    fn rival(
        &mut self,
        rival: Rival,
        budget: Budget,
        shape: &AgentShape,
    ) -> Result<Option<SearchOutcome>, ReleqError> {
        let agent = rival.agent(self.problem, self.sensitivities, shape)?;
        let next = |mut agent: Box<dyn Agent>| {
            self.next(agent.as_mut(), None, budget, Stage::Comparison, None)
        };
        agent.map(next).transpose()
    }

    /// The searches on record, and when they had ended.
    fn recorded(&self) -> impl Iterator<Item = (&'s SearchOutcome, f64)> + use<'s> {
        let records = self.run.kept.iter().flat_map(|kept| &kept.stage_records);
        records.filter_map(|stage| match stage {
            StageRecord::Search { outcome, run_seconds } => Some((&**outcome, *run_seconds)),
            _ => None,
        })
    }

    /// The outcome of the next search, from the record if it is there. `lead` hears how far it is.
    fn next(
        &mut self,
        agent: &mut dyn Agent,
        planning: Option<Planning>,
        budget: Budget,
        stage: Stage,
        lead: Option<&Lead>,
    ) -> Result<SearchOutcome, ReleqError> {
        let Run { kept, clock, .. } = self.run;
        let name = agent_name(agent, planning.is_some());
        let recorded = self.recorded().nth(self.done);
        self.done += 1;
        if let Some((outcome, run_seconds)) = recorded.filter(|(found, _)| found.agent == name) {
            clock.replayed(run_seconds);
            return Ok(outcome.clone());
        }
        let run = self.run;
        run.comparing.store(stage == Stage::Comparison, Ordering::Relaxed);
        // Without a single evaluation there is no search to speak of.
        if budget.evaluations != Some(0) {
            (run.on_event)(&Event::SearchBegun { stage, agent: name, budget });
        }
        let sensitivities = self.sensitivities.cloned();
        let evaluator = self.evaluator()?;
        let leading = lead.map(|lead| Leading { inner: evaluator, lead });
        let evaluator = leading.as_ref().map_or(evaluator, |leading| leading);
        let outcome = Search::new(self.problem, agent, evaluator, budget)
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

    /// The evaluator of all searches, made if it is not there.
    fn evaluator(&self) -> Result<&'e (dyn Evaluator + 's), ReleqError> {
        if let Some(made) = self.evaluator.get() {
            return Ok(made.as_ref());
        }
        let Run { kept, clock, .. } = self.run;
        let inner = self.run.evaluator(self.setup, self.full_precision)?;
        let cached: Box<dyn Evaluator> = match kept {
            Some(kept) => Box::new(Cached::new(Recorded::new(inner, kept, clock.clone()))),
            None => Box::new(Cached::new(inner)),
        };
        let per_nat = self.sensitivities.and_then(Sensitivities::accuracy_per_nat);
        let made: Box<dyn Evaluator> = match per_nat {
            Some(per_nat) if self.run.config.signal == Signal::Divergence => {
                Box::new(ByDivergence::new(cached, per_nat))
            }
            _ => cached,
        };
        Ok(self.evaluator.get_or_init(|| made).as_ref())
    }
}

/// Tells those that follow how far the agent's search came, also where a panic passes.
struct Ending<'l> {
    lead: &'l Lead,
    evaluations: usize,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.lead.end(self.evaluations);
    }
}
