//! Trains any network of the zoo, from scratch or from a checkpoint, in full precision or with quantized weights,
//! and writes the weights as safetensors.
//!
//! ```text
//! cargo run --release --example train_network -- --network simplenet --data-dir cifar10 --output simplenet.safetensors
//! ```
//!
//! `evaluate` and `search_network` read these weights. Ctrl-C stops the training and still writes the current
//! weights; with `--state`, the same command resumes from there and gives the same result as an uninterrupted run.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
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
        self, Backend, Length, Schedule, StateSaver, TrainerFactory, Training, TrainingState,
        initial_weights, training_origin,
    },
    zoo,
};
use releq_example_support::{
    checkpoint,
    data::{self, ImageArgs},
    exit_code,
    interrupt::Interrupt,
    options,
    output::{note, print},
};

/// Trains a network and writes its weights.
#[derive(Parser, Debug)]
#[command(after_help = "NETWORKS:
  lenet, simplenet, svhn, svhn10, vgg11, vgg16, vgg16_3fc, resnet20 (projection shortcuts),
  resnet20_option_a (shortcuts without weights, as in most published checkpoints), alexnet, mobilenet_v1

EXAMPLES:
  train_network --network resnet20 --data-dir cifar10 --epochs 60 --output resnet20.safetensors
  train_network ... --state resnet20.state              resumable: run the same command again
  train_network ... --weights resnet20.safetensors --bits 4 --epochs 5 --learning-rate 0.005
  train_network ... --bits 32,2,2,32                    first and last layer in full precision
  train_network ... --print-schedule > schedule.json    write the schedule to edit it
  train_network ... --schedule schedule.json            train with the edited schedule

Set NO_COLOR to disable colors.")]
struct Args {
    /// Network architecture, one of those listed below
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Folder with `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or with MNIST, CIFAR-10 or SVHN
    #[arg(
        long,
        value_name = "DIR",
        env = "RELEQ_DATA_DIR",
        required_unless_present = "print_schedule"
    )]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    /// Safetensors file to write the weights to
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
    /// Weights to start from: PyTorch (.pt, .pth, .th, .tar) or safetensors [default: random]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Key of the checkpoint under which the weights are stored [default: detected]
    #[arg(long, value_name = "KEY", requires = "weights")]
    key: Option<String>,
    /// Bitwidths of the weights during training, one per layer or one for all layers; 32 is full precision. The
    /// output file always contains floating-point weights [default: 32]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    bits: Vec<BitwidthAssignment>,
    /// Quantizer: wrpn-scaled, wrpn-scaled-per-channel, dorefa, wrpn or powers-of-two
    #[arg(long, default_value_t = QuantizerKind::WrpnScaled)]
    quantizer: QuantizerKind,
    /// JSON file with the training schedule, as printed by --print-schedule [default: the network's preset]
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Print the training schedule as JSON, including the options below, and exit
    #[arg(long)]
    print_schedule: bool,
    /// Number of passes over the training images
    #[arg(long, value_parser = options::not_negative, allow_hyphen_values = true)]
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
        default_value_t = 1,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// Training backend: native or flex (Burn); if enabled at build time, also ndarray (Burn) and wgpu (Burn, on a
    /// GPU)
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
        print(serde_json::to_string_pretty(&schedule)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    // Whatever is wrong shows before any image is read.
    Report::check_path(output)?;
    ensure!(args.state.as_ref() != Some(output), "--state and --output need a file each");
    args.state.as_ref().map_or(Ok(()), Report::check_path)?;
    let start = match &args.weights {
        Some(path) => {
            let (fitting, weights) = checkpoint::open(path, args.key.as_deref(), network)?;
            network = fitting;
            weights
        }
        None => initial_weights(&network, args.seed),
    };
    let saved = match &args.state {
        Some(path) if path.exists() => Some(saved(path, network.name(), args, &schedule)?),
        _ => None,
    };
    let bits = options::weight_bits("--bits", &args.bits, args.quantizer)?;
    let bits = bits.map(|bits| checkpoint::per_layer("--bits", &bits, &network)).transpose()?;
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
    note(format_args!(
        "data: {}, {} training images, {} test images",
        images.source,
        images.train.len(),
        images.test.len()
    ));

    let (set, norm) = (&images.train, &preset.normalization);
    schedule.check_images(set)?;
    let origin = match &args.state {
        Some(path) => {
            let origin = training_origin(set, &start, &args.backend.to_string())?;
            if let Some(state) = &saved {
                state.run.check_origin(&origin).with_context(|| {
                    format!(
                        "{}; remove it to start over, or train with what it was begun with",
                        path.display()
                    )
                })?;
            }
            origin
        }
        None => BTreeMap::new(),
    };

    let interrupt = Interrupt::new()?;
    let steps = schedule.steps(set.len());
    let bar = ProgressBar::new(steps as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} steps, {elapsed}, {eta} left  {msg}",
    )?);
    if bar.is_hidden() {
        note(format_args!("{steps} steps of {} images", schedule.batch_size));
    }
    let mut training = match &saved {
        Some(state) => {
            let training = Training::resume(set, norm, state, trainer.as_mut())?;
            note(format_args!("resuming after {} steps", training.report().steps));
            bar.set_position(training.report().steps as u64);
            bar.reset_eta();
            training
        }
        None => Training::new(set, norm, &schedule, args.seed)?.origin(origin),
    };
    let every = Duration::try_from_secs_f64(args.save_every).unwrap_or(Duration::MAX);
    let mut saver = args.state.as_ref().map(|path| StateSaver::new(path, every));
    while !interrupt.cancel.is_cancelled()
        && let Some(progress) = training.step(trainer.as_mut())?
    {
        bar.set_position(progress.step as u64);
        bar.set_message(format!("epoch {:.2}, loss {:.4}", progress.epoch, progress.loss));
        // That the state cannot be written is no reason to end a training.
        let saved = saver.as_mut().map_or(Ok(()), |s| s.if_due(&training, trainer.as_ref()));
        if let Err(error) = saved.map_err(anyhow::Error::from) {
            note(format_args!("warning: the state is not saved: {error:#}; training goes on"));
        }
    }
    bar.finish();

    // Either file is of use without the other, so that a full disk loses as little as it can.
    let weights = format::safetensors::save(output, &trainer.weights());
    let state = saver.as_mut().map_or(Ok(()), |s| s.now(&training, trainer.as_ref()));
    let report = training.report();
    let precision = precision(bits.as_ref());
    let loss = report.mean_loss.map(|loss| format!("mean loss {loss:.4}, ")).unwrap_or_default();
    let trained = format!("{} steps, {loss}{precision}", report.steps);
    let place = match &weights {
        Ok(()) => format!("written to {}", output.display()),
        Err(_) => "the weights could not be written".to_owned(),
    };
    if report.stopped {
        // Whoever stops a training does not wait for all test images.
        print(format_args!("stopped after {trained}; {place}"))?;
    } else {
        let test = train::accuracy(trainer.as_mut(), &images.test, norm, 256)?;
        print(format_args!(
            "{trained}; {} of {} test images correct, {:.2} %; {place}",
            test.correct,
            test.total,
            100.0 * test.accuracy(),
        ))?;
    }
    weights?;
    state?;
    if !report.stopped {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &args.state {
        note(format_args!("the same command resumes from {}", path.display()));
    }
    Ok(interrupt.exit_code().into())
}

fn precision(bits: Option<&BitwidthAssignment>) -> String {
    bits.map_or_else(|| "full precision".to_owned(), BitwidthAssignment::to_string)
}

/// The training in the file, which must be the one that the options ask for.
fn saved(path: &Path, network: &str, args: &Args, schedule: &Schedule) -> Result<TrainingState> {
    let state = TrainingState::load(path)?;
    state.run.check_settings(network, schedule, args.seed).with_context(|| {
        format!("{}; give the same options, or remove it to begin anew", path.display())
    })?;
    Ok(state)
}

/// The preset's or the file's, and over it what the options say.
fn schedule(args: &Args, network: &str) -> Result<Schedule> {
    let preset = || {
        let preset = ExperimentConfig::preset(network, args.seed);
        preset.map(|config| config.pretrain).context("every network of the zoo has a preset")
    };
    let mut schedule = match &args.schedule {
        Some(path) => options::settings(path).context("--schedule")?,
        None => preset()?,
    };
    schedule.length = args.epochs.map_or(schedule.length, Length::Epochs);
    schedule.sgd.learning_rate = args.learning_rate.unwrap_or(schedule.sgd.learning_rate);
    schedule.batch_size = args.batch_size.map_or(schedule.batch_size, NonZeroUsize::get);
    schedule.check()?;
    Ok(schedule)
}
