//! The stages of an experiment, one method each.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use releq_agent::{Agent, GreedySearch, RandomSearch};
use releq_core::{Bitwidth, BitwidthAssignment, Network, Weights};
use releq_data::{Dataset, Normalization, Subset};
use releq_hw::Machine;
use releq_quant::{QuantError, Quantizer};
use releq_train::{
    Schedule, StateSaver, TrainError, Trainer, Training, TrainingState, initial_weights,
    training_origin,
};

use super::{
    AgentKind, AgentShape, Choice, Clock, ExperimentConfig, HeldOut,
    finals::{Finals, Finished, FullPrecision},
    pieces::{AnySplits, OwnPieces, Pieces, TOGETHER},
};
use crate::{
    Budget, Cancel, Event, LayerRow, Problem, ReleqError, Report, Search, SearchOutcome, Stage,
    StopReason,
    evaluate::{Cached, Evaluator, Retrain, RetrainSetup, classify},
};

/// The data of an experiment, split and normalized once.
struct Images {
    train: Subset,
    validation: Subset,
    search_validation: Subset,
    test: Subset,
    normalization: Normalization,
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
}

/// What the searches found, and the problem that they searched.
pub(super) struct Searched {
    problem: Problem,
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
        cancel: &'a Cancel,
        on_event: &'a (dyn Fn(&Event) + Sync),
    ) -> Result<Self, ReleqError> {
        config.check()?;
        let pieces = Pieces::new(config, own)?;
        check_bits(network, config, &pieces.quantizer)?;
        let problem = problem(network, config, &pieces, None)?;
        own.agent(config, &shape(&problem, config))?;
        let images = split(own.data(config)?, config)?;
        for (setting, schedule, _) in config.schedules().filter(|&(.., used)| used) {
            schedule
                .check_images(&images.train)
                .map_err(|error| ReleqError::Setting { setting, reason: error.to_string() })?;
        }
        Ok(Self { network, config, own, cancel, on_event, pieces, images })
    }

    /// Full-precision weights: those given, as they are or fine-tuned, else trained from the seed. The state of a
    /// training is kept in the file `state`.
    pub(super) fn pretrain(&self, state: Option<&Path>) -> Result<Weights, ReleqError> {
        let Self { network, config, .. } = *self;
        let given = self.own.weights(config, network)?;
        let (start, schedule) = match (given, config.fine_tune) {
            (Some(weights), None) => return Ok(weights),
            (Some(weights), Some(schedule)) => (weights, schedule),
            (None, _) => (initial_weights(network, config.seed), config.pretrain),
        };
        let mut trainer = self.trainer(&start)?;
        let mut training = self.training(&schedule, &start, trainer.as_mut(), state)?;
        let mut saver = state.map(|path| StateSaver::new(path, StateSaver::EVERY));
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
        let saved = saver.as_mut().map_or(Ok(()), |s| s.now(&training, trainer.as_ref()));
        if self.cancel.is_cancelled() {
            saved?;
            return Err(ReleqError::Cancelled);
        }
        if let Err(error) = saved {
            log::warn!("the state of the finished training is not saved: {error}");
        }
        Ok(trainer.weights())
    }

    /// The training in full precision, before its first step or where the state in the file left it.
    fn training(
        &self,
        schedule: &Schedule,
        start: &Weights,
        trainer: &mut dyn Trainer,
        state: Option<&Path>,
    ) -> Result<Training<'_>, ReleqError> {
        let Images { train, normalization, .. } = &self.images;
        let seed = self.config.seed;
        let Some(path) = state else {
            return Ok(Training::new(train, normalization, schedule, seed)?);
        };
        let origin = training_origin(train, start, &self.config.trainer.to_string())?;
        if !path.exists() {
            return Ok(Training::new(train, normalization, schedule, seed)?.origin(origin));
        }
        let state = TrainingState::load(path)?;
        state.run.check_settings(self.network.name(), schedule, seed)?;
        state.run.check_origin(&origin)?;
        Ok(Training::resume(train, normalization, &state, trainer)?)
    }

    /// Accuracy of the full-precision weights on the validation and the test images.
    pub(super) fn full_precision(&self, weights: &Weights) -> Result<FullPrecision, ReleqError> {
        let Images { validation, test, normalization, .. } = &self.images;
        let mut trainer = self.trainer(weights)?;
        let mut on = |images: &dyn Dataset| {
            classify(trainer.as_mut(), images, normalization, self.cancel)
                .map(|report| report.accuracy())
        };
        Ok(FullPrecision { validation: on(validation)?, test: on(test)? })
    }

    fn trainer(&self, weights: &Weights) -> Result<Box<dyn Trainer>, ReleqError> {
        let Pieces { trainers, quantizer, .. } = &self.pieces;
        let mut trainer = trainers.trainer(self.network, Arc::clone(quantizer))?;
        trainer.load(weights)?;
        Ok(trainer)
    }

    /// The agent's search, then those that it is compared with.
    pub(super) fn search(
        &self,
        weights: &Weights,
        clock: &mut Clock,
    ) -> Result<Searched, ReleqError> {
        let setup = self.setup(weights);
        let evaluator = Cached::new(self.evaluator(&setup)?);
        let problem = problem(self.network, self.config, &self.pieces, Some(weights))?;
        let shape = shape(&problem, self.config);
        let mut agent = self.own.agent(self.config, &shape)?;
        let search = |agent: &mut dyn Agent, budget, stage| {
            Search::new(&problem, agent, &evaluator, budget)
                .cancel(self.cancel)
                .on_event(stage, self.on_event)
                .run()
        };
        let found = search(agent.as_mut(), self.config.budget, Stage::Search)?;
        clock.lap("search");

        let mut comparisons = Vec::new();
        let over = matches!(found.stop, StopReason::Cancelled | StopReason::Failed);
        if self.config.compare && !over {
            let budget = Budget { evaluations: Some(found.evaluations), ..Budget::default() };
            let together = match &self.config.agent {
                Choice::Ours(AgentKind::Ppo(ppo)) => ppo.episodes_per_batch,
                _ => TOGETHER,
            };
            let mut random = RandomSearch::new(shape.action_count, self.config.seed, together);
            let mut layerwise = GreedySearch::new(shape.action_count, shape.episode_len);
            for agent in [&mut random as &mut dyn Agent, &mut layerwise] {
                comparisons.push(search(agent, budget, Stage::Comparison)?);
            }
        }
        clock.lap("comparisons");
        drop(evaluator);
        Ok(Searched { problem, found, comparisons })
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
            report_costs: &self.pieces.report_costs,
            validation: &self.images.validation,
            test: &self.images.test,
            full_precision,
            on_event: self.on_event,
        };
        let long = Retrain::unmeasured(self.setup(weights), self.config.long_retrain);
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
        let Searched { found, comparisons, .. } = searched;
        let Finished { rows, reference, answer, cancelled, error } = finished;
        let chosen = answer.as_ref().map(|answer| answer.bits.clone()).or_else(|| {
            let best = found.best_within(self.config.tolerance).or(found.best.as_ref());
            best.map(|scored| scored.bits.clone())
        });
        Ok(Report {
            config: self.config.clone(),
            data: self.images.source.clone(),
            images: [&self.images.train, &self.images.validation, &self.images.test]
                .map(Dataset::len),
            full_precision_validation: full_precision.validation,
            full_precision_test: full_precision.test,
            reference: (!rows.is_empty()).then_some(reference),
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
        })
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

    fn evaluator<'s>(
        &self,
        setup: &RetrainSetup<'s>,
    ) -> Result<Box<dyn Evaluator + 's>, ReleqError> {
        if let Some(make) = self.own.evaluator(self.config)? {
            return make(setup);
        }
        let retrain = Retrain::new(*setup, self.config.short_retrain)?;
        Ok(match self.config.early_stop {
            Some(early_stop) => Box::new(retrain.early_stop(early_stop)?),
            None => Box::new(retrain),
        })
    }
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

fn shape(problem: &Problem, config: &ExperimentConfig) -> AgentShape {
    AgentShape {
        observation_len: problem.observation_len(),
        action_count: problem.action_count(),
        episode_len: problem.episode_len(),
        seed: config.seed,
    }
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

fn split(data: AnySplits, config: &ExperimentConfig) -> Result<Images, ReleqError> {
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
    Ok(Images { train, validation, search_validation, test, normalization, source: data.source })
}
