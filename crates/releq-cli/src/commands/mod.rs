//! The commands of the program, one file each.

mod bench;
mod completions;
mod cost;
mod evaluate;
mod experiment;
mod export;
mod import;
mod list;
mod pareto;
mod quantize;
mod replay;
mod report;
mod resume;
mod run;
mod search;
mod timed;
mod train;
mod worker;
mod workers;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// A command with its options.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Search(Box<search::Args>),
    Pareto(Box<pareto::Args>),
    Experiment(Box<experiment::Args>),
    Resume(resume::Args),
    Worker(worker::Args),
    Workers(workers::Args),
    Report(report::Args),
    Train(train::Args),
    Evaluate(evaluate::Args),
    Cost(cost::Args),
    Replay(replay::Args),
    Import(import::Args),
    Export(export::Args),
    Run(run::Args),
    Quantize(quantize::Args),
    Bench(bench::Args),
    List(list::Args),
    Completions(completions::Args),
}

impl Command {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Search(args) => args.run(),
            Self::Pareto(args) => args.run(),
            Self::Experiment(args) => args.run(),
            Self::Resume(args) => args.run(),
            Self::Worker(args) => args.run(),
            Self::Workers(args) => args.run(),
            Self::Report(args) => args.run(),
            Self::Train(args) => args.run(),
            Self::Evaluate(args) => args.run(),
            Self::Cost(args) => args.run(),
            Self::Replay(args) => args.run(),
            Self::Import(args) => args.run(),
            Self::Export(args) => args.run(),
            Self::Run(args) => args.run(),
            Self::Quantize(args) => args.run(),
            Self::Bench(args) => args.run(),
            Self::List(args) => args.run(),
            Self::Completions(args) => args.run(),
        }
    }
}
