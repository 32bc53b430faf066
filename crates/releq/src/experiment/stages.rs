//! The stages of an experiment, one method each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use releq_agent::{Agent, Evolution, Listed, LocalSearch, RandomSearch};
use releq_core::{Bitwidth, BitwidthAssignment, CostError, Network, Weights};
use releq_data::{Dataset, Normalization, Subset, WithLabels, fingerprint};
use releq_hw::Machine;
use releq_quant::{QuantError, Quantizer};
use releq_train::{
    Schedule, TrainError, TrainProgress, Trainer, classes_while, initial_weights, training_origin,
};

use super::{
    AgentShape, Choice, ExperimentConfig, HeldOut, Laps, Signal,
    finals::{Finals, Finished, FullPrecision, row_cost},
    named::Named,
    pieces::{AnySplits, OwnPieces, Pieces, TOGETHER},
};
use crate::{
    Budget, Cancel, Event, LayerRow, Planning, Problem, ReleqError, Report, RunFolder, Search,
    SearchOutcome, Sensitivities, Sensitivity, Stage, StopReason,
    evaluate::{
        ByDivergence, Cached, EVALUATION_BATCH, Evaluator, Retrain, RetrainSetup, Way, classify,
        go_on,
    },
    guard::guard,
    run_folder::{Beginning, Clock, FULL_PRECISION, LONG, OpenRun, Recorded, SHORT, StageRecord},
    search::agent_name,
};

/// Episodes at a time of the searches that the agent's is compared with: as many as a planned search measures, since
/// more would be chosen with less knowledge.
const BESIDE: usize = 4;

/// The data of an experiment, split and normalized once.
pub(super) struct Images {
    pub(super) train: Subset,
    validation: Subset,
    pub(super) search_validation: Subset,
    test: Subset,
    pub(super) normalization: Normalization,
    /// Whether the labels of what is measured are those of full precision.
    unlabelled: bool,
    source: String,
}

/// An experiment whose inputs fit together.
pub(super) struct Run<'a> {
    network: &'a Network,
    config: &'a ExperimentConfig,
    own: &'a OwnPieces,
    cancel: &'a Cancel,
    on_event: &'a (dyn Fn(&Event) + Sync),
    pieces: Pieces,
    images: Images,
    /// The weights that are given.
    given: Option<Weights>,
    clock: Clock,
    /// Where the run keeps what it has.
    kept: Option<OpenRun<'a>>,
    /// Whether the search that goes on is one that the agent's is compared with.
    comparing: AtomicBool,
}

/// What the searches found, and the problem that they searched.
pub(super) struct Searched {
    problem: Problem,
    sensitivities: Option<Sensitivities>,
    found: SearchOutcome,
    comparisons: Vec<SearchOutcome>,
}

impl<'a> Run<'a> {
    /// Checks all settings, so that a wrong one shows now and not after the pretraining or the search, then
    /// reads the data.
    pub(super) fn new(
        network: &'a Network,
        config: &'a ExperimentConfig,
        own: &'a OwnPieces,
        folder: Option<&'a RunFolder>,
        cancel: &'a Cancel,
        on_event: &'a (dyn Fn(&Event) + Sync),
    ) -> Result<Self, ReleqError> {
        config.check()?;
        let pieces = Pieces::new(config, own)?;
        check_bits(network, config, &pieces.quantizer)?;
        let problem = problem(network, config, &pieces, None)?;
        check_report_costs(network, &pieces)?;
        own.agent(config, &AgentShape::new(&problem, config.seed))?;
        let images = split(own.data(config)?, config)?;
        for (setting, schedule, _) in config.schedules().filter(|&(.., used)| used) {
            schedule
                .check_images(&images.train)
                .map_err(|error| ReleqError::Setting { setting, reason: error.to_string() })?;
        }
        let clock = Clock::new();
        let given = own.weights(config, network)?;
        let kept = match folder {
            Some(folder) => {
                Some(folder.begin(config, origin(network, config, &images, given.as_ref())?)?)
            }
            None => None,
        };
        // Afterwards: another processor may see another class, but the data are the same.
        let images = match config.correction {
            Some(_) if images.lack_labels() => {
                labelled(images, network, config, &pieces, given.as_ref(), cancel)?
            }
            _ => images,
        };
        Ok(Self {
            network,
            config,
            own,
            cancel,
            on_event,
            pieces,
            images,
            given,
            clock,
            kept,
            comparing: AtomicBool::new(false),
        })
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Full-precision weights: those given, as they are or fine-tuned, else trained from the seed.
    pub(super) fn pretrain(&self) -> Result<Weights, ReleqError> {
        let Some(kept) = &self.kept else { return self.train_in_full_precision() };
        let recorded = kept.stage_records.iter().find_map(|stage| match stage {
            StageRecord::Weights { fingerprint, run_seconds } => Some((fingerprint, *run_seconds)),
            _ => None,
        });
        let weights = match kept.weights() {
            Some(weights) => weights,
            None => {
                let weights = self.train_in_full_precision()?;
                kept.save_weights(&weights)?;
                weights
            }
        };
        match recorded {
            Some((fingerprint, run_seconds)) => {
                if *fingerprint != weights.fingerprint() {
                    return Err(kept.other_weights().into());
                }
                self.clock.replayed(run_seconds);
            }
            None => kept.record_stage(&StageRecord::Weights {
                fingerprint: weights.fingerprint(),
                run_seconds: self.clock.seconds(),
            })?,
        }
        kept.states(FULL_PRECISION).forget(None);
        Ok(weights)
    }

    fn train_in_full_precision(&self) -> Result<Weights, ReleqError> {
        let Self { network, config, .. } = *self;
        let (start, schedule) = match (&self.given, config.fine_tune) {
            (Some(weights), None) => return Ok(weights.clone()),
            (Some(weights), Some(schedule)) => (weights.clone(), schedule),
            (None, _) => (initial_weights(network, config.seed), config.pretrain),
        };
        let mut trainer = self.trainer(&start)?;
        let beginning = Beginning {
            network,
            train: &self.images.train,
            normalization: &self.images.normalization,
            schedule: &schedule,
            seed: config.seed,
            weights: &start,
            bits: None,
        };
        let states = self.kept.as_ref().map(|kept| kept.states(FULL_PRECISION));
        let mut training = match &states {
            Some(states) => states.training(&beginning, trainer.as_mut())?,
            None => beginning.training()?,
        };
        let mut saver = states.map(|states| states.saver(None));
        while !self.cancel.is_cancelled()
            && let Some(progress) = training.step(trainer.as_mut())?
        {
            (self.on_event)(&Event::TrainingStep {
                step: progress.step,
                steps: progress.steps,
                loss: progress.loss,
                learning_rate: progress.learning_rate,
            });
            // That the state cannot be written is no reason to end a training.
            let saved = saver.as_mut().map_or(Ok(()), |s| s.if_due(&training, trainer.as_ref()));
            if let Err(error) = saved {
                log::warn!("the state of the training is not saved: {error}; it goes on");
            }
        }
        if self.cancel.is_cancelled() {
            saver.as_mut().map_or(Ok(()), |s| s.now(&training, trainer.as_ref()))?;
            return Err(ReleqError::Cancelled);
        }
        Ok(trainer.weights())
    }

    /// Accuracy of the full-precision weights on the validation and the test images.
    pub(super) fn full_precision(&self, weights: &Weights) -> Result<FullPrecision, ReleqError> {
        let recorded = self.kept.iter().flat_map(|kept| &kept.stage_records);
        let recorded = recorded.into_iter().find_map(|stage| match *stage {
            StageRecord::FullPrecision { validation, test, search_validation, run_seconds } => {
                Some((FullPrecision { validation, test, search_validation }, run_seconds))
            }
            _ => None,
        });
        if let Some((full_precision, run_seconds)) = recorded {
            self.clock.replayed(run_seconds);
            return Ok(full_precision);
        }
        let Images { validation, test, search_validation, normalization, .. } = &self.images;
        let mut trainer = self.trainer(weights)?;
        let mut on = |images: &dyn Dataset| {
            classify(trainer.as_mut(), images, normalization, self.cancel)
                .map(|report| report.accuracy())
        };
        let own_evaluator = self.own.evaluator(self.config)?.is_some();
        let full_precision = FullPrecision {
            validation: on(validation)?,
            test: on(test)?,
            search_validation: if own_evaluator { None } else { Some(on(search_validation)?) },
        };
        if let Some(kept) = &self.kept {
            let FullPrecision { validation, test, search_validation } = full_precision;
            let run_seconds = self.clock.seconds();
            kept.record_stage(&StageRecord::FullPrecision {
                validation,
                test,
                search_validation,
                run_seconds,
            })?;
        }
        Ok(full_precision)
    }

    fn trainer(&self, weights: &Weights) -> Result<Box<dyn Trainer>, ReleqError> {
        let Pieces { trainers, quantizer, .. } = &self.pieces;
        let mut trainer = trainers.trainer(self.network, Arc::clone(quantizer))?;
        trainer.load(weights)?;
        Ok(trainer)
    }

    /// What single layers suffer from each bitwidth, where the configuration asks for it.
    pub(super) fn sensitivities(
        &self,
        weights: &Weights,
    ) -> Result<Option<Sensitivities>, ReleqError> {
        let images = self.config.sensitivity_images.min(self.images.search_validation.len());
        // They are for the search, which a budget of no evaluations leaves out.
        if images == 0 || self.config.budget.evaluations == Some(0) {
            return Ok(None);
        }
        let mut known = BTreeMap::new();
        for stage in self.kept.iter().flat_map(|kept| &kept.stage_records) {
            if let StageRecord::Sensitivity { layer, bits, compared, run_seconds } = stage {
                self.clock.replayed(*run_seconds);
                known.insert((*layer, *bits), *compared);
            }
        }
        let problem = problem(self.network, self.config, &self.pieces, Some(weights))?;
        let images = self.images.search_validation.take(images, self.config.seed)?;
        let setup = RetrainSetup { validation: &images, ..self.setup(weights) };
        let total = problem.episode_len() * problem.actions().len();
        let done = AtomicUsize::new(known.len());
        let measured = |layer: usize, sensitivity: &Sensitivity| {
            let Sensitivity { bits, compared } = *sensitivity;
            if let Some(kept) = &self.kept {
                let run_seconds = self.clock.seconds();
                kept.record_stage(&StageRecord::Sensitivity {
                    layer,
                    bits,
                    compared,
                    run_seconds,
                })?;
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            let (layer, divergence) =
                (problem.layers()[layer].profile.name.clone(), compared.divergence.value);
            (self.on_event)(&Event::Sensitivity { done, total, layer, bits, divergence });
            Ok(())
        };
        let known = |layer: usize, bits: Bitwidth| known.get(&(layer, bits)).copied();
        let sensitivities = Sensitivities::measure_rest(&setup, &problem, &known, &measured)?;
        Ok(Some(sensitivities))
    }

    /// The agent's search, then those that it is compared with.
    pub(super) fn search(
        &self,
        weights: &Weights,
        full_precision: FullPrecision,
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
        };
        let mut agent = self.own.agent(self.config, &shape)?;
        let planning = match &self.config.agent {
            Choice::Ours(kind) => kind.planning(),
            Choice::Own(_) => None,
        };
        let found = searches.next(agent.as_mut(), planning, self.config.budget, Stage::Search)?;
        laps.lap("search");

        let mut comparisons = Vec::new();
        let over = matches!(found.stop, StopReason::Cancelled | StopReason::Failed);
        if self.config.compare && !over {
            let budget = Budget { evaluations: Some(found.evaluations), ..Budget::default() };
            let AgentShape { action_count, episode_len, seed, .. } = shape;
            let mut local = LocalSearch::new(action_count, episode_len, seed, BESIDE);
            let mut evolution = Evolution::new(action_count, episode_len, seed, BESIDE);
            let mut random = RandomSearch::new(action_count, seed, TOGETHER);
            let mut knapsack = match &sensitivities {
                Some(sensitivities) => Some(knapsack(&problem, sensitivities)?),
                None => None,
            };
            let knapsack = knapsack.as_mut().map(|agent| agent as &mut dyn Agent);
            let others = [&mut local as &mut dyn Agent, &mut evolution, &mut random];
            for agent in knapsack.into_iter().chain(others) {
                comparisons.push(searches.next(agent, None, budget, Stage::Comparison)?);
            }
        }
        laps.lap("comparisons");
        drop(searches);
        Ok(Searched { problem, sensitivities, found, comparisons })
    }

    /// The long retrains.
    pub(super) fn finals(
        &self,
        weights: &Weights,
        searched: &Searched,
        full_precision: FullPrecision,
    ) -> Result<Finished, ReleqError> {
        let finals = Finals {
            network: self.network,
            config: self.config,
            problem: &searched.problem,
            quantizer: &*self.pieces.quantizer,
            report_costs: &self.pieces.report_costs,
            validation: &self.images.validation,
            test: &self.images.test,
            full_precision,
            sensitivities: searched.sensitivities.as_ref(),
            on_event: self.on_event,
            clock: &self.clock,
            kept: self.kept.as_ref(),
        };
        let way = self.way(self.config.long_retrain);
        let mut long = Retrain::unmeasured(self.setup(weights), way);
        long = long.on_step(self.telling(|| Stage::Final));
        if let Some(kept) = &self.kept {
            long = long.keep_states(kept.states(LONG));
        }
        finals.run(&long, &searched.found, &searched.comparisons)
    }

    pub(super) fn report(
        &self,
        weights: &Weights,
        searched: Searched,
        full_precision: FullPrecision,
        finished: Finished,
        times: BTreeMap<String, f64>,
    ) -> Result<Report, ReleqError> {
        let Searched { found, comparisons, sensitivities, .. } = searched;
        let Finished { rows, reference, answer, cancelled, error } = finished;
        let chosen = answer.as_ref().map(|answer| answer.bits.clone()).or_else(|| {
            let best = found.best_within(self.config.tolerance).or(found.best.as_ref());
            best.map(|scored| scored.bits.clone())
        });
        let answered = answer.as_ref().map(|answer| answer.bits.clone());
        let report = Report {
            config: self.kept.as_ref().map_or(self.config, |kept| &kept.config).clone(),
            data: self.images.source.clone(),
            images: [&self.images.train, &self.images.validation, &self.images.test]
                .map(Dataset::len),
            unlabelled: self.images.unlabelled,
            full_precision_validation: full_precision.validation,
            full_precision_test: full_precision.test,
            reference: (!rows.is_empty()).then_some(reference),
            sensitivities,
            layers: self.layers(weights, chosen.as_ref())?,
            answer,
            chosen,
            search: found,
            comparisons,
            cancelled,
            error,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::this(),
            rows,
            times,
        };
        Ok(self.keep_report(report, answered.as_ref()))
    }

    /// Writes the report where the run keeps what it has. If that fails, the report says so.
    fn keep_report(&self, mut report: Report, answer: Option<&BitwidthAssignment>) -> Report {
        let Some(kept) = &self.kept else { return report };
        let ended = !report.cancelled && report.failed().is_none();
        let written = if ended { kept.finish(&report, answer) } else { kept.save_report(&report) };
        if let Err(error) = written {
            let error = ReleqError::from(error).chain();
            report.error = Some(match report.error {
                Some(earlier) => format!("{earlier}; {error}"),
                None => error,
            });
        }
        report
    }

    fn layers(
        &self,
        weights: &Weights,
        chosen: Option<&BitwidthAssignment>,
    ) -> Result<Vec<LayerRow>, ReleqError> {
        let deviations = weights.weight_stds(self.network).map_err(TrainError::from)?;
        let layers = self.network.profiles().into_iter().zip(deviations).enumerate();
        Ok(layers
            .map(|(index, (layer, deviation))| LayerRow {
                weights: layer.weights(),
                macs: layer.macs(),
                name: layer.name,
                weight_std: f64::from(deviation),
                bits: chosen.map(|bits| bits[index]),
            })
            .collect())
    }

    /// Makes events of the steps of retrains.
    fn telling<'s>(
        &'s self,
        stage: impl Fn() -> Stage + Send + Sync + 's,
    ) -> impl Fn(&BitwidthAssignment, TrainProgress) + Send + Sync + 's {
        move |bits, TrainProgress { step, steps, .. }| {
            let (stage, bits) = (stage(), bits.clone());
            (self.on_event)(&Event::RetrainStep { stage, bits, step, steps });
        }
    }

    fn setup<'s>(&'s self, weights: &'s Weights) -> RetrainSetup<'s> {
        RetrainSetup {
            network: self.network,
            weights,
            train: &self.images.train,
            validation: &self.images.search_validation,
            normalization: &self.images.normalization,
            quantizer: &self.pieces.quantizer,
            trainers: &self.pieces.trainers,
            threads: self.config.threads,
            seed: self.config.seed,
            cancel: self.cancel,
        }
    }

    /// What quantized weights get: a retrain by `schedule`, unless the run corrects them.
    fn way(&self, schedule: Schedule) -> Way {
        self.config.correction.map_or(Way::Train(schedule), Way::Correct)
    }

    fn evaluator<'s>(
        &'s self,
        setup: &RetrainSetup<'s>,
        full_precision: FullPrecision,
    ) -> Result<Box<dyn Evaluator + 's>, ReleqError> {
        if let Choice::Own(name) = &self.config.evaluator
            && let Some(make) = self.own.evaluator(self.config)?
        {
            let made = guard(|| format!("the maker of the evaluator `{name}`"), || make(setup))?;
            return Ok(Box::new(Named::new("evaluator", name, made)));
        }
        let way = self.way(self.config.short_retrain);
        let mut retrain = match full_precision.search_validation {
            Some(accuracy) => Retrain::unmeasured(*setup, way).relative_to(accuracy)?,
            None => Retrain::measured_first(*setup, way)?,
        };
        // A correction learns from nobody.
        if self.config.distilled && self.config.correction.is_none() {
            retrain = retrain.distilled();
        }
        if let Some(early_stop) = self.config.early_stop {
            retrain = retrain.early_stop(early_stop)?;
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
    full_precision: FullPrecision,
    sensitivities: Option<&'s Sensitivities>,
    /// Made for the first search that is not on record.
    evaluator: Option<Box<dyn Evaluator + 's>>,
    done: usize,
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
        let recorded = recorded.into_iter().nth(self.done);
        self.done += 1;
        if let Some((outcome, run_seconds)) = recorded {
            clock.replayed(run_seconds);
            return Ok((**outcome).clone());
        }
        let run = self.run;
        run.comparing.store(stage == Stage::Comparison, Ordering::Relaxed);
        // Without a single evaluation there is no search to speak of.
        if budget.evaluations != Some(0) {
            let agent = agent_name(agent, planning.is_some());
            (run.on_event)(&Event::SearchBegun { stage, agent, budget });
        }
        let sensitivities = self.sensitivities.cloned();
        let outcome = Search::new(self.problem, agent, self.evaluator()?, budget)
            .planning(planning)
            .sensitivities(sensitivities)
            .clock(clock)
            .cancel(run.cancel)
            .on_event(stage, run.on_event)
            .run()?;
        let over = matches!(outcome.stop, StopReason::Cancelled | StopReason::Failed);
        if let Some(kept) = kept
            && !over
            && outcome.error.is_none()
            && !run.cancel.is_cancelled()
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

/// What the result of a run follows from besides its settings.
fn origin(
    network: &Network,
    config: &ExperimentConfig,
    images: &Images,
    given: Option<&Weights>,
) -> Result<BTreeMap<String, String>, ReleqError> {
    let trainer = config.trainer.to_string();
    let mut origin = match given {
        Some(weights) => training_origin(&images.train, weights, &trainer)?,
        None => training_origin(&images.train, &initial_weights(network, config.seed), &trainer)?,
    };
    for (what, images) in [("validation", &images.validation), ("test", &images.test)] {
        origin.insert(format!("{what} data with fingerprint"), fingerprint(images)?);
    }
    Ok(origin)
}

fn problem(
    network: &Network,
    config: &ExperimentConfig,
    pieces: &Pieces,
    weights: Option<&Weights>,
) -> Result<Problem, ReleqError> {
    let mut builder = Problem::builder()
        .network(network, weights)
        .actions(config.actions.iter().copied())
        .cost(Arc::clone(&pieces.cost))
        .reward(Arc::clone(&pieces.reward));
    for (layer, bits) in &config.fixed_layers {
        builder = builder.fix_layer(layer, *bits);
    }
    for limit in &pieces.limits {
        builder = builder.limit(limit.clone());
    }
    builder.build()
}

/// Refuses cost models that have no price of the network, rather than leave gaps in a report after hours. One that does
/// not cover 8 bits may cover what is reported of.
fn check_report_costs(network: &Network, pieces: &Pieces) -> Result<(), ReleqError> {
    let layers = network.profiles();
    let eight = BitwidthAssignment::uniform(Bitwidth::EIGHT, layers.len())?;
    for model in &pieces.report_costs {
        match row_cost(model, &layers, &eight) {
            Err(ReleqError::Cost(CostError::Bitwidth { .. })) => {}
            priced => drop(priced?),
        }
    }
    Ok(())
}

/// Refuses bitwidths that the quantizer does not support, and lists of another length than the network.
fn check_bits(
    network: &Network,
    config: &ExperimentConfig,
    quantizer: &Arc<dyn Quantizer>,
) -> Result<(), ReleqError> {
    let supported = |bits: &Bitwidth| {
        if bits.is_float() || quantizer.supports(*bits) {
            return Ok(());
        }
        Err(ReleqError::from(QuantError::unsupported(&**quantizer, *bits)))
    };
    config.actions.iter().try_for_each(supported)?;
    config.fixed_layers.iter().try_for_each(|(_, bits)| supported(bits))?;
    let layers = network.quantizable_layers();
    for (label, bits) in &config.beside {
        if bits.len() != layers {
            let count = bits.len();
            let reason =
                format!("`{label}` has {count} bitwidths, the network has {layers} layers");
            return Err(ReleqError::Setting { setting: "beside", reason });
        }
        bits.iter().try_for_each(supported)?;
    }
    Ok(())
}

pub(super) fn split(data: AnySplits, config: &ExperimentConfig) -> Result<Images, ReleqError> {
    let (train, test) = (Subset::all(data.train), Subset::all(data.test));
    let ((train, test), validation) = match config.held_out {
        HeldOut::Training => {
            let (train, validation) = train.split(config.validation, config.seed)?;
            ((train, test), validation)
        }
        HeldOut::Test => {
            let (test, validation) = test.split(config.validation, config.seed)?;
            ((train, test), validation)
        }
    };
    let search_validation = validation.take(config.search_validation, config.seed)?;
    let normalization = match &config.normalization {
        Some(normalization) => normalization.clone(),
        None => Normalization::measured(&train)?,
    };
    let (unlabelled, source) = (false, data.source);
    Ok(Images { train, validation, search_validation, test, normalization, unlabelled, source })
}

impl Images {
    /// Whether some of the images that are measured on have no labels.
    fn lack_labels(&self) -> bool {
        [&self.validation, &self.test].iter().any(|images| images.info().classes.is_none())
    }
}

/// The images, labelled with the classes that the given weights see in full precision.
fn labelled(
    images: Images,
    network: &Network,
    config: &ExperimentConfig,
    pieces: &Pieces,
    given: Option<&Weights>,
    cancel: &Cancel,
) -> Result<Images, ReleqError> {
    let Some(weights) = given.filter(|_| config.fine_tune.is_none()) else {
        let reason = "must be given, and stay as they are, where images have no labels: what they see in full precision \
                      is what a correction is measured by";
        return Err(ReleqError::Setting { setting: "weights", reason: reason.into() });
    };
    let mut trainer = pieces.trainers.trainer(network, Arc::clone(&pieces.quantizer))?;
    trainer.load(weights)?;
    let normalization = &images.normalization;
    let mut label = |images: Subset| -> Result<Subset, ReleqError> {
        let (batch, go_on) = (EVALUATION_BATCH, || go_on(cancel));
        let labels = classes_while(trainer.as_mut(), &images, normalization, batch, &go_on)?;
        let labels = labels.ok_or(ReleqError::Cancelled)?;
        let labelled: Arc<dyn Dataset> =
            Arc::new(WithLabels::new(images, network.outputs(), labels)?);
        Ok(Subset::all(labelled))
    };
    let (validation, test) = (label(images.validation.clone())?, label(images.test.clone())?);
    let search_validation = validation.take(config.search_validation, config.seed)?;
    Ok(Images { validation, test, search_validation, unlabelled: true, ..images })
}
