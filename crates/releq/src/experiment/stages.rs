//! The stages of an experiment, one method each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use releq_core::{Bitwidth, BitwidthAssignment, CostError, LayerKind, Network, Weights};
use releq_data::Dataset;
use releq_hw::Machine;
use releq_quant::{QuantError, Quantizer};
use releq_train::{
    Calibration, NativeTrainer, TrainError, TrainProgress, Trainer, initial_weights,
};

use super::{
    AgentShape, Bench, Choice, ExperimentConfig,
    ahead::{Ahead, LongAnswer},
    bench::check_portable,
    finals::{self, Finals, Finished, retrain_long, row_cost},
    images::{Images, origin},
    pieces::{OwnPieces, Pieces},
    retrains,
    searches::Searched,
    seeds::Seeds,
};
use crate::{
    Cancel, Event, LayerRow, Problem, ReleqError, Report, RunFolder, Sensitivities, Sensitivity,
    Stage, StopReason,
    evaluate::{RetrainSetup, classify},
    guard::guard,
    jobs::{Job, JobAnswer, Task, Workers, other_answer},
    run_folder::{Beginning, Clock, FULL_PRECISION, FullPrecision, LONG, OpenRun, StageRecord},
};

/// An experiment whose inputs fit together.
pub(super) struct Run<'a> {
    pub(super) network: &'a Network,
    pub(super) config: &'a ExperimentConfig,
    pub(super) own: &'a OwnPieces,
    pub(super) cancel: &'a Cancel,
    pub(super) on_event: &'a (dyn Fn(&Event) + Sync),
    pub(super) pieces: Pieces,
    /// The bitwidths of the rows with the same bits everywhere.
    pub(super) uniform: Vec<Bitwidth>,
    pub(super) images: Images,
    /// What tells the images from others, where a folder or workers must have the same.
    fingerprints: Option<BTreeMap<String, String>>,
    /// Where workers carry out retrains, made for the first of them.
    bench: OnceLock<Arc<Bench>>,
    /// Kinds of machines that carried out retrains, other than this one's.
    other_machines: Mutex<BTreeSet<String>>,
    /// The weights that are given.
    pub(super) given: Option<Weights>,
    pub(super) clock: Clock,
    /// Where the run keeps what it has.
    pub(super) kept: Option<OpenRun<'a>>,
    /// Whether the search that goes on is one that the agent's is compared with.
    pub(super) comparing: AtomicBool,
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
        let mut uniform = config.uniform.clone();
        uniform.retain(|bits| pieces.quantizer.supports(*bits));
        check_report_costs(network, config, &pieces, &uniform)?;
        own.agent(config, &AgentShape::new(&problem, config.seed))?;
        let images = Images::new(own.data(config)?, config)?;
        for (setting, schedule, _) in config.schedules().filter(|&(.., used)| used) {
            schedule
                .check_images(&images.train)
                .map_err(|error| ReleqError::Setting { setting, reason: error.to_string() })?;
        }
        if own.workers.is_some() {
            check_portable(config)?;
        }
        let clock = Clock::new();
        let given = own.weights(config, network)?;
        let named = folder.is_some() || own.workers.is_some();
        let fingerprints = named.then(|| images.fingerprints()).transpose()?;
        let kept = match folder.zip(fingerprints.as_ref()) {
            Some((folder, images)) => {
                Some(folder.begin(config, origin(network, config, images, given.as_ref()))?)
            }
            None => None,
        };
        let records = kept.iter().flat_map(|kept: &OpenRun<'_>| &kept.stage_records);
        let other_machines = records.filter_map(|stage| match stage {
            StageRecord::OtherMachine { kind } => Some(kind.clone()),
            _ => None,
        });
        let other_machines = Mutex::new(other_machines.collect());
        // Afterwards: another processor may see another class, but the data are the same.
        let images = images.labelled(network, config, &pieces, given.as_ref(), cancel)?;
        Ok(Self {
            network,
            config,
            own,
            cancel,
            on_event,
            pieces,
            uniform,
            images,
            fingerprints,
            bench: OnceLock::new(),
            other_machines,
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
        let Some(kept) = &self.kept else {
            return self.with_ranges(self.train_in_full_precision()?);
        };
        let recorded = kept.stage_records.iter().find_map(|stage| match stage {
            StageRecord::Weights { fingerprint, run_seconds } => Some((fingerprint, *run_seconds)),
            _ => None,
        });
        let weights = match kept.weights() {
            Some(weights) => weights,
            None => {
                let weights = self.with_ranges(self.train_in_full_precision()?)?;
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
        let (start, setting, schedule) = match (&self.given, config.fine_tune) {
            (Some(weights), None) => return Ok(weights.clone()),
            (Some(weights), Some(schedule)) => (weights.clone(), "fine_tune", schedule),
            (None, _) => (initial_weights(network, config.seed), "pretrain", config.pretrain),
        };
        let diverged = |error| match error {
            TrainError::Diverged { loss, step } => {
                ReleqError::Pretraining { schedule: setting, loss, step }
            }
            error => error.into(),
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
            && let Some(progress) = training.step(trainer.as_mut()).map_err(diverged)?
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
        let weights = trainer.weights();
        // Before they are written down: a folder with such weights would be spoilt for good.
        check_trained(&weights, network).map_err(|reason| ReleqError::Piece {
            piece: format!("trainer `{}`", config.trainer),
            source: format!("after the full-precision training, {reason}").into(),
        })?;
        Ok(weights)
    }

    /// The weights with the ranges of the activations that the network rounds, found on training images.
    fn with_ranges(&self, mut weights: Weights) -> Result<Weights, ReleqError> {
        if self.network.rounds_activations() {
            let Images { train, normalization, .. } = &self.images;
            let images = train.take(Calibration::IMAGES.get(), self.config.seed)?;
            let mut trainer = NativeTrainer::new(self.network, Arc::clone(&self.pieces.quantizer))?;
            trainer.load(&weights)?;
            Calibration::of(&mut trainer, &images, normalization)?
                .find_ranges(self.network, &mut weights)?;
        }
        Ok(weights)
    }

    /// What the full-precision weights classify correctly.
    pub(super) fn full_precision(&self, weights: &Weights) -> Result<FullPrecision, ReleqError> {
        let recorded = self.kept.iter().flat_map(|kept| &kept.stage_records);
        let recorded = recorded.into_iter().find_map(|stage| match stage {
            StageRecord::FullPrecision { measured, run_seconds } => Some((measured, *run_seconds)),
            _ => None,
        });
        if let Some((full_precision, run_seconds)) = recorded {
            self.clock.replayed(run_seconds);
            return Ok(full_precision.clone());
        }
        let Images { validation, test, search_validation, normalization, .. } = &self.images;
        let mut trainer = self.trainer(weights)?;
        let mut on = |images| classify(trainer.as_mut(), images, normalization, self.cancel);
        let own_evaluator = self.own.evaluator(self.config)?.is_some();
        let full_precision = FullPrecision {
            validation: on(validation)?,
            test: on(test)?,
            search_validation: if own_evaluator {
                None
            } else {
                Some(on(search_validation)?.report().accuracy())
            },
        };
        if let Some(kept) = &self.kept {
            let (measured, run_seconds) = (full_precision.clone(), self.clock.seconds());
            kept.record_stage(&StageRecord::FullPrecision { measured, run_seconds })?;
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
        let total = problem.searched().iter().map(|&layer| problem.actions_of(layer).len()).sum();
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

    /// Does what `main` does. Where workers carry out retrains, those that are wanted whatever it comes to go on beside it.
    pub(super) fn with_ahead<T>(
        &self,
        weights: &Weights,
        main: impl FnOnce(Option<&Ahead<'_>>) -> Result<T, ReleqError>,
    ) -> Result<T, ReleqError> {
        let Some((workers, bench)) = self.workers(weights) else { return main(None) };
        // Without a search, the long retrains begin at once.
        if self.config.budget.evaluations == Some(0) {
            return main(None);
        }
        let known = self.kept.iter().flat_map(|kept| &kept.final_records);
        let known: BTreeSet<_> = known.map(|record| &record.bits).collect();
        let beside = finals::beside(self.network, self.config, &self.uniform)?;
        let wanted = finals::distinct(&beside).into_iter().filter(|bits| !known.contains(bits));
        let width = || workers.width();
        let retrain = |bits: &BitwidthAssignment, cancel: &Cancel| {
            self.retrain_elsewhere((workers, bench), (bits, 0, self.kept.is_some()), cancel)
        };
        let ahead = Ahead::new(wanted, &width, &retrain, self.cancel);
        ahead.beside(|| main(Some(&ahead)))
    }

    /// A long retrain of an assignment by workers: after so many others of it, and whether its weights are wanted.
    fn retrain_elsewhere(
        &self,
        (workers, bench): (&dyn Workers, &Arc<Bench>),
        (bits, again, weights): (&BitwidthAssignment, usize, bool),
        cancel: &Cancel,
    ) -> Result<LongAnswer, ReleqError> {
        let job = Job { bits: bits.clone(), task: Task::Long { again, weights } };
        let piece = || workers.name().to_owned();
        let answer = guard(piece, || workers.carry_out(bench, &job, cancel))?;
        self.answered(workers)?;
        match answer {
            JobAnswer::Long { retrained, weights } => Ok((retrained, weights)),
            JobAnswer::Short(_) => Err(other_answer(workers)),
        }
    }

    /// The long retrains.
    pub(super) fn finals(
        &self,
        weights: &Weights,
        searched: &Searched,
        full_precision: &FullPrecision,
        ahead: Option<&Ahead<'_>>,
    ) -> Result<Finished, ReleqError> {
        if let Some(ahead) = ahead {
            ahead.close();
        }
        let finals = Finals {
            network: self.network,
            config: self.config,
            problem: &searched.problem,
            uniform: &self.uniform,
            report_costs: &self.pieces.report_costs,
            before: Seeds::from(Ok([
                full_precision.validation.clone(),
                full_precision.test.clone(),
            ])),
            sensitivities: searched.sensitivities.as_ref(),
            on_event: self.on_event,
            clock: &self.clock,
            kept: self.kept.as_ref(),
            at_once: &|| match self.workers(weights) {
                Some((workers, _)) => workers.width().max(1),
                None => self.config.threads.get(),
            },
            repeats: self.config.correction.is_some()
                && matches!(self.config.evaluator, Choice::Ours(_))
                && self.images.search_validation.len() == self.images.validation.len(),
            is_there: &|bits| ahead.is_some_and(|ahead| ahead.has(bits)),
        };
        let (found, comparisons) = (&searched.found, &searched.comparisons);
        if let Some(workers) = self.workers(weights) {
            let long = |bits: &BitwidthAssignment, again, weights| {
                let ahead = ahead.filter(|_| again == 0).and_then(|ahead| ahead.take(bits));
                match ahead {
                    Some(answer) => Ok(answer),
                    None => self.retrain_elsewhere(workers, (bits, again, weights), self.cancel),
                }
            };
            return finals.run(&long, found, comparisons);
        }
        let mut long = retrains::long(self.config, self.setup(weights));
        long = long.on_step(self.telling(|| Stage::Final));
        if let Some(kept) = &self.kept {
            long = long.keep_states(kept.states(LONG));
        }
        let Images { validation, test, .. } = &self.images;
        let sets = [validation as &dyn Dataset, test];
        let long =
            |bits: &BitwidthAssignment, again, keep| retrain_long(&long, bits, again, sets, keep);
        finals.run(&long, found, comparisons)
    }

    /// Who carries out the retrains, if it is not this process, and where.
    pub(super) fn workers(&self, weights: &Weights) -> Option<(&dyn Workers, &Arc<Bench>)> {
        let (workers, fingerprints) =
            self.own.workers.as_deref().zip(self.fingerprints.as_ref())?;
        let bench = self.bench.get_or_init(|| {
            let images = (self.images.clone(), fingerprints.clone());
            let pieces = self.pieces.clone();
            Arc::new(Bench::of_run((self.network, self.config), images, pieces, weights.clone()))
        });
        Some((workers, bench))
    }

    /// Takes down which kinds of machines have answered, before any of their answers is on record.
    pub(super) fn answered(&self, workers: &dyn Workers) -> Result<(), ReleqError> {
        let named = guard(|| workers.name().to_owned(), || Ok(workers.other_machines()))?;
        let mut known = self.other_machines.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in named {
            if known.contains(&kind) {
                continue;
            }
            if let Some(kept) = &self.kept {
                kept.record_stage(&StageRecord::OtherMachine { kind: kind.clone() })?;
            }
            known.insert(kind);
        }
        Ok(())
    }

    pub(super) fn report(
        &self,
        weights: &Weights,
        searched: Searched,
        full_precision: &FullPrecision,
        finished: Finished,
        times: BTreeMap<String, f64>,
    ) -> Result<Report, ReleqError> {
        let Searched { found, comparisons, sensitivities, failed, .. } = searched;
        let Finished { rows, reference, answer, rounded, cancelled, error } = finished;
        // An evaluator may stop a search of its own accord; then, too, the run has not come to its end.
        let cancelled = cancelled || found.stop == StopReason::Cancelled;
        let error = failed.or(error);
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
            unlabelled: self.images.unlabelled.is_some(),
            normalization: Some(self.images.normalization.clone()),
            full_precision_validation: full_precision.validation.report().accuracy(),
            full_precision_test: full_precision.test.report().accuracy(),
            reference: (!rows.is_empty()).then_some(reference),
            sensitivities,
            layers: self.layers(weights, chosen.as_ref())?,
            answer,
            rounded,
            chosen,
            search: found,
            comparisons,
            cancelled,
            error,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::this(),
            other_machines: self
                .other_machines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
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
    pub(super) fn telling<'s>(
        &'s self,
        stage: impl Fn() -> Stage + Send + Sync + 's,
    ) -> impl Fn(&BitwidthAssignment, TrainProgress) + Send + Sync + 's {
        move |bits, TrainProgress { step, steps, .. }| {
            let (stage, bits) = (stage(), bits.clone());
            (self.on_event)(&Event::RetrainStep { stage, bits, step, steps });
        }
    }

    pub(super) fn setup<'s>(&'s self, weights: &'s Weights) -> RetrainSetup<'s> {
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
}

pub(super) fn problem(
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
    if !config.activation_actions.is_empty() {
        builder = builder.activation_actions(config.activation_actions.iter().copied());
    }
    for (layer, bits) in &config.fixed_layers {
        builder = builder.fix_layer(layer, *bits);
    }
    for limit in &pieces.limits {
        builder = builder.limit(limit.clone());
    }
    builder.build()
}

/// Refuses weights that are not those of the network, or no numbers.
fn check_trained(weights: &Weights, network: &Network) -> Result<(), String> {
    weights.check(network).map_err(|error| error.to_string())?;
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    match weights.0.iter().find(|(_, parameter)| !finite(&parameter.values)) {
        Some((name, _)) => Err(format!("parameter `{name}` is not finite")),
        None => Ok(()),
    }
}

/// Refuses cost models that have no price of the rows that are known beforehand, rather than leave gaps in a report after
/// hours. Bitwidths that one does not cover are no such gap.
fn check_report_costs(
    network: &Network,
    config: &ExperimentConfig,
    pieces: &Pieces,
    uniform: &[Bitwidth],
) -> Result<(), ReleqError> {
    let layers = network.profiles();
    let beside = finals::beside(network, config, uniform)?.into_iter().map(|(_, bits)| bits);
    let mut rows: Vec<BitwidthAssignment> = beside.collect();
    rows.push(finals::uniform(network, config, Bitwidth::EIGHT)?);
    for (model, bits) in pieces.report_costs.iter().flat_map(|m| rows.iter().map(move |b| (m, b))) {
        match row_cost(model, &layers, bits) {
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
    let profiles = network.profiles();
    let rounded: BTreeSet<&str> = profiles
        .iter()
        .filter(|layer| layer.kind == LayerKind::Activations)
        .map(|layer| layer.name.as_str())
        .collect();
    let fits = |layer: &str, bits: &Bitwidth| match rounded.contains(layer) {
        true if bits.is_float() || *bits <= Bitwidth::EIGHT => Ok(()),
        true => Err(ReleqError::from(QuantError::ActivationBits { bits: *bits })),
        false => supported(bits),
    };
    if let Some(layer) = rounded.first() {
        config.activation_choices().iter().try_for_each(|bits| fits(layer, bits))?;
    }
    config.fixed_layers.iter().try_for_each(|(layer, bits)| fits(layer, bits))?;
    let layers = profiles.len();
    for (label, bits) in &config.beside {
        let bits = finals::with_activations(network, config, bits)?;
        if bits.len() != layers {
            let count = bits.len();
            let reason =
                format!("`{label}` has {count} bitwidths, the network has {layers} layers");
            return Err(ReleqError::Setting { setting: "beside", reason });
        }
        for (layer, bits) in profiles.iter().zip(bits.iter()) {
            fits(&layer.name, bits)?;
        }
    }
    Ok(())
}
