//! `releq pareto`: the whole space of assignments, or a sample of it.

use std::process::ExitCode;

use anyhow::Result;
use releq::{
    AgentKind, Budget, ExperimentConfig,
    core::{LayerKind, Network},
};

use super::search;
use crate::args::{UsageError, options};

/// More assignments than this are never all measured.
const MOST: usize = 100_000;

/// Measure every assignment of a small network, or a sample, and its frontier
///
/// Every assignment gets the short retrain of a search, and those on the frontier of accuracy and cost, from the cheapest
/// upwards, the long one. The run is kept in a folder, as that of a search, and goes on from any moment.
#[derive(clap::Args, Debug)]
#[group(skip)]
#[command(after_help = "Examples:
  releq pareto lenet                              all 2401 assignments
  releq pareto lenet --bits 2,4,8                 all 81 of these
  releq pareto simplenet --data cifar10 --weights simplenet.pth --sample 500")]
pub(crate) struct Args {
    /// Measure this many assignments, drawn at random
    #[arg(
        long,
        value_name = "N",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true,
        conflicts_with_all = ["agent", "evaluations"]
    )]
    sample: Option<usize>,
    #[command(flatten)]
    search: search::Args,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        self.search.run_with(|config, network| {
            let (agent, evaluations) = match self.sample {
                Some(sample) => (AgentKind::Random, sample),
                None => (AgentKind::Exhaustive, assignments(config, network)?),
            };
            config.agent = agent.into();
            config.budget = Budget { evaluations: Some(evaluations), ..Budget::default() };
            config.compare = false;
            Ok(())
        })
    }
}

/// How many assignments there are to choose from.
fn assignments(config: &ExperimentConfig, network: &Network) -> Result<usize> {
    let mut searched = network.profiles();
    searched.retain(|layer| config.fixed_layers.iter().all(|(fixed, _)| *fixed != layer.name));
    let all = searched.iter().try_fold(1_usize, |all, layer| {
        all.checked_mul(match layer.kind {
            LayerKind::Activations => config.activation_choices().len(),
            _ => config.actions.len(),
        })
    });
    let (layers, activations) = (searched.len(), config.activation_choices().len());
    let bits = match config.activation_actions.is_empty() {
        true => format!("{} bitwidths", config.actions.len()),
        false => format!(
            "{} bitwidths for weights and {activations} for activations",
            config.actions.len()
        ),
    };
    all.filter(|&all| all <= MOST).ok_or_else(|| {
        UsageError(format!(
            "{layers} layers with {bits} to choose from are more than {MOST} assignments; give --sample N, or fewer \
             --bits"
        ))
        .into()
    })
}
