//! Options of a search, and the run that follows them.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use releq::{
    AgentKind, Choice, Experiment, ExperimentConfig, ReleqError, Report, RunFolder,
    core::{Bitwidth, BitwidthAssignment, Network, with_causes},
    evaluate::EarlyStop,
    quant::QuantizerKind,
    train::Backend,
};

use super::{AgentArg, Files, ProblemArgs, UsageError, options, usage};
use crate::{
    page::{self, Named},
    tensorboard,
    terminal::{
        bars::Bars,
        interrupt::Interrupt,
        output::{note, print},
        report,
    },
};

/// Options that every search has.
///
/// The groups are last, since their headings are those of what follows them.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Search")]
pub struct SearchArgs {
    /// Agent that chooses, one of `releq list agents`, or a .json or .toml file with its settings [default: ppo-planned]
    #[arg(long, value_name = "AGENT|FILE")]
    pub agent: Option<AgentArg>,
    /// Seed of all random numbers; the same seed gives the same report [default: 1]
    #[arg(
        long,
        value_name = "SEED",
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true
    )]
    pub seed: Option<u64>,
    /// Maximum number of assignments that the search measures; 0 skips the search
    #[arg(
        long,
        value_name = "N",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true
    )]
    pub evaluations: Option<usize>,
    /// Stop the search after this many minutes of work; results then vary between runs
    #[arg(
        long,
        value_name = "MINUTES",
        value_parser = options::positive,
        allow_hyphen_values = true
    )]
    pub minutes: Option<f64>,
    /// Stop a short retrain after a quarter of its steps if its accuracy is below this share of the full-precision
    /// accuracy [default: never]
    #[arg(
        long,
        value_name = "SHARE",
        value_parser = options::share,
        allow_hyphen_values = true
    )]
    pub early_stop: Option<f64>,
    /// Search all layers, those too that the network's preset keeps at 8 bits: mostly the first and the last one
    #[arg(long)]
    pub all_layers: bool,
    /// Skip the comparison with the knapsack over the sensitivities, local search, evolution and random search
    #[arg(long)]
    pub no_comparison: bool,
    /// Maximum number of assignments of each search that get the long retrain; 7 tell 127 apart [default: 7]
    #[arg(
        long,
        value_name = "N",
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    pub finalists: Option<NonZeroUsize>,
    /// Bitwidths that get a long retrain with all layers alike, for comparison [default: 8,4,3,2]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    pub uniform: Vec<BitwidthAssignment>,
    /// Search bitwidths of activations too, of everything that layers with weights read: those to choose from, 1 to 8. Retrains
    /// round activations to ranges from training images. What is made cheap is then bitops, unless --cost says otherwise
    /// [default: activations in full precision]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::choices,
        allow_negative_numbers = true
    )]
    pub activation_bits: Vec<BitwidthAssignment>,
    /// Divide the output channels of every layer into this many groups, each with a bitwidth of its own; not those of depthwise
    /// and other grouped convolutions. --keep of a layer is one of all its groups [default: 1]
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "fork",
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    pub channel_groups: Option<NonZeroUsize>,
    /// How weights are quantized, one of `releq list quantizers` [default: that of the network's preset;
    /// wrpn-scaled-per-channel for networks of your own]
    #[arg(long, value_name = "QUANTIZER")]
    pub quantizer: Option<QuantizerKind>,
    /// What computes, one of `releq list backends` [default: native]
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<Backend>,
    /// Number of evaluations that run in parallel; does not affect the result [default: all cores]
    #[arg(
        long,
        value_name = "N",
        value_parser = options::threads,
        allow_negative_numbers = true
    )]
    pub threads: Option<NonZeroUsize>,
    /// What is searched.
    #[command(flatten)]
    pub problem: ProblemArgs,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Where the results of a search go.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Write the full report to a JSON file, besides the one in the run's folder
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the final table to a CSV file
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Print the report as JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Write event files for TensorBoard into the folder of the run
    #[arg(long)]
    pub tensorboard: bool,
}

impl OutputArgs {
    /// Fails at once, rather than after minutes, if an output file cannot be written.
    ///
    /// # Errors
    /// If that is so.
    pub fn check(&self) -> Result<()> {
        Files::new()
            .writes("--output", self.output.as_ref())
            .writes("--csv", self.csv.as_ref())
            .check()
    }

    /// Runs an experiment with progress bars, until the end or Ctrl-C, and writes the report. With a folder, the run is
    /// kept there, and goes on if it has begun.
    ///
    /// # Errors
    /// If the experiment fails or the report cannot be written.
    pub fn run(&self, experiment: Experiment, folder: Option<RunFolder>) -> Result<ExitCode> {
        let interrupt = Interrupt::new()?;
        let bars = Bars::new(false);
        let (cancel, on_event) = (&interrupt.cancel, |event: &_| bars.show(event));
        let outcome = match &folder {
            Some(folder) => experiment.run_in(folder, cancel, &on_event),
            None => experiment.run(cancel, &on_event),
        };
        bars.finish();
        let found = match outcome {
            Err(ReleqError::Cancelled) => {
                note("stopped before the search began; there is nothing to report");
                how_to_resume(folder.as_ref());
                return Ok(interrupt.exit_code().into());
            }
            other => other?,
        };
        let stopped = found.cancelled.then(|| interrupt.exit_code());
        let shown = self.show(&found);
        if let Some(folder) = &folder {
            self.draw(folder.path(), &found);
            if stopped.is_some() || is_cut_short(&found) {
                how_to_resume(Some(folder));
            }
        }
        shown?;
        Ok(match stopped {
            Some(code) => code.into(),
            None if is_cut_short(&found) => ExitCode::FAILURE,
            None => ExitCode::SUCCESS,
        })
    }

    /// Draws the report in the folder of its run. Whatever fails is said, and makes it `false`; the run itself is in
    /// order.
    pub fn draw(&self, run: &Path, found: &Report) -> bool {
        let page = page::write(run, &[named(run, found)]);
        match &page {
            Ok(()) => note(format_args!("report: {}", run.join("report.html").display())),
            Err(error) => note(format_args!(
                "the report is not drawn: {}; `releq report {} --into DIR` draws it elsewhere",
                with_causes(error),
                run.display()
            )),
        }
        if !self.tensorboard {
            return page.is_ok();
        }
        let events = tensorboard::write(run.join("tensorboard"), found);
        match &events {
            Ok(file) => note(format_args!("TensorBoard: {}", file.display())),
            Err(error) => note(format_args!("no event file: {error}")),
        }
        page.is_ok() && events.is_ok()
    }

    /// An option among those given that is for one run alone.
    #[must_use]
    pub fn of_one_run(&self) -> Option<&'static str> {
        let given = [
            ("--output", self.output.is_some()),
            ("--csv", self.csv.is_some()),
            ("--tensorboard", self.tensorboard),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }

    /// Prints a report, and writes the files that are asked for: whatever can be written is, whichever of the others
    /// fails.
    ///
    /// # Errors
    /// The first of those that failed.
    pub fn show(&self, found: &Report) -> Result<()> {
        let json = self.output.as_ref().map_or(Ok(()), |path| found.write_json(path));
        let csv = self.csv.as_ref().map_or(Ok(()), |path| found.write_csv(path));
        print(if self.json { found.to_json() } else { report::render(found) })?;
        json?;
        csv?;
        Ok(())
    }
}

/// The run in a folder, for a page.
pub(crate) fn named(run: &Path, report: &Report) -> Named {
    let command = format!("releq search --config {}", run.join("config.json").display());
    Named { command, ..Named::new(name_of(run), report.clone()) }
}

/// The last part of a path.
fn name_of(run: &Path) -> String {
    let whole = std::path::absolute(run).unwrap_or_else(|_| run.to_owned());
    whole.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
}

fn is_cut_short(report: &Report) -> bool {
    report.failed().is_some()
}

fn how_to_resume(folder: Option<&RunFolder>) {
    if let Some(folder) = folder {
        note(format_args!("`releq resume {}` goes on from here", folder.path().display()));
    }
}

impl SearchArgs {
    /// Fails at once, rather than after minutes, if an output file cannot be written or an option is out of its
    /// range.
    ///
    /// # Errors
    /// If that is so.
    pub fn check(&self) -> Result<()> {
        if let Some(early_stop) = self.early_stop() {
            early_stop.check().context("--early-stop")?;
        }
        self.output.check()
    }

    fn early_stop(&self) -> Option<EarlyStop> {
        self.early_stop.map(|below| EarlyStop { below, ..EarlyStop::default() })
    }

    /// What the options say, put over `config`.
    ///
    /// # Errors
    /// If an option is out of its range, or does not fit the network.
    pub fn configure(
        &self,
        mut config: ExperimentConfig,
        network: &Network,
    ) -> Result<ExperimentConfig> {
        if let Some(bits) = options::join_bits(&self.activation_bits) {
            if let Some(other) = bits.iter().find(|&&bits| bits > Bitwidth::EIGHT) {
                return Err(UsageError(format!(
                    "--activation-bits {other}: activations are rounded to 1 to 8 bits; leave the option out for full precision"
                ))
                .into());
            }
            config.activation_actions = bits.into();
        }
        config.threads = self
            .threads
            .unwrap_or(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        config.seed = self.seed.unwrap_or(config.seed);
        if let Some(backend) = self.backend {
            config.trainer = backend.into();
        }
        config.early_stop = self.early_stop().or(config.early_stop);
        if let Some(quantizer) = self.quantizer {
            config.quantizer = quantizer.into();
        }
        if let Some(agent) = &self.agent {
            let agent = agent.load()?;
            // The name alone stands for the default agent of experiments, which settles sooner than one that looks
            // answers up in a table.
            config.agent = if agent == AgentKind::default() {
                ExperimentConfig::lenet(config.seed).agent
            } else {
                agent.into()
            };
        }
        if self.all_layers {
            config.fixed_layers.clear();
        }
        self.problem.configure(&mut config, network)?;
        config.compare &= !self.no_comparison;
        if let Some(finalists) = self.finalists {
            config.finalists = finalists.get();
        }
        if let Choice::Ours(quantizer) = config.quantizer
            && let Some(bits) = usage(options::weight_bits("--uniform", &self.uniform, quantizer))?
        {
            config.uniform = bits.into();
        }
        if self.evaluations.is_some() {
            config.budget.evaluations = self.evaluations;
        }
        if let Some(minutes) = self.minutes {
            // More than a duration holds is no limit.
            config.budget.wall_time = Duration::try_from_secs_f64(60.0 * minutes).ok();
        }
        Ok(config)
    }
}
