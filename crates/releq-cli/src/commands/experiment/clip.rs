//! `releq experiment clip`: the clip range of PPO.

use std::process::ExitCode;

use anyhow::Result;
use releq::{AgentKind, agent::PpoConfig};

use super::{
    folder::FolderArgs,
    source::{SourceArgs, Variant},
    variants::{Comparison, compare},
};
use crate::args::{UsageError, options};

/// Compare clip ranges of PPO
///
/// The same agent searches with each clip range: how far the probability of an action may move in an update.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq experiment clip --table lenet.csv --full-precision 99.8
  releq experiment clip --table lenet.csv --clip-range 0.05,0.1,0.2,0.3,0.5
  releq experiment clip --table lenet.csv --agent ppo --seeds 10")]
pub(super) struct Args {
    /// Clip ranges to compare
    #[arg(
        long,
        value_name = "RANGES",
        value_delimiter = ',',
        default_values = ["0.1", "0.2", "0.3"],
        value_parser = options::positive,
        allow_hyphen_values = true
    )]
    clip_range: Vec<f64>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: FolderArgs,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let base = ppo(self.source.agent(AgentKind::Ppo(PpoConfig::paper()))?)?;
        let source = self.source.open()?;
        let mut variants: Vec<Variant> = Vec::new();
        for &clip_range in &self.clip_range {
            let name = format!("clip {clip_range}");
            if variants.iter().any(|variant| variant.name == name) {
                return Err(UsageError(format!("--clip-range names {clip_range} twice")).into());
            }
            let agent = AgentKind::Ppo(PpoConfig { clip_range, ..base.clone() });
            variants.push(Variant { name, agent, reward: source.reward() });
        }
        let comparison = Comparison {
            name: "clip",
            title: "Clip ranges of PPO",
            subject: "PPO",
            one_reward: true,
        };
        compare(&comparison, &source, variants, &self.output)
    }
}

/// The settings of an agent that is PPO.
///
/// # Errors
/// [`UsageError`] for another one.
pub(super) fn ppo(agent: AgentKind) -> Result<PpoConfig> {
    match agent {
        AgentKind::Ppo(config) => Ok(config),
        other => {
            let name = serde_json::to_string(&other)?;
            Err(UsageError(format!(
                "--agent {name} has no policy that learns; take one of the ppo agents"
            ))
            .into())
        }
    }
}
