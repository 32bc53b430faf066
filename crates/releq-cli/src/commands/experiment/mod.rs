//! `releq experiment`: the paper's figures and tables, one file each.

mod admm;
mod assignments;
mod clip;
mod cpu;
mod folder;
mod lstm;
mod pareto;
mod probabilities;
mod rewards;
mod scaling;
mod seeds;
mod source;
mod stripes;
mod variants;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// Repeat a figure or a table of the paper, or plan a search
///
/// Each experiment runs with several seeds and writes a folder: experiment.json with all settings and results, tables as
/// CSV, figures as SVG. The same command gives the same numbers, apart from times that are measured.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq experiment rewards --table lenet.csv
  releq experiment clip --table lenet.csv --seeds 10
  releq experiment lstm --config search.toml --seeds 3    live searches
  releq experiment stripes
  releq experiment scaling runs/lenet-mnist-1    how many workers are worth it

A table of accuracies comes from elsewhere, or from `releq pareto`: the file
tables/measured.csv in the folder of its run. Live searches have the settings of
`releq search --print-config`.")]
pub(crate) struct Args {
    #[command(subcommand)]
    experiment: Experiment,
}

/// An experiment with its options.
#[derive(Debug, Subcommand)]
enum Experiment {
    Rewards(rewards::Args),
    Clip(clip::Args),
    Lstm(lstm::Args),
    Probabilities(probabilities::Args),
    Pareto(pareto::Args),
    Admm(admm::Args),
    Stripes(stripes::Args),
    Cpu(cpu::Args),
    Scaling(scaling::Args),
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match &self.experiment {
            Experiment::Rewards(args) => args.run(),
            Experiment::Clip(args) => args.run(),
            Experiment::Lstm(args) => args.run(),
            Experiment::Probabilities(args) => args.run(),
            Experiment::Pareto(args) => args.run(),
            Experiment::Admm(args) => args.run(),
            Experiment::Stripes(args) => args.run(),
            Experiment::Cpu(args) => args.run(),
            Experiment::Scaling(args) => args.run(),
        }
    }
}
