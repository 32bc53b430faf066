//! Options of a search, and the run that follows them.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use releq::{
    Choice, Experiment, ExperimentConfig, ReleqError, RunFolder,
    core::BitwidthAssignment,
    evaluate::EarlyStop,
    quant::QuantizerKind,
    reward::{RewardKind, Shaped},
    train::Backend,
};

use super::{Files, options};
use crate::terminal::{
    bars::Bars,
    interrupt::Interrupt,
    output::{note, print},
    report,
};

/// Options that every search has.
#[derive(clap::Args, Clone, Debug)]
pub struct SearchArgs {
    /// Seed of all random numbers; the same seed gives the same report
    #[arg(
        long,
        default_value_t = 1,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true
    )]
    pub seed: u64,
    /// Number of evaluations that run in parallel; does not affect the result [default: all cores]
    #[arg(long, value_name = "N", value_parser = options::threads, allow_negative_numbers = true)]
    pub threads: Option<NonZeroUsize>,
    /// Maximum number of assignments that the search measures; 0 skips the search
    #[arg(
        long,
        value_name = "N",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true
    )]
    pub evaluations: Option<usize>,
    /// Stop the search after this many minutes; results then vary between runs
    #[arg(long, value_parser = options::positive, allow_hyphen_values = true)]
    pub minutes: Option<f64>,
    /// Bitwidths to choose from; 32 is full precision [default: 2,3,4,5,6,7,8]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    pub bits: Vec<BitwidthAssignment>,
    /// Acceptable loss of accuracy, in percentage points
    #[arg(
        long,
        value_name = "POINTS",
        default_value_t = 0.3,
        value_parser = options::points,
        allow_hyphen_values = true
    )]
    pub tolerance: f64,
    /// Reward -1 below this share of the full-precision accuracy, from 0 to 1 [default: 0.4, as in the paper]
    #[arg(long, value_name = "SHARE", value_parser = options::share, allow_hyphen_values = true)]
    pub threshold: Option<f64>,
    /// Stop a short retrain after a quarter of its steps if its accuracy is below this share of the full-precision
    /// accuracy [default: never]
    #[arg(long, value_name = "SHARE", value_parser = options::share, allow_hyphen_values = true)]
    pub early_stop: Option<f64>,
    /// Quantizer: wrpn-scaled, wrpn-scaled-per-channel, dorefa, wrpn or powers-of-two [default: the network's]
    #[arg(long)]
    pub quantizer: Option<QuantizerKind>,
    /// Training backend: native or flex (Burn); if enabled at build time, also ndarray (Burn) and wgpu (Burn, on a
    /// GPU)
    #[arg(long, default_value_t = Backend::Native)]
    pub backend: Backend,
    /// Skip the comparison with random and layer-by-layer search
    #[arg(long)]
    pub no_comparison: bool,
    /// Keep the run in this folder; if it has begun there, resume it
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Write the full report to a JSON file
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the final table to a CSV file
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Print the report as JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

impl SearchArgs {
    /// Fails at once, rather than after minutes, if an output file cannot be written or an option is out of its
    /// range.
    ///
    /// # Errors
    /// If that is so.
    pub fn check(&self) -> Result<()> {
        self.threshold.map(shaped).transpose()?;
        if let Some(early_stop) = self.early_stop() {
            early_stop.check().context("--early-stop")?;
        }
        Files::new()
            .writes("--output", self.output.as_ref())
            .writes("--csv", self.csv.as_ref())
            .check()
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
            let Choice::Ours(quantizer) = config.quantizer else {
                bail!("--bits needs one of the quantizers of --quantizer");
            };
            let actions = options::weight_bits("--bits", &self.bits, quantizer)?;
            config.actions = actions.map(Into::into).unwrap_or_default();
        }
        config.compare = !self.no_comparison;
        if self.evaluations.is_some() {
            config.budget.evaluations = self.evaluations;
        }
        if let Some(minutes) = self.minutes {
            // More than a duration holds is no limit.
            config.budget.wall_time = Duration::try_from_secs_f64(60.0 * minutes).ok();
        }
        Ok(config)
    }

    /// Runs the whole path with progress bars, until the end or Ctrl-C, and writes the report.
    ///
    /// # Errors
    /// If the experiment fails or the report cannot be written.
    pub fn start(&self, source: &str, experiment: Experiment) -> Result<ExitCode> {
        note(format_args!("data: {source}"));
        let interrupt = Interrupt::new()?;
        let bars = Bars::new(false);
        let (cancel, on_event) = (&interrupt.cancel, |event: &_| bars.show(event));
        let outcome = match &self.run {
            Some(path) => experiment.run_in(&RunFolder::open(path)?, cancel, &on_event),
            None => experiment.run(cancel, &on_event),
        };
        bars.finish();
        let found = match outcome {
            Err(ReleqError::Cancelled) => {
                note("stopped before the search began; there is nothing to report");
                if let Some(path) = &self.run {
                    note(format_args!("the same command resumes the run in {}", path.display()));
                }
                return Ok(interrupt.exit_code().into());
            }
            other => other?,
        };

        // Whatever of the three can be written is, whichever of the others fails.
        let json = self.output.as_ref().map_or(Ok(()), |path| found.write_json(path));
        let csv = self.csv.as_ref().map_or(Ok(()), |path| found.write_csv(path));
        print(if self.json { found.to_json() } else { report::render(&found) })?;
        json?;
        csv?;
        Ok(if found.cancelled {
            interrupt.exit_code().into()
        } else if found.error.is_some() || found.search.error.is_some() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// The paper's reward with another threshold.
fn shaped(threshold: f64) -> Result<Shaped> {
    let paper = Shaped::default();
    Shaped::new(paper.a(), paper.b(), threshold).context("--threshold")
}
