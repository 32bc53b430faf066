//! `releq train`: trains a network and writes its weights.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    DataConfig, ExperimentConfig,
    core::{BitwidthAssignment, Network, Weights},
    data::{Normalization, Splits, fingerprint},
    format,
    train::{
        self, AccuracyReport, Backend, Length, Schedule, StateSaver, TrainReport, Trainer,
        TrainerFactory, Training, TrainingState, initial_weights, training_origin,
    },
    zoo,
};
use serde::Serialize;

use crate::{
    args::{
        DataArgs, Files, NamedNetwork, NetworkArgs, NormalizationArgs, PrecisionArgs, WeightsArgs,
        images, options,
    },
    terminal::{
        interrupt::Interrupt,
        output::{note, print},
    },
};

/// Train a network and write its weights
///
/// The network is trained from scratch or from a checkpoint, in full precision or with quantized weights. Ctrl-C and SIGTERM stop the training and still write
/// the current weights; with --state, the same command resumes from there, also after a kill, and gives the same
/// result as an uninterrupted run.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq train lenet --data digits --output lenet.safetensors
  releq train resnet20 --data cifar10 --epochs 60 --output resnet20.safetensors
  releq train lenet ... --state lenet.state       resumable: run it again
  releq train lenet ... --weights lenet.safetensors --bits 2,4,4,2 --epochs 2
  releq train lenet --print-schedule > schedule.json
  releq train lenet ... --schedule schedule.json  with the edited schedule")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Safetensors file to write the weights to; with --bits the quantized ones, and only the state has those behind them
    #[arg(long, value_name = "FILE", required_unless_present = "print_schedule")]
    output: Option<PathBuf>,
    /// Save the training state to this file as training goes on and at the end; if the file exists, resume from it
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Seconds between two saves; large states are saved less often
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10.0,
        value_parser = options::not_negative,
        allow_hyphen_values = true
    )]
    save_every: f64,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    normalization: NormalizationArgs,
    /// JSON or TOML file with the training schedule, as printed by --print-schedule [default: the network's preset]
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Print the training schedule as JSON, including the options below, and exit
    #[arg(long)]
    print_schedule: bool,
    /// Number of passes over the training images
    #[arg(
        long,
        value_name = "EPOCHS",
        value_parser = options::epochs,
        allow_hyphen_values = true
    )]
    epochs: Option<f64>,
    /// Peak learning rate
    #[arg(long, value_name = "RATE", value_parser = options::rate, allow_hyphen_values = true)]
    learning_rate: Option<f32>,
    /// Batch size
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    batch_size: Option<NonZeroUsize>,
    /// Seed of all random numbers
    #[arg(
        long,
        value_name = "SEED",
        default_value_t = 1,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// What computes, one of `releq list backends`
    #[arg(long, value_name = "BACKEND", default_value_t = Backend::Native)]
    backend: Backend,
    /// Print a JSON object instead of a sentence
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    network: &'a str,
    data: &'a str,
    /// `null` is full precision.
    bits: Option<BitwidthAssignment>,
    quantizer: Option<String>,
    steps: usize,
    mean_loss: Option<f64>,
    /// Whether a signal ended the training; the test images are left out then.
    stopped: bool,
    correct: Option<usize>,
    total: Option<usize>,
    accuracy: Option<f64>,
    standard_error: Option<f64>,
    output: &'a Path,
    state: Option<&'a Path>,
    seconds: f64,
}

/// Everything about a training that is known before an image is read.
struct Plan {
    network: Network,
    start: Weights,
    bits: Option<BitwidthAssignment>,
    schedule: Schedule,
    saved: Option<TrainingState>,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let named = self.network.required()?;
        let files = Files::new()
            .reads("--network", self.network.file())
            .reads("--weights", self.weights.weights.as_ref())
            .reads("--schedule", self.schedule.as_ref())
            .reads("--data", self.data.folder())
            .writes("--output", self.output.as_ref())
            .writes("--state", self.state.as_ref());
        files.check()?;
        let schedule = self.schedule(named.network.name())?;
        let (Some(output), false) = (&self.output, self.print_schedule) else {
            print(serde_json::to_string_pretty(&schedule)?)?;
            return Ok(ExitCode::SUCCESS);
        };
        let plan = self.plan(named, schedule)?;
        let mut trainer = self.backend.trainer(&plan.network, self.precision.quantizer.build())?;
        trainer.load(&plan.start)?;
        trainer.set_bits(plan.bits.as_ref())?;

        let source: DataConfig = self.data.required(&plan.network)?;
        let images = images::load_all(&source, &plan.network)?;
        note(format_args!(
            "data: {}, {} training images, {} test images",
            images.source,
            images.train.len(),
            images.test.len()
        ));
        self.train(&plan, trainer.as_mut(), &images, output)
    }

    /// Whatever is wrong shows before any image is read.
    fn plan(&self, named: NamedNetwork, schedule: Schedule) -> Result<Plan> {
        let saved = match &self.state {
            Some(path) if path.exists() => {
                Some(self.saved(path, named.network.name(), &schedule)?)
            }
            _ => None,
        };
        named.remark();
        let (network, weights) = self.weights.of(named)?;
        let start = match weights {
            Some((_, weights)) => weights,
            None => initial_weights(&network, self.seed),
        };
        let bits = self.precision.assignment(&network)?;
        if let Some(state) = &saved
            && state.run.bits != bits
        {
            bail!("--bits: the state is of a training in {}", precision(state.run.bits.as_ref()));
        }
        Ok(Plan { network, start, bits, schedule, saved })
    }

    fn train(
        &self,
        plan: &Plan,
        trainer: &mut dyn Trainer,
        images: &Splits,
        output: &Path,
    ) -> Result<ExitCode> {
        let started = Instant::now();
        let set = &images.train;
        let norm = match self.normalization.given(&plan.network, &self.data.images)? {
            Some(normalization) => normalization,
            None => match zoo::preset(plan.network.name()) {
                Some(preset) => preset.normalization,
                None => Normalization::measured(set)?,
            },
        };
        let norm = &norm;
        plan.schedule.check_images(set)?;
        let interrupt = Interrupt::new()?;
        let bar = bar(plan.schedule.steps(set.len()), plan.schedule.batch_size)?;
        let mut training = match &plan.saved {
            Some(state) => {
                self.check_origin(plan, images, state)?;
                let training = Training::resume(set, norm, state, trainer)?;
                note(format_args!("resuming after {} steps", training.report().steps));
                bar.set_position(training.report().steps as u64);
                bar.reset_eta();
                training
            }
            None => {
                let training = Training::new(set, norm, &plan.schedule, self.seed)?;
                training.origin(self.origin(plan, images)?)
            }
        };
        let every = Duration::try_from_secs_f64(self.save_every).unwrap_or(Duration::MAX);
        let mut saver = self.state.as_ref().map(|path| StateSaver::new(path, every));
        while !interrupt.cancel.is_cancelled()
            && let Some(progress) = training.step(trainer)?
        {
            bar.set_position(progress.step as u64);
            bar.set_message(format!("epoch {:.2}, loss {:.4}", progress.epoch, progress.loss));
            // That the state cannot be written is no reason to end a training.
            let saved = saver.as_mut().map_or(Ok(()), |s| s.if_due(&training, trainer));
            if let Err(error) = saved.map_err(anyhow::Error::from) {
                note(format_args!("warning: the state is not saved: {error:#}; training goes on"));
            }
        }
        bar.finish();

        // Either file is of use without the other, so that a full disk loses as little as it can.
        // Quantized ones as they are computed with: another quantization would find other clips for those behind them.
        let quantizer = self.precision.quantizer.build();
        let weights = trainer.snapshot().settled(trainer.network(), &*quantizer);
        let weights = weights.map_err(anyhow::Error::from);
        let weights = weights.and_then(|weights| Ok(format::safetensors::save(output, &weights)?));
        let state = saver.as_mut().map_or(Ok(()), |s| s.now(&training, trainer));
        let report = training.report();
        // Whoever stops a training does not wait for all test images, nor whoever stops their scoring for the rest.
        let go_on = || interrupt.cancel.go_on();
        let test = match report.stopped {
            true => None,
            false => train::accuracy_while(trainer, &images.test, norm, 32, &go_on)?,
        };
        let seconds = started.elapsed().as_secs_f64();
        if self.json {
            let outcome = self.outcome(plan, images, &report, test.as_ref(), output, seconds);
            print(serde_json::to_string_pretty(&outcome)?)?;
        } else {
            let place = match &weights {
                Ok(()) => format!("written to {}", output.display()),
                Err(_) => "the weights could not be written".to_owned(),
            };
            print(sentence(plan, &report, test.as_ref(), &place))?;
        }
        weights?;
        state?;
        if test.is_some() {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(path) = &self.state
            && report.stopped
        {
            note(format_args!("the same command resumes from {}", path.display()));
        }
        Ok(interrupt.exit_code().into())
    }

    fn outcome<'a>(
        &'a self,
        plan: &'a Plan,
        images: &'a Splits,
        report: &TrainReport,
        test: Option<&AccuracyReport>,
        output: &'a Path,
        seconds: f64,
    ) -> Outcome<'a> {
        Outcome {
            network: plan.network.name(),
            data: &images.source,
            quantizer: plan.bits.as_ref().map(|_| self.precision.quantizer.to_string()),
            bits: plan.bits.clone(),
            steps: report.steps,
            mean_loss: report.mean_loss,
            stopped: report.stopped,
            correct: test.map(|test| test.correct),
            total: test.map(|test| test.total),
            accuracy: test.map(AccuracyReport::accuracy),
            standard_error: test.map(AccuracyReport::standard_error),
            output,
            state: self.state.as_deref(),
            seconds,
        }
    }

    /// What a state remembers of the training, to be resumed with nothing else.
    fn origin(&self, plan: &Plan, images: &Splits) -> Result<BTreeMap<String, String>> {
        match &self.state {
            Some(_) => {
                let data = fingerprint(&images.train)?;
                Ok(training_origin(&data, &plan.start, &self.backend.to_string()))
            }
            None => Ok(BTreeMap::new()),
        }
    }

    fn check_origin(&self, plan: &Plan, images: &Splits, state: &TrainingState) -> Result<()> {
        let origin = self.origin(plan, images)?;
        state.run.check_origin(&origin).with_context(|| {
            let path = self.state.as_deref().unwrap_or(Path::new("--state"));
            format!(
                "{}; remove it to start over, or train with what it was begun with",
                path.display()
            )
        })
    }

    /// The training in the file, which must be the one that the options ask for.
    fn saved(&self, path: &Path, network: &str, schedule: &Schedule) -> Result<TrainingState> {
        let state = TrainingState::load(path)?;
        state.run.check_settings(network, schedule, self.seed).with_context(|| {
            format!("{}; give the same options, or remove it to begin anew", path.display())
        })?;
        Ok(state)
    }

    /// The preset's or the file's, and over it what the options say.
    fn schedule(&self, network: &str) -> Result<Schedule> {
        let preset = || {
            let preset = ExperimentConfig::preset(network, self.seed);
            preset.unwrap_or_else(|| ExperimentConfig::lenet(self.seed)).pretrain
        };
        let mut schedule = match &self.schedule {
            Some(path) => options::settings(path).context("--schedule")?,
            None => preset(),
        };
        schedule.length = self.epochs.map_or(schedule.length, Length::Epochs);
        schedule.sgd.learning_rate = self.learning_rate.unwrap_or(schedule.sgd.learning_rate);
        schedule.batch_size = self.batch_size.map_or(schedule.batch_size, NonZeroUsize::get);
        schedule.check()?;
        Ok(schedule)
    }
}

fn bar(steps: usize, batch_size: usize) -> Result<ProgressBar> {
    let bar = ProgressBar::new(steps as u64).with_style(ProgressStyle::with_template(
        "{bar:20} {pos}/{len} steps, {elapsed}, {eta} left  {msg}",
    )?);
    if bar.is_hidden() {
        note(format_args!("{steps} steps of {batch_size} images"));
    }
    Ok(bar)
}

fn sentence(
    plan: &Plan,
    report: &TrainReport,
    test: Option<&AccuracyReport>,
    place: &str,
) -> String {
    let loss = report.mean_loss.map(|loss| format!("mean loss {loss:.4}, ")).unwrap_or_default();
    let trained = format!("{} steps, {loss}{}", report.steps, precision(plan.bits.as_ref()));
    match test {
        None if report.stopped => format!("stopped after {trained}; {place}"),
        None => format!("{trained}; stopped before all test images were scored; {place}"),
        Some(test) => format!(
            "{trained}; {} of {} test images correct, {:.2} %; {place}",
            test.correct,
            test.total,
            100.0 * test.accuracy(),
        ),
    }
}

fn precision(bits: Option<&BitwidthAssignment>) -> String {
    bits.map_or_else(|| "full precision".to_owned(), BitwidthAssignment::to_string)
}
