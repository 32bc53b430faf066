//! Trains any network of the zoo, from the start or from a checkpoint, in full precision or with the weights of
//! every layer quantized, and writes the weights as safetensors.
//!
//! ```text
//! cargo run --release --example train_network -- --network simplenet --data-dir cifar10 --output simplenet.safetensors
//! ```
//!
//! What it writes, `evaluate` scores and `search_network` starts from. Ctrl-C ends the training and still writes
//! the weights as they are; with `--state`, the same command goes on from there, to the same bits.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    ExperimentConfig, Report,
    core::BitwidthAssignment,
    format,
    quant::QuantizerKind,
    train::{
        self, Backend, Length, Schedule, Trainer, TrainerFactory, Training, TrainingState,
        initial_weights,
    },
    zoo,
};
use releq_example_support::{
    checkpoint,
    data::{self, ImageArgs},
    exit_code,
    interrupt::{self, INTERRUPTED},
};

/// How often the state of the training is written.
const SAVE_EVERY: Duration = Duration::from_secs(300);

/// Trains a network of the zoo and writes its weights.
#[derive(Parser, Debug)]
#[command(after_help = "NETWORKS:
  lenet, simplenet, svhn, svhn10, vgg11, vgg16, vgg16_3fc, resnet20 (projections as shortcuts),
  resnet20_option_a (shortcuts without weights, as most published checkpoints), alexnet, mobilenet_v1

EXAMPLES:
  train_network --network resnet20 --data-dir cifar10 --epochs 60 --output resnet20.safetensors
  train_network ... --state resnet20.state              can be stopped, and goes on when run again
  train_network ... --weights resnet20.safetensors --bits 4 --epochs 5 --learning-rate 0.005
  train_network ... --print-schedule > schedule.json     the schedule, to change by hand
  train_network ... --schedule schedule.json             train by it

Set NO_COLOR to print without colours.")]
struct Args {
    /// Network of the zoo, see below; a variant of it where the checkpoint is one
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Folder with `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, with CIFAR-10, SVHN or MNIST
    #[arg(
        long,
        value_name = "DIR",
        env = "RELEQ_DATA_DIR",
        required_unless_present = "print_schedule"
    )]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    /// Where the weights go, as safetensors
    #[arg(long, value_name = "FILE", required_unless_present = "print_schedule")]
    output: Option<PathBuf>,
    /// Keeps the state of the training here, every five minutes and at its end, and goes on from there if the file
    /// is there: a run that was stopped ends as if it had not been
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Weights to start from: PyTorch or safetensors [default: drawn from the seed]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Key in the checkpoint that the weights stand under [default: found]
    #[arg(long, value_name = "KEY", requires = "weights")]
    key: Option<String>,
    /// Bitwidth of the weights of every layer, as 8,4,4,8, or one for all; what is written stays in floating
    /// point [default: full precision]
    #[arg(long, value_name = "BITS")]
    bits: Option<BitwidthAssignment>,
    /// How they are quantized
    #[arg(long, default_value_t = QuantizerKind::WrpnScaled)]
    quantizer: QuantizerKind,
    /// Training schedule as JSON, see --print-schedule [default: the network's preset]
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Print the training schedule as JSON, with the options below in it, and end
    #[arg(long)]
    print_schedule: bool,
    /// Passes over the training images
    #[arg(long)]
    epochs: Option<f64>,
    /// Highest learning rate
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f32>,
    /// Images in one step
    #[arg(long, value_name = "N")]
    batch_size: Option<NonZeroUsize>,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What trains: native, flex (Burn), or, where they are built in, ndarray and wgpu (Burn, the latter on a GPU)
    #[arg(long, default_value_t = Backend::Native)]
    backend: Backend,
}

fn main() -> ExitCode {
    exit_code(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<ExitCode> {
    let mut network = checkpoint::network(&args.network)?;
    let schedule = schedule(args, network.name())?;
    let (Some(data_dir), Some(output), false) = (&args.data_dir, &args.output, args.print_schedule)
    else {
        println!("{}", serde_json::to_string_pretty(&schedule)?);
        return Ok(ExitCode::SUCCESS);
    };
    // Whatever is wrong shows before any image is read.
    Report::check_path(output)?;
    ensure!(args.state.as_ref() != Some(output), "--state and --output need a file each");
    let saved = match &args.state {
        Some(path) if path.exists() => Some(saved(path, args, &schedule)?),
        Some(path) => {
            Report::check_path(path)?;
            None
        }
        None => None,
    };
    let start = match &args.weights {
        Some(path) => {
            let (fitting, weights) = checkpoint::open(path, args.key.as_deref(), network)?;
            network = fitting;
            weights
        }
        None => initial_weights(&network, args.seed),
    };
    let bits = args.bits.as_ref().map(|bits| checkpoint::per_layer(bits, &network)).transpose()?;
    if let Some(state) = &saved {
        ensure!(
            state.run.bits == bits,
            "--bits: the state is of a training in {}",
            precision(state.run.bits.as_ref())
        );
    }
    let mut trainer = args.backend.trainer(&network, args.quantizer.build())?;
    trainer.load(&start)?;
    trainer.set_bits(bits.as_ref())?;

    let (images, _) = data::load_all(data_dir, &network, &args.images)?;
    let preset = zoo::preset(network.name()).context("every network has a preset")?;
    eprintln!(
        "data: {}, {} images to train on, {} to test on",
        images.source,
        images.train.len(),
        images.test.len()
    );

    let cancel = interrupt::cancel()?;
    let steps = schedule.steps(images.train.len());
    let bar = ProgressBar::new(steps as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} steps, {elapsed}, {eta} left  {msg}",
    )?);
    if bar.is_hidden() {
        eprintln!("{steps} steps of {} images", schedule.batch_size);
    }
    let (set, norm) = (&images.train, &preset.normalization);
    let mut training = match &saved {
        Some(state) => {
            let training = Training::resume(set, norm, state, trainer.as_mut())?;
            eprintln!("{} steps were taken before", training.report().steps);
            bar.set_position(training.report().steps as u64);
            bar.reset_eta();
            training
        }
        None => Training::new(set, norm, &schedule, args.seed)?,
    };
    let keep = |training: &Training<'_>, trainer: &dyn Trainer| -> Result<()> {
        if let Some(path) = &args.state {
            training.state(trainer).save(path)?;
        }
        Ok(())
    };
    let mut kept = Instant::now();
    while !cancel.is_cancelled()
        && let Some(progress) = training.step(trainer.as_mut())?
    {
        bar.set_position(progress.step as u64);
        bar.set_message(format!("epoch {:.2}, loss {:.4}", progress.epoch, progress.loss));
        if kept.elapsed() > SAVE_EVERY {
            keep(&training, trainer.as_ref())?;
            kept = Instant::now();
        }
    }
    bar.finish();

    keep(&training, trainer.as_ref())?;
    format::safetensors::save(output, &trainer.weights())?;
    let report = training.report();
    let test = train::accuracy(trainer.as_mut(), &images.test, &preset.normalization, 256)?;
    println!(
        "{} steps, mean loss {:.4}; {} of {} test images, {:.2} % ({}); written to {}",
        report.steps,
        report.mean_loss.unwrap_or(f64::NAN),
        test.correct,
        test.total,
        100.0 * test.accuracy(),
        precision(bits.as_ref()),
        output.display()
    );
    if let (true, Some(path)) = (report.stopped, &args.state) {
        eprintln!("the same command goes on from {}", path.display());
    }
    Ok(if report.stopped { INTERRUPTED.into() } else { ExitCode::SUCCESS })
}

fn precision(bits: Option<&BitwidthAssignment>) -> String {
    bits.map_or_else(|| "full precision".to_owned(), BitwidthAssignment::to_string)
}

/// The training in the file, which must be the one that the options ask for.
fn saved(path: &Path, args: &Args, schedule: &Schedule) -> Result<TrainingState> {
    let state = TrainingState::load(path)?;
    ensure!(
        (state.run.schedule, state.run.seed) == (*schedule, args.seed),
        "{} is of a training with another schedule or seed; give the same options, or remove it to begin anew",
        path.display()
    );
    Ok(state)
}

/// The preset's or the file's, and over it what the options say.
fn schedule(args: &Args, network: &str) -> Result<Schedule> {
    let preset = || {
        let preset = ExperimentConfig::preset(network, args.seed);
        preset.map(|config| config.pretrain).context("every network of the zoo has a preset")
    };
    let mut schedule = match &args.schedule {
        Some(path) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is no training schedule", path.display()))?
        }
        None => preset()?,
    };
    schedule.length = args.epochs.map_or(schedule.length, Length::Epochs);
    schedule.sgd.learning_rate = args.learning_rate.unwrap_or(schedule.sgd.learning_rate);
    schedule.batch_size = args.batch_size.map_or(schedule.batch_size, NonZeroUsize::get);
    schedule.check()?;
    Ok(schedule)
}
