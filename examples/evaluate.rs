//! Scores a network of the zoo with trained weights on an image folder, in full precision or quantized.
//!
//! ```text
//! cargo run --release --example evaluate -- --network resnet20_option_a --weights resnet20-12fca82f.th --data-dir cifar10
//! ```
//!
//! Weights come from PyTorch (`.pt`, `.pth`, `.th`, `.tar`) or safetensors. The data folder holds
//! `test/CLASS/*.jpg` and `train/CLASS/*.jpg` (JPEG or PNG), or the files of MNIST for `lenet`. Nothing is
//! retrained: with `--bits`, the weights are rounded as they are.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::{
    num::NonZeroUsize,
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    core::{BitwidthAssignment, Network},
    data::{ImageSet, Normalization},
    quant::QuantizerKind,
    train::{self, AccuracyReport, Backend, Schedule, Trainer, TrainerFactory},
    zoo,
};
use releq_example_support::{
    checkpoint,
    data::{self, ImageArgs, Split},
    exit_code,
};
use serde::Serialize;

/// Images that a thread takes at a time.
const CHUNK: usize = 100;

/// Scores a network with trained weights, in full precision or quantized.
#[derive(Parser, Debug)]
#[command(after_help = "NETWORKS:
  lenet, simplenet, svhn, svhn10, vgg11, vgg16, vgg16_3fc, resnet20 (projections as shortcuts),
  resnet20_option_a (shortcuts without weights, as most published checkpoints), alexnet, mobilenet_v1

EXAMPLES:
  evaluate --network simplenet --weights simplenet_cifar.pth.tar --data-dir cifar10
  evaluate ... --bits 8                                 8 bits for the weights of every layer
  evaluate ... --bits 8,5,5,5,8 --quantizer wrpn        one bitwidth for each layer, the paper's quantizer
  evaluate ... --bits 4 --batch-norm-steps 50           with statistics of the quantized network
  evaluate ... --limit 500 --json                       a quick look, for machines

Set NO_COLOR to print without colours.")]
struct Args {
    /// Network of the zoo, see below; a variant of it where the checkpoint is one
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Checkpoint: PyTorch (.pt, .pth, .th, .tar; zip or legacy) or safetensors
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Key in the checkpoint that the weights stand under [default: found]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Folder with `test/CLASS/*.jpg` and `train/CLASS/*.jpg`, or with the files of MNIST
    #[arg(long, value_name = "DIR", env = "RELEQ_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    images: ImageArgs,
    /// Images to score on
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Score on this many images only, every class in its share
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Bitwidth of the weights of every layer, as 8,4,4,8, or one for all [default: full precision]
    #[arg(long, value_name = "BITS")]
    bits: Option<BitwidthAssignment>,
    /// Quantizer: wrpn-scaled, wrpn-scaled-per-channel, powers-of-two, wrpn or dorefa; the last two do not keep a
    /// layer's scale and need a retrain
    #[arg(long, default_value_t = QuantizerKind::WrpnScaled)]
    quantizer: QuantizerKind,
    /// First let batch norm estimate its statistics anew, on so many batches of 128 training images, as the
    /// quantized weights make them; no weight changes. 50 are plenty
    #[arg(long, value_name = "STEPS")]
    batch_norm_steps: Option<usize>,
    /// Mean of every channel where a pixel is 0 to 1, as 0.5,0.5,0.5 [default: the network's preset]
    #[arg(long, value_name = "MEAN", value_delimiter = ',', requires = "std")]
    mean: Option<Vec<f32>>,
    /// Standard deviation of every channel [default: the network's preset]
    #[arg(long, value_name = "STD", value_delimiter = ',', requires = "mean")]
    std: Option<Vec<f32>>,
    /// Threads; does not change the result [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// What computes: native, flex (Burn), or, where they are built in, ndarray and wgpu [default: native where it covers the network]
    #[arg(long)]
    backend: Option<Backend>,
    /// Print an object with `correct` and `total` instead of a table
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Outcome {
    network: String,
    weights: PathBuf,
    data: String,
    split: Split,
    correct: usize,
    total: usize,
    accuracy: f64,
    standard_error: f64,
    /// `null` is full precision.
    bits: Option<BitwidthAssignment>,
    mean_bits: Option<f64>,
    quantizer: Option<String>,
    batch_norm_steps: Option<usize>,
    normalization: Normalization,
    backend: Backend,
    threads: usize,
    /// Reading and decoding the images.
    load_seconds: f64,
    seconds: f64,
    images_per_second: f64,
}

fn main() -> ExitCode {
    exit_code(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    // The network, its weights, its bitwidths: whatever is wrong shows before any image is read.
    let name = &args.network;
    let network = checkpoint::network(name)?;
    let (network, state) = checkpoint::open(&args.weights, args.key.as_deref(), network)?;
    let preset = zoo::preset(network.name()).context("every network has a preset")?;
    let bits = args.bits.as_ref().map(|bits| checkpoint::per_layer(bits, &network)).transpose()?;
    let normalization = match (&args.mean, &args.std) {
        (Some(mean), Some(std)) => Normalization { mean: mean.clone(), std: std.clone() },
        _ => preset.normalization,
    };
    let (backend, mut first) = trainer(args, &network)?;
    first.load(&state)?;
    first.set_bits(bits.as_ref())?;

    let started = Instant::now();
    let (images, data) =
        data::load(&args.data_dir, args.split, args.limit, &network, &args.images)?;
    let load_seconds = started.elapsed().as_secs_f64();

    if let Some(steps) = args.batch_norm_steps {
        let (split, limit) = (Split::Train, NonZeroUsize::new(steps.saturating_mul(128)));
        let (train, _) = data::load(&args.data_dir, split, limit, &network, &args.images)?;
        let schedule = Schedule::statistics_only(steps, 128);
        let mut go_on = |_| ControlFlow::Continue(());
        train::train(first.as_mut(), &train, &normalization, &schedule, 1, &mut go_on)?;
    }
    let state = first.weights();

    // One trainer for each thread; the first was made already.
    let threads = args
        .threads
        .unwrap_or(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
        .get()
        .min(images.len().div_ceil(CHUNK));
    let mut trainers = vec![first];
    for _ in 1..threads {
        let mut trainer = backend.trainer(&network, args.quantizer.build())?;
        trainer.load(&state)?;
        trainer.set_bits(bits.as_ref())?;
        trainers.push(trainer);
    }
    let started = Instant::now();
    let report = score(trainers, &images, &normalization, args.json)?;
    let seconds = started.elapsed().as_secs_f64();

    let outcome = Outcome {
        network: network.name().to_owned(),
        weights: args.weights.clone(),
        data,
        split: args.split,
        correct: report.correct,
        total: report.total,
        accuracy: report.accuracy(),
        standard_error: report.standard_error(),
        mean_bits: bits.as_ref().map(BitwidthAssignment::mean),
        quantizer: bits.as_ref().map(|_| args.quantizer.to_string()),
        bits,
        batch_norm_steps: args.batch_norm_steps,
        normalization,
        backend,
        threads,
        load_seconds,
        seconds,
        images_per_second: report.total as f64 / seconds.max(1e-9),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print(&outcome);
    }
    Ok(())
}

/// A trainer on the backend that was asked for, or on the first that covers the network.
fn trainer(args: &Args, network: &Network) -> Result<(Backend, Box<dyn Trainer>)> {
    if let Some(backend) = args.backend {
        return Ok((backend, backend.trainer(network, args.quantizer.build())?));
    }
    match Backend::Native.trainer(network, args.quantizer.build()) {
        Ok(trainer) => Ok((Backend::Native, trainer)),
        Err(_) => Ok((Backend::Flex, Backend::Flex.trainer(network, args.quantizer.build())?)),
    }
}

/// Shows all images to the network, in chunks that the threads take in turn.
fn score(
    trainers: Vec<Box<dyn Trainer>>,
    images: &ImageSet,
    normalization: &Normalization,
    hidden: bool,
) -> Result<AccuracyReport> {
    let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(images.len() as u64) };
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} images, {per_sec}, {eta} left",
    )?);
    let next = AtomicUsize::new(0);
    let work = |mut trainer: Box<dyn Trainer>| -> Result<usize> {
        let mut correct = 0;
        loop {
            let start = next.fetch_add(CHUNK, Ordering::Relaxed);
            if start >= images.len() {
                return Ok(correct);
            }
            let chunk = part(images, start..images.len().min(start + CHUNK))?;
            correct += train::accuracy(&mut *trainer, &chunk, normalization, CHUNK)?.correct;
            bar.inc(chunk.len() as u64);
        }
    };
    let correct = std::thread::scope(|scope| {
        let running: Vec<_> =
            trainers.into_iter().map(|trainer| scope.spawn(|| work(trainer))).collect();
        let answers = running.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread ended before its work did")))
        });
        answers.sum::<Result<usize>>()
    })?;
    bar.finish_and_clear();
    Ok(AccuracyReport { correct, total: images.len() })
}

/// Some images as a set of their own.
fn part(images: &ImageSet, range: std::ops::Range<usize>) -> Result<ImageSet> {
    let pixels = range.clone().flat_map(|index| images.image(index)).copied().collect();
    let labels = range.map(|index| images.label(index)).collect();
    Ok(ImageSet::new(images.name(), images.shape(), images.classes(), pixels, labels)?)
}

fn print(outcome: &Outcome) {
    let bits = match (&outcome.bits, &outcome.quantizer) {
        (Some(bits), Some(quantizer)) => format!("{bits} ({quantizer}, not retrained)"),
        _ => "full precision".to_owned(),
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (label, value) in [
        ("network", outcome.network.clone()),
        ("weights", outcome.weights.display().to_string()),
        ("bits", bits),
        ("images", outcome.data.clone()),
        ("correct", format!("{} of {}", outcome.correct, outcome.total)),
        (
            "accuracy",
            format!(
                "{:.2} % (one standard error: {:.2})",
                100.0 * outcome.accuracy,
                100.0 * outcome.standard_error
            ),
        ),
        (
            "time",
            format!(
                "{:.1} s, {:.0} images/s on {} threads ({}); loading took {:.1} s",
                outcome.seconds,
                outcome.images_per_second,
                outcome.threads,
                outcome.backend,
                outcome.load_seconds
            ),
        ),
    ] {
        table.add_row([label, &value]);
    }
    println!("{table}");
}
