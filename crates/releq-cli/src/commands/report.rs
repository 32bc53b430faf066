//! `releq report`: the results of runs again, from their folders alone.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use releq::RunFolder;

use crate::args::OutputArgs;

/// Report on runs again, from their folders alone
///
/// Neither data nor weights are needed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq report runs/lenet-mnist-1
  releq report runs/lenet-mnist-1 --json")]
pub(crate) struct Args {
    /// Folder of the run
    run: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        self.output.check()?;
        RunFolder::config_of(&self.run)?;
        let report = RunFolder::report_of(&self.run)?.with_context(|| {
            let run = self.run.display();
            format!("{run} has no report yet; `releq resume {run}` goes on with the run")
        })?;
        self.output.show(&report)?;
        Ok(ExitCode::SUCCESS)
    }
}
