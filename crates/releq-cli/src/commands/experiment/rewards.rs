//! `releq experiment rewards`: the paper's reward formulations compared.

use std::process::ExitCode;

use anyhow::Result;
use releq::{AgentKind, agent::PpoConfig, reward::RewardKind};

use super::{
    folder::FolderArgs,
    source::{SourceArgs, Variant},
    variants::{Comparison, compare},
};
use crate::args::{UsageError, options};

/// Compare formulations of the reward
///
/// The same agent searches with each reward. Rewards have different scales, so what is compared is what they lead to:
/// accuracy and cost in the course of the episodes, and the answers.
#[derive(clap::Args, Debug)]
#[command(mut_arg("reward", |arg| arg.hide(true)))]
#[command(after_help = "Examples:
  releq experiment rewards --table lenet.csv --full-precision 99.8
  releq experiment rewards --table lenet.csv --rewards shaped --rewards division
  releq experiment rewards --table lenet.csv --agent ppo --seeds 10")]
pub(super) struct Args {
    /// Reward to compare, one of `releq list rewards`, with its constants; may be given several times [default: shaped,
    /// division and subtraction, which the paper compares, and linear-grid, that of the authors' code]
    #[arg(long, value_name = "REWARD", value_parser = options::reward)]
    rewards: Vec<RewardKind>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: FolderArgs,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        if self.source.problem.reward.is_some() {
            let reason = "--reward: name each reward to compare with --rewards";
            return Err(UsageError(reason.to_owned()).into());
        }
        let rewards =
            if self.rewards.is_empty() { RewardKind::all() } else { self.rewards.clone() };
        for (index, reward) in rewards.iter().enumerate() {
            if rewards[..index].contains(reward) {
                return Err(UsageError(format!("--rewards names `{reward}` twice")).into());
            }
        }
        let agent = self.source.agent(AgentKind::Ppo(PpoConfig::paper()))?;
        let variant =
            |reward: RewardKind| Variant { name: reward.to_string(), agent: agent.clone(), reward };
        let comparison = Comparison {
            name: "rewards",
            title: "Formulations of the reward",
            subject: "reward",
            one_reward: false,
        };
        let variants = rewards.into_iter().map(variant).collect();
        compare(&comparison, &self.source.open()?, variants, &self.output)
    }
}
