//! Settings of an experiment, as plain data.

use std::{collections::BTreeSet, fmt, num::NonZeroUsize, path::PathBuf};

use releq_core::{Bitwidth, BitwidthAssignment, Network, Op, Weights, text_enum};
use releq_data::{
    DataKind, ImageFolderConfig, Normalization, Splits,
    digits::{self, DigitsConfig},
};
use releq_format::{Checkpoint, CheckpointError, NameMap, onnx};
use releq_hw::{CostKind, LimitConfig, ModelSize, ScaleStorage, Stripes};
use releq_quant::QuantizerKind;
use releq_reward::{Exchange, RewardKind};
use releq_train::{Backend, Correction, Decay, Length, Schedule, Sgd};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{AgentKind, Choice, PlannedPpo, finals::is_reserved};
use crate::{Budget, Planning, ReleqError, evaluate::EarlyStop};

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

/// What a search judges a retrained assignment by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Signal {
    /// The images that it classifies correctly, as in the paper.
    #[default]
    Accuracy,
    /// The divergence of its outputs from those in full precision ([`ByDivergence`](crate::evaluate::ByDivergence)). It
    /// needs [sensitivities](ExperimentConfig::sensitivity_images), which tell what a divergence costs; where there are
    /// none, or they do not tell, it is the accuracy.
    Divergence,
}

text_enum!(Signal, "signal", Accuracy => "accuracy", Divergence => "divergence");

/// The evaluators of an experiment, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum EvaluatorKind {
    /// [`Retrain`](crate::evaluate::Retrain) by the short schedule, or by [correction](ExperimentConfig::correction).
    #[default]
    Retrain,
}

text_enum!(EvaluatorKind, "evaluator", Retrain => "retrain");

/// A network in a configuration: one of `releq-zoo` by its name, or any other with all of its layers.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkConfig {
    /// A network of [`releq_zoo::NAMES`].
    Zoo(String),
    /// The network itself.
    Layers(Box<Network>),
}

impl NetworkConfig {
    /// The network.
    ///
    /// # Errors
    /// [`ReleqError::Name`] for a name that the zoo lacks.
    pub fn build(&self) -> Result<Network, ReleqError> {
        match self {
            Self::Layers(network) => Ok((**network).clone()),
            Self::Zoo(name) => Ok(releq_zoo::by_name(name)?),
        }
    }
}

impl From<&Network> for NetworkConfig {
    fn from(network: &Network) -> Self {
        match releq_zoo::by_name(network.name()) {
            Ok(known) if known == *network => Self::Zoo(network.name().to_owned()),
            _ => Self::Layers(Box::new(network.clone())),
        }
    }
}

impl Serialize for NetworkConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Zoo(name) => name.serialize(serializer),
            Self::Layers(network) => network.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NetworkConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrLayers;

        impl<'de> Visitor<'de> for NameOrLayers {
            type Value = NetworkConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a network, or a network")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<NetworkConfig, E> {
                let network = NetworkConfig::Zoo(name.to_owned());
                network.build().map_err(E::custom)?;
                Ok(network)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NetworkConfig, A::Error> {
                let network = Network::deserialize(MapAccessDeserializer::new(map))?;
                Ok(NetworkConfig::Layers(Box::new(network)))
            }
        }

        deserializer.deserialize_any(NameOrLayers)
    }
}

/// A data set in a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum DataConfig {
    /// Digits drawn from a seed.
    Digits(DigitsConfig),
    /// What a folder contains.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Which data set, where the folder contains several.
        #[serde(default)]
        kind: Option<DataKind>,
        /// How image folders are read.
        #[serde(default)]
        images: ImageFolderConfig,
    },
}

impl DataConfig {
    /// Reads or draws the images.
    ///
    /// # Errors
    /// [`ReleqError::Data`] if that cannot be done.
    pub fn load(&self) -> Result<Splits, ReleqError> {
        Ok(match self {
            Self::Digits(config) => digits::generate(config)?,
            Self::Folder { path, kind, images } => releq_data::open(path, *kind, images)?,
        })
    }

    /// Names of the classes, by number, as [`class_names`](releq_data::class_names) gives them.
    ///
    /// # Errors
    /// [`ReleqError::Data`] if they cannot be read.
    pub fn class_names(&self) -> Result<Vec<String>, ReleqError> {
        Ok(match self {
            Self::Digits(_) => (0..10).map(|digit: u8| digit.to_string()).collect(),
            Self::Folder { path, kind, images } => releq_data::class_names(path, *kind, images)?,
        })
    }
}

/// Weights to start from, in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum WeightsConfig {
    /// A checkpoint, safetensors or one of PyTorch's formats; or the ONNX model that the network is from.
    File(PathBuf),
    /// A part of a checkpoint.
    Part {
        /// The checkpoint.
        path: PathBuf,
        /// Key under which the weights are; where there is none, it is found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Layers that the network lacks and that are passed over.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ignore: Vec<String>,
    },
}

impl WeightsConfig {
    /// Reads the weights of `network`.
    ///
    /// # Errors
    /// [`ReleqError::Checkpoint`], or [`ReleqError::Onnx`] and [`ReleqError::Weights`], if the file cannot be read or
    /// does not fit.
    pub fn load(&self, network: &Network) -> Result<Weights, ReleqError> {
        if let Self::File(path) = self
            && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
        {
            let mut weights = onnx::open(path)?.weights.into_channel_groups(network);
            weights.add_ranges(network);
            weights.check(network)?;
            return Ok(weights);
        }
        let names = NameMap::of(network.name());
        let (path, names) = match self {
            Self::File(path) => (path, names),
            Self::Part { path, key, ignore } => {
                let names = match key {
                    Some(key) => names.key(key),
                    None => names,
                };
                (path, ignore.iter().fold(names, NameMap::ignore))
            }
        };
        // Checkpoints say nothing of ranges, but for those of runs, which are found again; nor of groups of channels.
        let checkpoint = Checkpoint::open(path)?;
        let plain = network.without_fake_quantize()?;
        let rounds = network.nodes().iter().filter(|node| node.op == Op::FakeQuantize);
        let names = rounds.fold(names, |names, node| names.ignore(&node.name));
        let mut weights = match checkpoint.state(&plain, &names) {
            Err(CheckpointError::Mismatch { .. }) if plain.has_channel_groups() => {
                let whole = plain.without_channel_groups()?;
                checkpoint.state(&whole, &names)?.into_channel_groups(&plain)
            }
            found => found?,
        };
        weights.add_ranges(network);
        Ok(weights)
    }
}

/// Settings of an [`Experiment`](crate::Experiment): all of them, in plain data.
///
/// A report contains the configuration of its run, and a run is repeated from it. Pieces of one's own stand in
/// it by name, as `{"own": name}`; who repeats such a run hands the pieces in again. Unknown keys are refused.
///
/// Start from [`lenet`](Self::lenet) or [`preset`](Self::preset) and change fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ExperimentConfig {
    /// The network; set by [`Experiment::new`](crate::Experiment::new).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfig>,
    /// The data; `None` or one's own for sets that are handed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Choice<DataConfig>>,
    /// Full-precision weights to start from; without any, the run trains some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Choice<WeightsConfig>>,
    /// Everything random follows from it.
    pub seed: u64,
    /// Evaluations that run side by side; the result does not depend on it.
    pub threads: NonZeroUsize,
    /// What computes gradients.
    pub trainer: Choice<Backend>,
    /// How weights are quantized.
    pub quantizer: Choice<QuantizerKind>,
    /// Bitwidths to choose from.
    pub actions: Vec<Bitwidth>,
    /// Bitwidths to choose from for activations, where the network rounds them ([`Network::with_fake_quantize`]); the same as
    /// for weights, if none are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activation_actions: Vec<Bitwidth>,
    /// Layers that are not searched, by name.
    pub fixed_layers: Vec<(String, Bitwidth)>,
    /// What the search makes cheap.
    pub cost: Choice<CostKind>,
    /// What no answer may exceed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Choice<LimitConfig>>,
    /// The reward; `None` exchanges accuracy for cost at the rate that the [`tolerance`](Self::tolerance) asks for
    /// ([`reward`](Self::reward())).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<Choice<RewardKind>>,
    /// Loss of validation accuracy, in 0 to 1, up to which an assignment counts as good.
    pub tolerance: f64,
    /// Images held out of training, for choices.
    pub validation: usize,
    /// Where they come from.
    pub held_out: HeldOut,
    /// How many of them a short retrain is measured on; all, where there are fewer.
    pub search_validation: usize,
    /// How many of those every layer is shown at every bitwidth before the search ([`Sensitivities`](crate::Sensitivities)); 0
    /// leaves that out.
    #[serde(default)]
    pub sensitivity_images: usize,
    /// How pixels become numbers; `None` measures it on the training images.
    pub normalization: Option<Normalization>,
    /// Full-precision training where no weights are given.
    pub pretrain: Schedule,
    /// Full-precision training of weights that are given; `None` takes them as they are.
    pub fine_tune: Option<Schedule>,
    /// In place of all retrains, quantized weights are corrected on training images ([`Corrector`](releq_train::Corrector));
    /// nothing is learned from labels. Where the held-out or the test images have none, the classes that the given weights
    /// see in full precision stand for them, and every accuracy is an agreement with full precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<Correction>,
    /// Retraining of one assignment during the search.
    pub short_retrain: Schedule,
    /// Whether short retrains learn from full precision in place of the labels.
    #[serde(default)]
    pub distilled: bool,
    /// What assignments are judged by during the search.
    #[serde(default)]
    pub signal: Signal,
    /// Whether a short retrain may be given up.
    pub early_stop: Option<EarlyStop>,
    /// Retraining of the finalists.
    pub long_retrain: Schedule,
    /// The agent.
    pub agent: Choice<AgentKind>,
    /// What measures assignments during the search.
    pub evaluator: Choice<EvaluatorKind>,
    /// When the search stops.
    pub budget: Budget,
    /// Whether the knapsack over the sensitivities, local search, evolution and random search run too, each with at most as many evaluations
    /// as the agent used.
    pub compare: bool,
    /// How many assignments of a search may get the long retrain, where it looks for the cheapest within the tolerance.
    /// It looks by bisection along its frontier, so seven tell 127 apart.
    pub finalists: usize,
    /// How many long retrains, with other seeds, an assignment may get where the first leaves it uncertain whether it is
    /// within the tolerance. Corrections have no seed.
    #[serde(default = "one")]
    pub seeds: usize,
    /// Assignments that the report shows beside what was found, after the same long retrain: label and
    /// bitwidths. Where the network rounds activations, they may be of the layers with weights alone, and activations get 8 bits
    /// or the nearest that may be chosen for them.
    pub beside: Vec<(String, BitwidthAssignment)>,
    /// Bitwidths that the report shows for all layers alike, after the same long retrain, as far as the quantizer supports
    /// them.
    #[serde(default = "uniform")]
    pub uniform: Vec<Bitwidth>,
    /// Costs that every row of the report shows.
    pub report_costs: Vec<Choice<CostKind>>,
}

const fn one() -> usize {
    1
}

fn uniform() -> Vec<Bitwidth> {
    [8, 4, 3, 2].into_iter().filter_map(|bits| Bitwidth::new(bits).ok()).collect()
}

/// The first that is there a second time.
fn twice<T: Ord + Copy>(all: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    all.into_iter().find(|one| !seen.insert(*one))
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
            network: None,
            data: None,
            weights: None,
            seed,
            threads: NonZeroUsize::MIN,
            trainer: Backend::Native.into(),
            quantizer: QuantizerKind::WrpnScaled.into(),
            actions: (2..=8).filter_map(|bits| Bitwidth::new(bits).ok()).collect(),
            activation_actions: Vec::new(),
            fixed_layers: Vec::new(),
            cost: CostKind::MeanBits.into(),
            limits: Vec::new(),
            reward: None,
            tolerance: 0.003,
            validation: 5000,
            held_out: HeldOut::Training,
            search_validation: 2000,
            sensitivity_images: 1000,
            normalization: None,
            pretrain: Schedule { warmup_steps: 50, ..schedule(Length::Epochs(4.0), 0.03) },
            fine_tune: None,
            correction: None,
            short_retrain: schedule(Length::Steps(60), 0.01),
            distilled: true,
            signal: Signal::Divergence,
            early_stop: None,
            long_retrain: schedule(Length::Epochs(1.5), 0.02),
            agent: AgentKind::PpoPlanned(PlannedPpo {
                planning: Planning { negligible: 1e-3, ..Planning::default() },
                ..PlannedPpo::default()
            })
            .into(),
            evaluator: Choice::default(),
            budget: Budget { evaluations: Some(100), patience: Some(96), ..Budget::default() },
            compare: true,
            finalists: 7,
            seeds: 2,
            beside: Vec::new(),
            uniform: uniform(),
            report_costs: vec![
                CostKind::Size(ModelSize::default()).into(),
                CostKind::Stripes(Stripes::default()).into(),
            ],
        }
    }

    /// The same settings for `network`, whose output channels are [in groups](Network::with_channel_groups), where these are
    /// settings for it whole: what they say of a layer holds for each of its groups.
    ///
    /// # Errors
    /// None: what is left is an assignment.
    pub fn for_channel_groups(mut self, network: &Network) -> Result<Self, ReleqError> {
        let fixed = self.fixed_layers.into_iter();
        let of_groups = fixed.flat_map(|(layer, bits)| {
            network.groups_of(&layer).into_iter().map(move |group| (group, bits))
        });
        self.fixed_layers = of_groups.collect();
        for (_, bits) in &mut self.beside {
            // Those of a network that rounds activations may be of the layers with weights alone.
            for network in [network, &network.without_fake_quantize()?] {
                if bits.len() == network.without_channel_groups()?.quantizable_layers() {
                    *bits = network.grouped_bits(bits)?;
                    break;
                }
            }
        }
        Ok(self)
    }

    /// The reward: the one that is set, or else [`Exchange::for_tolerance`].
    #[must_use]
    pub fn reward(&self) -> Choice<RewardKind> {
        self.reward.clone().unwrap_or_else(|| {
            let highest = self.actions.iter().map(|bits| bits.get()).max().unwrap_or(8);
            RewardKind::Exchange(Exchange::for_tolerance(self.tolerance, highest)).into()
        })
    }

    /// A cost as runs with these settings count it: sizes have the scales that the quantizer stores.
    #[must_use]
    pub fn counted(&self, cost: &CostKind) -> CostKind {
        let scales = match self.quantizer {
            Choice::Ours(QuantizerKind::WrpnScaledPerChannel) => ScaleStorage::PerChannel,
            _ => ScaleStorage::default(),
        };
        cost.clone().with_scales(scales)
    }

    /// A limit on a cost as it is [`counted`](Self::counted).
    #[must_use]
    pub fn counted_limit(&self, limit: &LimitConfig) -> LimitConfig {
        LimitConfig { cost: self.counted(&limit.cost), at_most: limit.at_most }
    }

    /// Bitwidths to choose from for activations that are rounded: those of their own, or else those for weights.
    #[must_use]
    pub fn activation_choices(&self) -> &[Bitwidth] {
        match self.activation_actions.as_slice() {
            [] => &self.actions,
            actions => actions,
        }
    }

    /// All bitwidths that a layer may get, weights or activations, ascending: the actions of the agent.
    #[must_use]
    pub fn all_actions(&self) -> Vec<Bitwidth> {
        let all: BTreeSet<Bitwidth> =
            self.actions.iter().chain(&self.activation_actions).copied().collect();
        all.into_iter().collect()
    }

    /// Reads a configuration from JSON.
    ///
    /// # Errors
    /// [`ReleqError::Config`], naming the field and the place, for an unknown key or name, or a value of another type;
    /// [`ReleqError::Setting`] for one out of its range.
    pub fn from_json(text: &str) -> Result<Self, ReleqError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let config: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| ReleqError::config(&error.path().to_string(), error.into_inner()))?;
        json.end().map_err(|error| ReleqError::config("", error))?;
        config.check()?;
        Ok(config)
    }

    /// As [`from_json`](Self::from_json), from JSON that was put together and has no places to name.
    ///
    /// # Errors
    /// As there.
    pub fn from_value(json: serde_json::Value) -> Result<Self, ReleqError> {
        let config: Self = serde_path_to_error::deserialize(json)
            .map_err(|error| ReleqError::config(&error.path().to_string(), error.into_inner()))?;
        config.check()?;
        Ok(config)
    }

    /// As indented JSON.
    ///
    /// # Errors
    /// [`ReleqError::Config`] for a number that JSON cannot express.
    pub fn to_json(&self) -> Result<String, ReleqError> {
        serde_json::to_string_pretty(self).map_err(|error| ReleqError::config("", error))
    }

    /// All schedules with the names of their fields, and whether the run follows them.
    pub(super) fn schedules(&self) -> impl Iterator<Item = (&'static str, &Schedule, bool)> {
        let pretrain = Some(("pretrain", &self.pretrain, self.weights.is_none()));
        let tune = self.fine_tune.as_ref().map(|tune| ("fine_tune", tune, self.weights.is_some()));
        let retrains = self.correction.is_none();
        let retrains = [
            ("short_retrain", &self.short_retrain, retrains),
            ("long_retrain", &self.long_retrain, retrains),
        ];
        pretrain.into_iter().chain(tune).chain(retrains)
    }

    /// Checks everything that can be checked without network, data and pieces of one's own.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] or [`ReleqError::Data`], naming the field.
    pub fn check(&self) -> Result<(), ReleqError> {
        let wrong = |setting, reason: String| Err(ReleqError::Setting { setting, reason });
        if self.budget == Budget::default() {
            let reason = "limits nothing; set episodes, evaluations or wall time";
            return wrong("budget", reason.into());
        }
        if self.actions.is_empty() {
            return wrong("actions", "the set of bitwidths to choose from is empty".into());
        }
        if let Some(bits) = twice(&self.actions) {
            return wrong("actions", format!("{bits} is there twice"));
        }
        if let Some(bits) = twice(&self.activation_actions) {
            return wrong("activation_actions", format!("{bits} is there twice"));
        }
        let too_many = |bits: &&Bitwidth| **bits > Bitwidth::EIGHT;
        if let Some(bits) = self.activation_actions.iter().find(too_many) {
            let reason = format!("activations have 1 to 8 bits, not {bits}");
            return wrong("activation_actions", reason);
        }
        if !(0.0..=1.0).contains(&self.tolerance) {
            let reason = format!("{:?} is not in 0 to 1, a share of all images", self.tolerance);
            return wrong("tolerance", reason);
        }
        if let Some(bits) = twice(&self.uniform) {
            return wrong("uniform", format!("{bits} is there twice"));
        }
        if self.uniform.contains(&Bitwidth::FLOAT) {
            return wrong("uniform", "full precision is in every report by itself".into());
        }
        if self.finalists == 0 {
            return wrong("finalists", "a search needs at least one for the long retrain".into());
        }
        if self.seeds == 0 {
            return wrong("seeds", "every assignment that is retrained needs a seed".into());
        }
        for (setting, value) in
            [("validation", self.validation), ("search_validation", self.search_validation)]
        {
            if value == 0 {
                return wrong(setting, "at least one image is needed".into());
            }
        }
        if self.correction.is_some_and(|correction| correction.images == 0) {
            return wrong("correction", "at least one image is needed".into());
        }
        self.normalization.as_ref().map_or(Ok(()), Normalization::check)?;
        for (setting, schedule, _) in self.schedules() {
            schedule.check().map_err(|error| {
                let reason = error.to_string();
                ReleqError::Setting { setting, reason }
            })?;
        }
        self.early_stop.map_or(Ok(()), |stop| stop.check())?;
        if let Choice::Ours(agent) = &self.agent {
            agent.check()?;
        }
        if let Some((label, _)) = self.beside.iter().find(|(label, _)| is_reserved(label)) {
            return wrong("beside", format!("`{label}` is what the report calls a row of its own"));
        }
        if let Some(label) = twice(self.beside.iter().map(|(label, _)| label)) {
            return wrong("beside", format!("`{label}` is there twice"));
        }
        Ok(())
    }
}
