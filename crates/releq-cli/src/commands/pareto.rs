//! `releq pareto`: the whole space of assignments, or a sample of it.

use std::process::ExitCode;

use anyhow::Result;
use releq::{AgentKind, Budget, ExperimentConfig, core::Network};

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
    let layers = network.quantizable_layers().saturating_sub(config.fixed_layers.len());
    if !config.activation_actions.is_empty() {
        let reason = "--activation-bits: say with --sample N how many assignments to measure";
        return Err(UsageError(reason.to_owned()).into());
    }
    let all =
        u32::try_from(layers).ok().and_then(|layers| config.actions.len().checked_pow(layers));
    all.filter(|&all| all <= MOST).ok_or_else(|| {
        UsageError(format!(
            "{layers} layers with {} bitwidths to choose from are more than {MOST} assignments; give --sample N, or \
             fewer --bits",
            config.actions.len()
        ))
        .into()
    })
}
