//! `releq experiment lstm`: an LSTM against a dense layer as the trunk of the agent.

use std::process::ExitCode;

use anyhow::Result;
use releq::{
    AgentKind,
    agent::{PpoConfig, Trunk},
};

use super::{
    clip::ppo,
    folder::FolderArgs,
    source::{SourceArgs, Variant},
    variants::{Comparison, compare},
};

/// Compare an LSTM with a dense layer in the agent
///
/// The same agent searches with a trunk that remembers the layers before, and with one that sees the observation alone.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq experiment lstm --table lenet.csv --full-precision 99.8
  releq experiment lstm --table lenet.csv --agent ppo --seeds 10
  releq experiment lstm --config search.toml --seeds 3     live searches")]
pub(super) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: FolderArgs,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let base = ppo(self.source.agent(AgentKind::Ppo(PpoConfig::paper()))?)?;
        let source = self.source.open()?;
        let variant = |(name, trunk): (&str, Trunk)| Variant {
            name: name.to_owned(),
            agent: AgentKind::Ppo(PpoConfig { trunk, ..base.clone() }),
            reward: source.reward(),
        };
        let variants = [("lstm", Trunk::Lstm), ("dense", Trunk::Dense)].map(variant).into();
        let comparison = Comparison {
            name: "lstm",
            title: "An LSTM and a dense layer in the agent",
            subject: "trunk",
            one_reward: true,
        };
        compare(&comparison, &source, variants, &self.output)
    }
}
