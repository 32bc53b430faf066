//! From the configuration and what the program handed in to the pieces that a run consists of.

use std::{collections::BTreeMap, sync::Arc};

use releq_agent::Agent;
use releq_core::{CostModel, Network, Weights};
use releq_data::{Dataset, Splits};
use releq_hw::{CostKind, CostLimit, LimitConfig};
use releq_quant::Quantizer;
use releq_reward::Reward;
use releq_train::TrainerFactory;

use super::{AgentShape, Choice, ExperimentConfig};
use crate::{
    ReleqError,
    evaluate::{Evaluator, RetrainSetup},
    guard::guard,
    jobs::Workers,
};

/// Data sets of any kind, shared.
pub(super) type AnySplits = Splits<Arc<dyn Dataset>>;

/// Name of data and weights that are handed in beside a configuration that may say where they are from.
pub(super) const GIVEN: &str = "given";

/// Makes an agent for a search.
pub(super) type MakeAgent =
    Box<dyn Fn(&AgentShape) -> Result<Box<dyn Agent>, ReleqError> + Send + Sync>;

/// Makes an evaluator for a search, from what a retrain would start from.
pub(super) type MakeEvaluator = Box<
    dyn for<'a> Fn(&RetrainSetup<'a>) -> Result<Box<dyn Evaluator + 'a>, ReleqError> + Send + Sync,
>;

/// The pieces that a program has handed in, by the names in the configuration.
#[derive(Default)]
pub(super) struct OwnPieces {
    pub(super) data: BTreeMap<String, AnySplits>,
    pub(super) weights: BTreeMap<String, Weights>,
    pub(super) quantizers: BTreeMap<String, Arc<dyn Quantizer>>,
    pub(super) trainers: BTreeMap<String, Arc<dyn TrainerFactory>>,
    pub(super) rewards: BTreeMap<String, Arc<dyn Reward>>,
    pub(super) cost: BTreeMap<String, Arc<dyn CostModel>>,
    pub(super) report_costs: BTreeMap<String, Arc<dyn CostModel>>,
    pub(super) limits: BTreeMap<String, CostLimit>,
    pub(super) agents: BTreeMap<String, MakeAgent>,
    pub(super) evaluators: BTreeMap<String, MakeEvaluator>,
    /// A setting and a name under which it was given two pieces, of which one would be lost.
    pub(super) twice: Option<(&'static str, String)>,
    /// Who carries out retrains, if it is not the run itself. It decides no answer, so it has no place in a configuration.
    pub(super) workers: Option<Box<dyn Workers>>,
}

/// The piece of this name, or an error that says what the program has to hand in.
fn own<'a, T>(
    pieces: &'a BTreeMap<String, T>,
    setting: &'static str,
    name: &str,
) -> Result<&'a T, ReleqError> {
    pieces.get(name).ok_or_else(|| {
        let given: Vec<&str> = pieces.keys().map(String::as_str).collect();
        let given = if given.is_empty() { "none".to_owned() } else { given.join(", ") };
        ReleqError::Setting {
            setting,
            reason: format!(
                "`{name}` is a piece of the user's own and must be handed in under that name; \
                 handed in: {given}"
            ),
        }
    })
}

/// The pieces that need neither network nor data, ours and the user's own alike.
#[derive(Clone)]
pub(super) struct Pieces {
    pub(super) quantizer: Arc<dyn Quantizer>,
    pub(super) trainers: Arc<dyn TrainerFactory>,
    pub(super) reward: Arc<dyn Reward>,
    pub(super) cost: Arc<dyn CostModel>,
    pub(super) limits: Vec<CostLimit>,
    pub(super) report_costs: Vec<Arc<dyn CostModel>>,
}

impl Pieces {
    /// What the configuration names.
    pub(super) fn new(config: &ExperimentConfig, given: &OwnPieces) -> Result<Self, ReleqError> {
        given.evaluator(config)?;
        if let Some((setting, name)) = &given.twice {
            let reason = format!("two pieces are called `{name}`; give one of them another name");
            return Err(ReleqError::Setting { setting, reason });
        }
        let cost = |setting, choice: &Choice<CostKind>| match choice {
            Choice::Ours(kind) => Ok(config.counted(kind).build()?),
            Choice::Own(name) if setting == "cost" => own(&given.cost, setting, name).cloned(),
            Choice::Own(name) => own(&given.report_costs, setting, name).cloned(),
        };
        let limit = |choice: &Choice<LimitConfig>| match choice {
            Choice::Ours(limit) => Ok(config.counted_limit(limit).build()?),
            Choice::Own(name) => own(&given.limits, "limits", name).cloned(),
        };
        Ok(Self {
            quantizer: match &config.quantizer {
                Choice::Ours(kind) => kind.build(),
                Choice::Own(name) => own(&given.quantizers, "quantizer", name)?.clone(),
            },
            trainers: match &config.trainer {
                Choice::Ours(backend) => Arc::new(*backend),
                Choice::Own(name) => own(&given.trainers, "trainer", name)?.clone(),
            },
            reward: match config.reward() {
                Choice::Ours(kind) => kind.build(),
                Choice::Own(name) => own(&given.rewards, "reward", &name)?.clone(),
            },
            cost: cost("cost", &config.cost)?,
            limits: config.limits.iter().map(limit).collect::<Result<_, ReleqError>>()?,
            report_costs: config
                .report_costs
                .iter()
                .map(|choice| cost("report_costs", choice))
                .collect::<Result<_, ReleqError>>()?,
        })
    }
}

impl OwnPieces {
    /// The data set that is handed in, or else the one that the configuration names, read or drawn.
    pub(super) fn data(&self, config: &ExperimentConfig) -> Result<AnySplits, ReleqError> {
        match &config.data {
            Some(Choice::Own(name)) => own(&self.data, "data", name).cloned(),
            Some(Choice::Ours(data)) => match self.data.get(GIVEN) {
                Some(given) => Ok(given.clone()),
                None => Ok(data.load()?.into_dyn()),
            },
            None => Err(ReleqError::Setting {
                setting: "data",
                reason: "names no data set and none is handed in".into(),
            }),
        }
    }

    pub(super) fn weights(
        &self,
        config: &ExperimentConfig,
        network: &Network,
    ) -> Result<Option<Weights>, ReleqError> {
        Ok(match &config.weights {
            None => None,
            Some(Choice::Ours(weights)) => match self.weights.get(GIVEN) {
                Some(given) => Some(with_ranges(given, network)),
                None => Some(weights.load(network)?),
            },
            Some(Choice::Own(name)) => {
                Some(with_ranges(own(&self.weights, "weights", name)?, network))
            }
        })
    }

    pub(super) fn agent(
        &self,
        config: &ExperimentConfig,
        shape: &AgentShape,
    ) -> Result<Box<dyn Agent>, ReleqError> {
        match &config.agent {
            Choice::Ours(kind) => kind.build(shape),
            Choice::Own(name) => {
                let make = own(&self.agents, "agent", name)?;
                guard(|| format!("the maker of the agent `{name}`"), || make(shape))
            }
        }
    }

    /// The maker of evaluators that the configuration names; `None` for the one of ours.
    pub(super) fn evaluator(
        &self,
        config: &ExperimentConfig,
    ) -> Result<Option<&MakeEvaluator>, ReleqError> {
        match &config.evaluator {
            Choice::Ours(_) => Ok(None),
            Choice::Own(name) => own(&self.evaluators, "evaluator", name).map(Some),
        }
    }
}

/// Episodes that agents without a setting for it play at a time.
pub(super) const TOGETHER: usize = 8;

/// Weights with ranges of all activations that are rounded, if only unknown ones.
fn with_ranges(weights: &Weights, network: &Network) -> Weights {
    let mut weights = weights.clone();
    weights.add_ranges(network);
    weights
}
