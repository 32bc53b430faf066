//! Options of a search, and the run that follows them.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use releq::{
    Experiment, ExperimentConfig, ReleqError, Report,
    core::Bitwidth,
    evaluate::EarlyStop,
    quant::QuantizerKind,
    reward::{RewardKind, Shaped},
    train::Backend,
};

use crate::{
    bars::Bars,
    interrupt::{self, INTERRUPTED},
    tables,
};

/// Options that every search has.
#[derive(clap::Args, Clone, Debug)]
pub struct SearchArgs {
    /// Everything random follows from it: equal seeds give equal reports
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Evaluations side by side; does not change the result [default: all cores]
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
    /// Assignments that the search may measure
    #[arg(long)]
    pub evaluations: Option<usize>,
    /// Minutes after which the search stops; runs then may differ
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Bitwidths to choose from, from 1 to 8 [default: 2,3,4,5,6,7,8]
    #[arg(long, value_delimiter = ',', value_name = "BITS")]
    pub bits: Vec<Bitwidth>,
    /// Accepted loss of accuracy in percentage points
    #[arg(long, default_value_t = 0.3, value_name = "POINTS")]
    pub tolerance: f64,
    /// Share of the full-precision accuracy below which the reward is -1, up to 1 [default: the paper's 0.4]
    #[arg(long, value_name = "SHARE")]
    pub threshold: Option<f64>,
    /// Give up a short retrain that has taken a quarter of its steps and has less than this share of the
    /// full-precision accuracy, as after a collapse [default: never]
    #[arg(long, value_name = "SHARE")]
    pub early_stop: Option<f64>,
    /// Quantizer: wrpn-scaled, wrpn-scaled-per-channel, dorefa, wrpn or powers-of-two [default: the network's]
    #[arg(long)]
    pub quantizer: Option<QuantizerKind>,
    /// What trains: native, flex (Burn), or, where they are built in, ndarray and wgpu (Burn, the latter on a GPU)
    #[arg(long, default_value_t = Backend::Native)]
    pub backend: Backend,
    /// Leave out the random and the layer-by-layer search with as many evaluations
    #[arg(long)]
    pub no_comparison: bool,
    /// Write the whole report as JSON
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the final table as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Print the report as JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

impl SearchArgs {
    /// Fails at once, rather than after minutes, if the output files cannot be written or the threshold is
    /// out of its range.
    ///
    /// # Errors
    /// If one of them is.
    pub fn check(&self) -> Result<()> {
        self.threshold.map(shaped).transpose()?;
        if let Some(early_stop) = self.early_stop() {
            early_stop.check().context("--early-stop")?;
        }
        for path in self.output.iter().chain(&self.csv) {
            Report::check_path(path)?;
        }
        Ok(())
    }

    fn early_stop(&self) -> Option<EarlyStop> {
        self.early_stop.map(|below| EarlyStop { below, ..EarlyStop::default() })
    }

    /// What the options say, put over `config`.
    ///
    /// # Errors
    /// If an option is out of its range.
    pub fn configure(&self, mut config: ExperimentConfig) -> Result<ExperimentConfig> {
        config.threads = self
            .threads
            .unwrap_or(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        config.trainer = self.backend.into();
        config.early_stop = self.early_stop().or(config.early_stop);
        config.tolerance = self.tolerance / 100.0;
        if let Some(quantizer) = self.quantizer {
            config.quantizer = quantizer.into();
        }
        if let Some(threshold) = self.threshold {
            config.reward = RewardKind::Shaped(shaped(threshold)?).into();
        }
        if !self.bits.is_empty() {
            config.actions.clone_from(&self.bits);
        }
        config.compare = !self.no_comparison;
        if self.evaluations.is_some() {
            config.budget.evaluations = self.evaluations;
        }
        if let Some(minutes) = self.minutes {
            config.budget.wall_time = Some(
                Duration::try_from_secs_f64(60.0 * minutes)
                    .context("--minutes must be positive")?,
            );
        }
        Ok(config)
    }

    /// Runs the whole path with progress bars, until the end or Ctrl-C, and writes the report.
    ///
    /// # Errors
    /// If the experiment fails or the report cannot be written.
    pub fn run(&self, source: &str, experiment: Experiment) -> Result<ExitCode> {
        eprintln!("data: {source}");
        let cancel = interrupt::cancel()?;
        let bars = Bars::new(self.json);
        let outcome = experiment.run(&cancel, &|event| bars.show(event));
        bars.finish();
        let report = match outcome {
            Err(ReleqError::Cancelled) => {
                eprintln!("stopped before the search began; there is nothing to write");
                return Ok(INTERRUPTED.into());
            }
            other => other?,
        };

        if let Some(path) = &self.output {
            report.write_json(path)?;
        }
        if let Some(path) = &self.csv {
            report.write_csv(path)?;
        }
        if self.json {
            println!("{}", report.to_json());
        } else {
            tables::print(&report);
        }
        Ok(if report.cancelled { INTERRUPTED.into() } else { ExitCode::SUCCESS })
    }
}

/// The paper's reward with another threshold.
fn shaped(threshold: f64) -> Result<Shaped> {
    let paper = Shaped::default();
    Shaped::new(paper.a(), paper.b(), threshold).context("--threshold")
}
