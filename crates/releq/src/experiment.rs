//! The whole path: pretrain, search, compare, retrain for long, report.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use releq_agent::{Agent, GreedySearch, PpoConfig, RandomSearch};
use releq_core::{Bitwidth, BitwidthAssignment, Network, Weights};
use releq_data::{Augmentation, DataSet, ImageSet, Normalization};
use releq_hw::StateQuantization;
use releq_quant::{QuantError, QuantizerKind};
use releq_reward::{Reward, Shaped};
use releq_train::{Decay, Length, Schedule, Sgd, TrainError, initial_weights, train};

use serde::{Deserialize, Serialize};

use crate::{
    Budget, LayerRow, ReleqError, Report, Search, SearchOutcome, StopReason,
    evaluate::{Backend, Cached, EarlyStop, Retrain, RetrainSetup},
    finals::{Finals, RELEQ},
};

/// Part of an experiment that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Training in full precision, from the start or from given weights; counted in steps.
    Pretrain,
    /// The agent's search; counted in evaluations or episodes, whichever the budget limits.
    Search,
    /// Random search, then layer-by-layer search, each with at most as many evaluations.
    Comparison,
    /// The long retrains; counted in training runs.
    Final,
}

/// News from a running experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is running.
    pub stage: Stage,
    /// How much of it is done.
    pub done: usize,
    /// How much there is.
    pub total: usize,
    /// The latest figure, for a person.
    pub message: String,
}

/// Where the images come from that every choice is made on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldOut {
    /// From the training images.
    #[default]
    Training,
    /// From the test images; the report then counts the others. For weights that have seen every
    /// training image, as published ones have: those would flatter full precision.
    Test,
}

/// Settings of an [`Experiment`], all but its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// Evaluations that run side by side; the result does not depend on it.
    pub threads: NonZeroUsize,
    /// What computes gradients.
    pub backend: Backend,
    /// How weights are quantized.
    pub quantizer: QuantizerKind,
    /// Bitwidths to choose from.
    pub actions: Vec<Bitwidth>,
    /// Layers that are not searched, by name.
    pub fixed_layers: Vec<(String, Bitwidth)>,
    /// Form of State_Quantization.
    pub state_quantization: StateQuantization,
    /// Loss of validation accuracy, in 0 to 1, up to which an assignment counts as good.
    pub tolerance: f64,
    /// Images held out of training, for choices.
    pub validation: usize,
    /// Where they come from.
    pub held_out: HeldOut,
    /// How many of them a short retrain is measured on.
    pub search_validation: usize,
    /// How pixels become numbers; `None` measures it on the training images.
    pub normalization: Option<Normalization>,
    /// Full-precision training where no weights are given.
    pub pretrain: Schedule,
    /// Full-precision training of weights that are given; `None` takes them as they are.
    pub fine_tune: Option<Schedule>,
    /// Retraining of one assignment during the search.
    pub short_retrain: Schedule,
    /// Whether a short retrain may be given up.
    pub early_stop: Option<EarlyStop>,
    /// Retraining of the finalists.
    pub long_retrain: Schedule,
    /// The agent.
    pub agent: PpoConfig,
    /// When the search stops.
    pub budget: Budget,
    /// Whether random search and greedy layer-by-layer search run too, each with at most as many
    /// evaluations as the agent used.
    pub compare: bool,
    /// How many assignments of a search may get the long retrain, from the cheapest upwards, until one
    /// is within the tolerance.
    pub finalists: usize,
    /// Assignments that the report shows beside what was found, after the same long retrain: label and
    /// bitwidths. Uniform 8, 4, 3 and 2 bits are always there.
    pub beside: Vec<(String, BitwidthAssignment)>,
}

impl ExperimentConfig {
    /// Settings for LeNet on MNIST or on our own digits, chosen by our own measurements: a search
    /// takes minutes on two cores.
    ///
    /// The quantizer is our scaled WRPN, and the action set 2 to 8 bits.
    #[must_use]
    pub fn lenet(seed: u64) -> Self {
        let sgd = |learning_rate| Sgd { learning_rate, momentum: 0.9, weight_decay: 1e-4 };
        let schedule = |length, learning_rate| Schedule {
            decay: Decay::Cosine,
            ..Schedule::new(length, 64, sgd(learning_rate))
        };
        Self {
            seed,
            threads: NonZeroUsize::MIN,
            backend: Backend::Native,
            quantizer: QuantizerKind::WrpnScaled,
            actions: (2..=8).filter_map(|bits| Bitwidth::new(bits).ok()).collect(),
            fixed_layers: Vec::new(),
            state_quantization: StateQuantization::MeanBits,
            tolerance: 0.003,
            validation: 5000,
            held_out: HeldOut::Training,
            search_validation: 2000,
            normalization: None,
            pretrain: Schedule { warmup_steps: 50, ..schedule(Length::Epochs(4.0), 0.03) },
            fine_tune: None,
            short_retrain: schedule(Length::Steps(60), 0.01),
            early_stop: None,
            long_retrain: schedule(Length::Epochs(1.5), 0.02),
            agent: PpoConfig::quick(),
            budget: Budget { evaluations: Some(100), patience: Some(96), ..Budget::default() },
            compare: true,
            finalists: 6,
            beside: Vec::new(),
        }
    }

    /// Settings for a network of the zoo, one of [`releq_zoo::NAMES`]; `None` for another name.
    ///
    /// For `lenet` they are [`lenet`](Self::lenet)'s, with the normalization of published weights. For the
    /// others, what [`releq_zoo::preset`] knows of the authors' code: quantizer, normalization, which layers
    /// are searched (the rest has 8 bits), length, batch and learning rate of the retrains. Ours are the
    /// rest: the rate falls along a cosine,
    /// full-precision training runs for 30 epochs on images shifted by up to an eighth of their side (for
    /// CIFAR-10 also mirrored: He et al. 2015, section 4.2), every held-out image counts, and the search
    /// ends after 300 evaluations. Where there is a published assignment, it stands
    /// [`beside`](Self::beside) what is found.
    #[must_use]
    pub fn preset(name: &str, seed: u64) -> Option<Self> {
        let (preset, network) = releq_zoo::preset(name).zip(releq_zoo::by_name(name))?;
        let lenet = Self::lenet(seed);
        let published = preset.published.map(|published| ("published".to_owned(), published.bits));
        let beside = published.into_iter().collect();
        if name == "lenet" {
            return Some(Self { beside, normalization: Some(preset.normalization), ..lenet });
        }
        let cosine = |schedule| Schedule { decay: Decay::Cosine, ..schedule };
        let layers = network.profiles().into_iter().enumerate();
        let fixed = layers.filter(|(index, _)| !preset.searched.contains(index));
        let sgd = Sgd { learning_rate: 0.02, momentum: 0.9, weight_decay: 5e-4 };
        Some(Self {
            quantizer: preset.quantizer,
            fixed_layers: fixed.map(|(_, layer)| (layer.name, Bitwidth::EIGHT)).collect(),
            normalization: Some(preset.normalization),
            pretrain: Schedule {
                warmup_steps: 200,
                augmentation: Augmentation {
                    max_shift: network.input()[1] / 8,
                    mirror: preset.data != "SVHN",
                },
                ..cosine(Schedule::new(Length::Epochs(30.0), 64, sgd))
            },
            // Networks that err more often need more images for the same precision.
            search_validation: lenet.validation,
            short_retrain: cosine(preset.short_retrain),
            long_retrain: cosine(preset.long_retrain),
            budget: Budget { evaluations: Some(300), ..lenet.budget },
            beside,
            ..lenet
        })
    }
}

/// A network and its data, ready to run.
pub struct Experiment {
    network: Network,
    data: DataSet,
    config: ExperimentConfig,
    reward: Box<dyn Reward>,
    weights: Option<Weights>,
}

impl std::fmt::Debug for Experiment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Experiment")
            .field("network", &self.network.name())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The data of an experiment, split and normalized once.
struct Splits {
    train: ImageSet,
    validation: ImageSet,
    search_validation: ImageSet,
    test: ImageSet,
    normalization: Normalization,
}

impl Experiment {
    /// An experiment with the paper's reward and weights that are yet to be trained.
    #[must_use]
    pub fn new(network: Network, data: DataSet, config: ExperimentConfig) -> Self {
        Self { network, data, config, reward: Box::new(Shaped::default()), weights: None }
    }

    /// Replaces the reward.
    #[must_use]
    pub fn reward(mut self, reward: impl Reward + 'static) -> Self {
        self.reward = Box::new(reward);
        self
    }

    /// Starts from these full-precision weights instead of training some, or
    /// [fine-tunes](ExperimentConfig::fine_tune) them first.
    #[must_use]
    pub fn weights(mut self, weights: Weights) -> Self {
        self.weights = Some(weights);
        self
    }

    /// Only the first part of [`run`](Self::run): full-precision training, or fine-tuning.
    ///
    /// # Errors
    /// [`ReleqError::Cancelled`], or another [`ReleqError`] if the inputs do not fit together.
    pub fn pretrain(
        self,
        cancel: &AtomicBool,
        on_progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Weights, ReleqError> {
        let splits = split(self.data, &self.config)?;
        pretrain(&self.network, self.weights, &splits, &self.config, cancel, on_progress)
    }

    /// Runs everything; `cancel` may be set from anywhere, as from a Ctrl-C handler.
    ///
    /// Once the search has begun, a cancelled run gives a report of what it has.
    ///
    /// # Errors
    /// [`ReleqError::Cancelled`] if cancelled before the search, or any other [`ReleqError`] if the
    /// inputs do not fit together.
    pub fn run(
        self,
        cancel: &AtomicBool,
        on_progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Report, ReleqError> {
        let Self { network, data, config, reward, weights } = self;
        let mut clock = Clock { last: Instant::now(), times: BTreeMap::new() };
        if config.budget == Budget::default() {
            return Err(ReleqError::Setting {
                setting: "budget",
                reason: "limits nothing; set episodes, evaluations or wall time".into(),
            });
        }

        let reward_name = reward.name().to_owned();
        let search_of = |weights: Option<&Weights>, reward: Box<dyn Reward>| {
            let mut builder = Search::builder()
                .network(&network, weights)
                .actions(config.actions.iter().copied())
                .state_quantization(config.state_quantization)
                .reward(reward)
                .budget(config.budget)
                .threads(config.threads);
            for (layer, bits) in &config.fixed_layers {
                builder = builder.fix_layer(layer, *bits);
            }
            builder.build()
        };
        let quantizer = config.quantizer.build();
        let supported = |bits: Bitwidth| {
            if quantizer.supports(bits) {
                return Ok(());
            }
            Err(TrainError::from(QuantError::unsupported(&*quantizer, bits)))
        };
        for &bits in &config.actions {
            supported(bits)?;
        }
        // A wrong setting shows now, not after the pretraining or the search.
        for (setting, schedule) in [
            ("pretrain", Some(&config.pretrain)),
            ("fine_tune", config.fine_tune.as_ref()),
            ("short_retrain", Some(&config.short_retrain)),
            ("long_retrain", Some(&config.long_retrain)),
        ] {
            schedule.map_or(Ok(()), Schedule::check).map_err(|error| {
                let reason = error.to_string();
                ReleqError::Setting { setting, reason }
            })?;
        }
        config.early_stop.map_or(Ok(()), |stop| stop.check())?;
        search_of(None, Box::<Shaped>::default())?;
        let layers = network.quantizable_layers();
        for (label, bits) in &config.beside {
            if bits.len() != layers {
                let reason = format!(
                    "`{label}` has {} bitwidths, the network has {layers} layers",
                    bits.len()
                );
                return Err(ReleqError::Setting { setting: "beside", reason });
            }
            for &bits in bits.iter() {
                supported(bits)?;
            }
        }

        let source = data.source.clone();
        let splits = split(data, &config)?;
        let weights = pretrain(&network, weights, &splits, &config, cancel, on_progress)?;
        clock.lap("pretrain");

        let setup = RetrainSetup {
            network: &network,
            weights: &weights,
            train: &splits.train,
            validation: &splits.search_validation,
            normalization: &splits.normalization,
            quantizer: &quantizer,
            backend: config.backend,
            seed: config.seed,
            cancel: Some(cancel),
        };
        let mut short = Retrain::new(setup, config.short_retrain)?;
        if let Some(early_stop) = config.early_stop {
            short = short.early_stop(early_stop)?;
        }
        let evaluator = Cached::new(short);
        let full_validation = evaluator.inner().full_precision_on(&splits.validation)?.accuracy();
        let full_test = evaluator.inner().full_precision_on(&splits.test)?.accuracy();

        let mut search = search_of(Some(&weights), reward)?;
        let inputs = (search.observation_len(), search.action_count());
        let mut agent = config.agent.clone().init(inputs.0, inputs.1, config.seed)?;
        let found = run_search(&search, &mut agent, &evaluator, Stage::Search, on_progress)?;
        clock.lap("search");

        let mut comparisons = Vec::new();
        if config.compare && found.stop != StopReason::Cancelled {
            search.set_budget(Budget { evaluations: Some(found.evaluations), ..Budget::default() });
            let together = config.agent.episodes_per_batch;
            let mut random = RandomSearch::new(inputs.1, config.seed, together);
            let mut layerwise = GreedySearch::new(inputs.1, search.episode_len());
            for agent in [&mut random as &mut dyn Agent, &mut layerwise] {
                let outcome =
                    run_search(&search, agent, &evaluator, Stage::Comparison, on_progress)?;
                comparisons.push(outcome);
            }
        }
        clock.lap("comparisons");

        // The trainers of the search make room for those of the long retrains.
        drop(evaluator);
        let finals = Finals {
            network: &network,
            config: &config,
            search: &search,
            validation: &splits.validation,
            test: &splits.test,
            full_validation,
            full_test,
        };
        let long = Retrain::new(setup, config.long_retrain)?;
        let rows = match finals.run(&long, &found, &comparisons, on_progress) {
            Err(ReleqError::Cancelled) => None,
            other => Some(other?),
        };
        clock.lap("final");

        let chosen = match &rows {
            Some(rows) => rows.iter().find(|row| row.label == RELEQ).map(|row| row.bits.clone()),
            None => {
                let best = found.best_within(config.tolerance).or(found.best.as_ref());
                best.map(|scored| scored.bits.clone())
            }
        };
        let deviations = weights.weight_stds(&network).map_err(TrainError::from)?;
        let layers = network
            .profiles()
            .iter()
            .enumerate()
            .map(|(index, layer)| LayerRow {
                name: layer.name.clone(),
                weights: layer.weights(),
                macs: layer.macs(),
                weight_std: f64::from(deviations[index]),
                bits: chosen.as_ref().map(|bits| bits[index]),
            })
            .collect();
        Ok(Report {
            network: network.name().to_owned(),
            data: source,
            seed: config.seed,
            quantizer: config.quantizer,
            reward: reward_name,
            state_quantization: config.state_quantization.to_string(),
            tolerance: config.tolerance,
            images: [splits.train.len(), splits.validation.len(), splits.test.len()],
            full_precision_validation: full_validation,
            full_precision_test: full_test,
            layers,
            chosen,
            search: found,
            comparisons,
            cancelled: rows.is_none(),
            rows: rows.unwrap_or_default(),
            times: clock.times,
        })
    }
}

/// Wall seconds of the stages.
struct Clock {
    last: Instant,
    times: BTreeMap<String, f64>,
}

impl Clock {
    fn lap(&mut self, stage: &str) {
        self.times.insert(stage.to_owned(), self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
    }
}

fn split(data: DataSet, config: &ExperimentConfig) -> Result<Splits, ReleqError> {
    let DataSet { train, test, .. } = data;
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
    let search_validation = validation.take(config.search_validation, config.seed);
    let normalization =
        config.normalization.clone().unwrap_or_else(|| Normalization::measured(&train));
    Ok(Splits { train, validation, search_validation, test, normalization })
}

/// Full-precision weights: `given` as they are or fine-tuned, else trained from the seed.
fn pretrain(
    network: &Network,
    given: Option<Weights>,
    splits: &Splits,
    config: &ExperimentConfig,
    cancel: &AtomicBool,
    on_progress: &(dyn Fn(Progress) + Sync),
) -> Result<Weights, ReleqError> {
    let (start, schedule) = match (given, config.fine_tune) {
        (Some(weights), None) => return Ok(weights),
        (Some(weights), Some(schedule)) => (weights, schedule),
        (None, _) => (initial_weights(network, config.seed), config.pretrain),
    };
    let mut trainer = config.backend.trainer(network, config.quantizer.build())?;
    trainer.load(&start)?;
    train(
        trainer.as_mut(),
        &splits.train,
        &splits.normalization,
        &schedule,
        config.seed,
        &mut |progress| {
            on_progress(Progress {
                stage: Stage::Pretrain,
                done: progress.step,
                total: progress.steps,
                message: format!("loss {:.4}", progress.loss),
            });
            if cancel.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    )?;
    if cancel.load(Ordering::Relaxed) { Err(ReleqError::Cancelled) } else { Ok(trainer.state()) }
}

fn run_search(
    search: &Search,
    agent: &mut dyn Agent,
    evaluator: &Cached<Retrain<'_>>,
    stage: Stage,
    on_progress: &(dyn Fn(Progress) + Sync),
) -> Result<SearchOutcome, ReleqError> {
    let budget = search.budget();
    search.run(agent, evaluator, &mut |news| {
        let (done, total) = match (budget.evaluations, budget.episodes) {
            (Some(limit), _) => (news.evaluations, limit),
            (None, Some(limit)) => (news.episodes, limit),
            (None, None) => (news.episodes, 0),
        };
        let message = news.best.map_or_else(String::new, |best| {
            format!("best {} at {:.2} %", best.bits, 100.0 * best.accuracy)
        });
        on_progress(Progress { stage, done, total, message });
        ControlFlow::Continue(())
    })
}
