//! `releq report`: the results of runs again, from their folders alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use releq::{Report, RunFolder};

use crate::{
    args::{OutputArgs, UsageError, named},
    page::{self, Named},
    terminal::output::{note, print},
};

/// Draw the reports of runs again, from their folders alone
///
/// Neither data nor weights are needed. The page, the figures and the tables go into the folder of the run; those of
/// several runs beside each other go into the folder of --into.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq report runs/lenet-mnist-1
  releq report runs/lenet-mnist-1 --json
  releq report runs/lenet-mnist-* --into compared
  releq report runs/lenet-mnist-* --into compared --json    an array of reports")]
pub(crate) struct Args {
    /// Folders of the runs
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Folder for the page, the figures and the tables [default: that of the run]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        self.output.check()?;
        if self.runs.len() > 1
            && let Some(option) = self.output.of_one_run()
        {
            let reason =
                format!("{option} is for one run; with --into, tables/ has the numbers of all");
            return Err(UsageError(reason).into());
        }
        let reports = self.runs.iter().map(|run| report(run)).collect::<Result<Vec<_>>>()?;
        match (self.runs.as_slice(), reports.as_slice(), &self.into) {
            ([run], [report], None) => {
                let drawn = self.output.draw(run, report);
                self.output.show(report)?;
                if !drawn {
                    return Ok(ExitCode::FAILURE);
                }
            }
            (.., None) => {
                let reason = "several runs are drawn beside each other; name a folder with --into";
                return Err(UsageError(reason.to_owned()).into());
            }
            (.., Some(into)) => {
                let mut runs: Vec<_> = self
                    .runs
                    .iter()
                    .zip(&reports)
                    .map(|(run, report)| named(run, report))
                    .collect();
                tell_apart(&mut runs, &self.runs);
                fs::create_dir_all(into).with_context(|| format!("--into {}", into.display()))?;
                page::write(into, &runs)?;
                note(format_args!("report: {}", into.join("report.html").display()));
                if self.output.json {
                    print(serde_json::to_string_pretty(&reports)?)?;
                } else {
                    for (run, report) in runs.iter().zip(&reports) {
                        print(format_args!("\n{}", run.name))?;
                        self.output.show(report)?;
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs whose folders have the same name are called by their whole paths.
fn tell_apart(runs: &mut [Named], folders: &[PathBuf]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (run, folder) in runs.iter_mut().zip(folders) {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = folder.display().to_string();
        }
    }
}

/// The report of a run that has one.
fn report(run: &Path) -> Result<Report> {
    RunFolder::config_of(run)?;
    RunFolder::report_of(run)?.with_context(|| {
        let run = run.display();
        format!("{run} has no report yet; `releq resume {run}` goes on with the run")
    })
}
