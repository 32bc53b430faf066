//! The whole path: pretrain, search, compare, retrain for long, report.

mod activations;
mod agent_kind;
mod ahead;
mod bench;
mod choice;
mod config;
mod finals;
mod images;
mod lead;
mod named;
mod pieces;
mod preset;
mod probe;
mod retrains;
mod rivals;
mod searches;
mod seeds;
mod stages;
mod walk;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

pub use agent_kind::{AgentKind, AgentShape, PlannedPpo};
pub use bench::{Bench, JobRunner};
pub use choice::Choice;
pub use config::{
    DataConfig, EvaluatorKind, ExperimentConfig, HeldOut, NetworkConfig, Signal, WeightsConfig,
};
use named::{Named, named_data};
use pieces::{GIVEN, OwnPieces};
pub use probe::RateProbe;
use releq_agent::Agent;
use releq_core::{CostModel, Network, Weights};
use releq_data::{Dataset, Splits};
use releq_hw::CostLimit;
use releq_quant::Quantizer;
use releq_reward::Reward;
use releq_train::TrainerFactory;
use stages::Run;

use crate::{
    Cancel, Event, ReleqError, Report, RunFolder,
    evaluate::{Evaluator, RetrainSetup},
    guard::guard,
    jobs::Workers,
    run_folder::Clock,
};

/// What a panic is put down to that no piece is to blame for.
const EXPERIMENT: &str = "the experiment";

/// A network and its data, ready to run.
///
/// Every piece is named by the [configuration](ExperimentConfig), and every piece may be the user's own: the
/// methods below replace one each, and leave the piece's name in the configuration.
///
/// ```
/// use releq::{Budget, Cancel, Experiment, ExperimentConfig};
/// use releq::{data::digits::{self, DigitsConfig}, reward::reward_fn, train::Length, zoo::lenet};
///
/// // Far too little of everything, so that this example takes a second.
/// let drawn = DigitsConfig { train: 500, test: 100, ..DigitsConfig::default() };
/// let mut config = ExperimentConfig::lenet(1);
/// (config.validation, config.search_validation) = (100, 100);
/// config.pretrain.length = Length::Epochs(1.0);
/// config.short_retrain.length = Length::Steps(4);
/// config.long_retrain.length = Length::Epochs(1.0);
/// config.budget = Budget { evaluations: Some(8), ..Budget::default() };
///
/// let report = Experiment::new(lenet(), digits::generate(&drawn)?, config)
///     .reward(reward_fn("accuracy alone", |acc_state, _| acc_state))
///     .run(&Cancel::new(), &|event| eprintln!("{event}"))?;
/// let answer = report.answer.as_ref().ok_or("no long retrain came to its end")?;
/// println!("{} bits: {:?}", answer.bits, report.chosen_row());
/// # assert!(report.failed().is_none() && report.search.evaluations <= 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Experiment {
    network: Network,
    config: ExperimentConfig,
    own: OwnPieces,
}

impl fmt::Debug for Experiment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Experiment")
            .field("network", &self.network.name())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Experiment {
    /// An experiment with `network` on `data`. Where the configuration names the data set that `data` was read
    /// from, that stays, so that the run can be repeated from it; otherwise the data is the caller's own.
    #[must_use]
    pub fn new<D: Dataset + 'static>(
        network: Network,
        data: Splits<D>,
        mut config: ExperimentConfig,
    ) -> Self {
        config.network = Some(NetworkConfig::from(&network));
        let mut own = OwnPieces::default();
        let name = match &config.data {
            Some(Choice::Own(name)) => name.clone(),
            _ => GIVEN.to_owned(),
        };
        own.data.insert(name.clone(), named_data(data));
        config.data.get_or_insert(Choice::Own(name));
        Self { network, config, own }
    }

    /// The experiment that a configuration describes, as that of a report; network and data must be in it.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] for a configuration without a network.
    pub fn from_config(config: ExperimentConfig) -> Result<Self, ReleqError> {
        let Some(network) = &config.network else {
            let reason = "names no network".into();
            return Err(ReleqError::Setting { setting: "network", reason });
        };
        let network = network.build()?;
        let own = OwnPieces::default();
        Ok(Self { network, config, own })
    }

    /// The configuration as it stands.
    #[must_use]
    pub const fn config(&self) -> &ExperimentConfig {
        &self.config
    }

    /// Replaces the data sets, under a name of the caller's.
    #[must_use]
    pub fn data<D: Dataset + 'static>(mut self, name: &str, data: Splits<D>) -> Self {
        self.own.data.insert(name.to_owned(), named_data(data));
        self.config.data = Some(Choice::Own(name.to_owned()));
        self
    }

    /// Replaces the reward.
    #[must_use]
    pub fn reward(mut self, reward: impl Reward + 'static) -> Self {
        let name = reward.name().to_owned();
        let reward = Named::new("reward", &name, reward);
        self.own.rewards.insert(name.clone(), Arc::new(reward));
        self.config.reward = Some(Choice::Own(name));
        self
    }

    /// Replaces the quantizer.
    #[must_use]
    pub fn quantizer(mut self, quantizer: impl Quantizer + 'static) -> Self {
        let name = quantizer.name().to_owned();
        let quantizer = Named::new("quantizer", &name, quantizer);
        self.own.quantizers.insert(name.clone(), Arc::new(quantizer));
        self.config.quantizer = Choice::Own(name);
        self
    }

    /// Replaces the cost that the search makes low.
    #[must_use]
    pub fn cost(mut self, cost: impl CostModel + 'static) -> Self {
        let name = cost.name().to_owned();
        let cost = Named::new("cost model", &name, cost);
        self.own.cost = BTreeMap::from([(name.clone(), Arc::new(cost) as Arc<dyn CostModel>)]);
        self.config.cost = Choice::Own(name);
        self
    }

    /// Adds a limit that no answer may exceed.
    #[must_use]
    pub fn limit(mut self, limit: CostLimit) -> Self {
        let name = limit.to_string();
        if self.own.limits.insert(name.clone(), limit).is_some() {
            self.own.twice.get_or_insert(("limits", name.clone()));
        }
        self.config.limits.push(Choice::Own(name));
        self
    }

    /// Adds a cost to every row of the report.
    #[must_use]
    pub fn report_cost(mut self, cost: impl CostModel + 'static) -> Self {
        let name = cost.name().to_owned();
        let cost = Named::new("cost model", &name, cost);
        if self.own.report_costs.insert(name.clone(), Arc::new(cost)).is_some() {
            self.own.twice.get_or_insert(("report_costs", name.clone()));
        }
        self.config.report_costs.push(Choice::Own(name));
        self
    }

    /// Replaces the agent by what `make` gives for the shape of the search.
    #[must_use]
    pub fn agent(
        mut self,
        name: &str,
        make: impl Fn(&AgentShape) -> Result<Box<dyn Agent>, ReleqError> + Send + Sync + 'static,
    ) -> Self {
        self.own.agents.insert(name.to_owned(), Box::new(make));
        self.config.agent = Choice::Own(name.to_owned());
        self
    }

    /// Replaces what measures assignments during the search. The long retrains at the end are still trained.
    #[must_use]
    pub fn evaluator(
        mut self,
        name: &str,
        make: impl for<'a> Fn(&RetrainSetup<'a>) -> Result<Box<dyn Evaluator + 'a>, ReleqError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.own.evaluators.insert(name.to_owned(), Box::new(make));
        self.config.evaluator = Choice::Own(name.to_owned());
        self
    }

    /// Lets these workers carry out the retrains, those of the search and the long ones at the end. Nothing else of the run
    /// changes: the report is the same, and a run in a folder can go on with other workers or with none. Data, quantizer and
    /// trainer must be pieces that workers have, named by the configuration.
    #[must_use]
    pub fn workers(mut self, workers: impl Workers + 'static) -> Self {
        self.own.workers = Some(Box::new(workers));
        self
    }

    /// Replaces what trains, in all stages.
    #[must_use]
    pub fn trainer(mut self, name: &str, trainers: impl TrainerFactory + 'static) -> Self {
        let trainers = Named::new("trainer", name, trainers);
        self.own.trainers.insert(name.to_owned(), Arc::new(trainers));
        self.config.trainer = Choice::Own(name.to_owned());
        self
    }

    /// Starts from these full-precision weights instead of training some, or
    /// [fine-tunes](ExperimentConfig::fine_tune) them first. Where the configuration names the file that they
    /// were read from, that stays.
    #[must_use]
    pub fn weights(mut self, weights: Weights) -> Self {
        let name = match &self.config.weights {
            Some(Choice::Own(name)) => name.clone(),
            _ => GIVEN.to_owned(),
        };
        self.own.weights.insert(name.clone(), weights);
        self.config.weights.get_or_insert(Choice::Own(name));
        self
    }

    /// Only the first part of [`run`](Self::run): full-precision training, or fine-tuning.
    ///
    /// # Errors
    /// [`ReleqError::Cancelled`], or another [`ReleqError`] if the inputs do not fit together.
    pub fn pretrain(
        self,
        cancel: &Cancel,
        on_event: &(dyn Fn(&Event) + Sync),
    ) -> Result<Weights, ReleqError> {
        let Self { network, config, own } = &self;
        let listener = Listener::new(on_event);
        let on_event = |event: &Event| listener.tell(event);
        guard(
            || EXPERIMENT.to_owned(),
            || Run::new(network, config, own, None, cancel, &on_event)?.pretrain(),
        )
    }

    /// Runs everything; `cancel` may be set from anywhere, as from a Ctrl-C handler.
    ///
    /// Once the search has begun, a run that is cancelled, or in which a piece fails, gives a report of what
    /// it has. A piece of the user's own that panics is named, and so is an `on_event` that does; without it the run goes on.
    ///
    /// # Errors
    /// [`ReleqError::Cancelled`] if cancelled before the search, or any other [`ReleqError`] if the
    /// inputs do not fit together.
    pub fn run(
        self,
        cancel: &Cancel,
        on_event: &(dyn Fn(&Event) + Sync),
    ) -> Result<Report, ReleqError> {
        self.run_stages(None, cancel, on_event)
    }

    /// As [`run`](Self::run), in a [`RunFolder`]: keeps what it measures and where it is, and goes on from there. A
    /// run that was stopped or killed at any moment ends with the same report, except for times; one that has
    /// come to its end gives its report at once. The folder then has the retrained weights of the answer, too.
    ///
    /// A report that cannot be written is returned with [`Report::error`] set.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`ReleqError::RunFolder`] if the folder belongs to a run with other settings,
    /// data or weights, or something in it is damaged.
    pub fn run_in(
        self,
        folder: &RunFolder,
        cancel: &Cancel,
        on_event: &(dyn Fn(&Event) + Sync),
    ) -> Result<Report, ReleqError> {
        self.config.check()?;
        if let Some(report) = folder.finished(&self.config)? {
            return Ok(report);
        }
        self.run_stages(Some(folder), cancel, on_event)
    }

    fn run_stages(
        &self,
        folder: Option<&RunFolder>,
        cancel: &Cancel,
        on_event: &(dyn Fn(&Event) + Sync),
    ) -> Result<Report, ReleqError> {
        // Stages guard their pieces where they have something to lose; nobody's panic is to leave a run.
        guard(|| EXPERIMENT.to_owned(), || self.stages(folder, cancel, &Listener::new(on_event)))
    }

    fn stages(
        &self,
        folder: Option<&RunFolder>,
        cancel: &Cancel,
        listener: &Listener<'_>,
    ) -> Result<Report, ReleqError> {
        let Self { network, config, own } = self;
        let on_event = |event: &Event| listener.tell(event);
        let run = Run::new(network, config, own, folder, cancel, &on_event)?;
        let mut laps = Laps::new(run.clock());
        let weights = run.pretrain()?;
        laps.lap("pretrain");
        let full_precision = run.full_precision(&weights)?;
        let (searched, mut finals) = run.with_ahead(&weights, |ahead| {
            let sensitivities = run.sensitivities(&weights)?;
            laps.lap("sensitivities");
            let searched = run.search(&weights, &full_precision, sensitivities, &mut laps)?;
            let finals = run.finals(&weights, &searched, &full_precision, ahead)?;
            laps.lap("final");
            Ok((searched, finals))
        })?;
        run.round_activations(&mut finals);
        laps.lap("activations");
        finals.error = finals.error.or_else(|| listener.failed());
        run.report(&weights, searched, &full_precision, finals, laps.times)
    }
}

/// Whoever is told of events. One that panics is told no more, and the run goes on: hours of work are worth more.
struct Listener<'a> {
    on_event: &'a (dyn Fn(&Event) + Sync),
    failed: OnceLock<String>,
}

impl<'a> Listener<'a> {
    fn new(on_event: &'a (dyn Fn(&Event) + Sync)) -> Self {
        Self { on_event, failed: OnceLock::new() }
    }

    fn tell(&self, event: &Event) {
        if self.failed.get().is_some() {
            return;
        }
        let told = guard(
            || "`on_event`".to_owned(),
            || {
                (self.on_event)(event);
                Ok(())
            },
        );
        if let Err(error) = told {
            let error = self.failed.get_or_init(|| error.chain());
            log::warn!("{error}; the run goes on without it");
        }
    }

    fn failed(&self) -> Option<String> {
        self.failed.get().cloned()
    }
}

/// Working seconds of the stages.
struct Laps {
    clock: Clock,
    last: Duration,
    times: BTreeMap<String, f64>,
}

impl Laps {
    fn new(clock: &Clock) -> Self {
        // The first stage has read the data.
        Self { clock: clock.clone(), last: Duration::ZERO, times: BTreeMap::new() }
    }

    fn lap(&mut self, stage: &str) {
        let now = self.clock.elapsed();
        let seconds = now.saturating_sub(self.last).as_secs_f64();
        self.times.insert(stage.to_owned(), seconds);
        self.last = now;
    }
}
