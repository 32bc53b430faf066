//! `releq resume`: goes on with a run.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Result;
use releq::{Experiment, RunFolder};

use crate::args::{OutputArgs, WorkersArgs, options, tell_shares};

/// Go on with a run where it stopped
///
/// The settings are those that the run was begun with, and the result is the same as if it had never stopped. Running the
/// same search command again does the same. A run that has come to its end is reported.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq resume runs/lenet-mnist-1
  releq resume runs/lenet-mnist-1 --threads 1     fewer threads, same result
  releq resume runs/lenet-mnist-1 --workers nats://localhost:4222")]
pub(crate) struct Args {
    /// Folder of the run
    run: PathBuf,
    /// Number of evaluations that run in parallel; does not affect the result [default: all cores]
    #[arg(long, value_name = "N", value_parser = options::threads, allow_negative_numbers = true)]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    workers: WorkersArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        self.output.check()?;
        let mut config = RunFolder::config_of(&self.run)?;
        config.threads = self
            .threads
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(config.threads);
        let folder = RunFolder::open(&self.run)?;
        let mut experiment = Experiment::from_config(config)?;
        let workers = self.workers.connect(experiment.config().threads)?;
        if let Some(workers) = &workers {
            experiment = experiment.workers(Arc::clone(workers));
        }
        let ended = self.output.run(experiment, Some(folder));
        tell_shares(workers.as_deref());
        ended
    }
}
