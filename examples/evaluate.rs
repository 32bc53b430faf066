//! Measures the accuracy of trained weights on a data set, in full precision or quantized.
//!
//! ```text
//! cargo run --release --example evaluate -- --network resnet20_option_a --weights resnet20-12fca82f.th --data-dir cifar10
//! ```
//!
//! Weights come from PyTorch (`.pt`, `.pth`, `.th`, `.tar`) or safetensors. The data folder contains
//! `test/CLASS/*.jpg` and `train/CLASS/*.jpg` (JPEG, PNG or WebP), or the files of MNIST, CIFAR-10 or SVHN. With
//! `--bits`, the weights are rounded without retraining.

use std::{
    num::NonZeroUsize, ops::ControlFlow, path::PathBuf, process::ExitCode, sync::Mutex,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Parser;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    core::{BitwidthAssignment, Network, parallel},
    data::{ImageSet, Normalization, image_folder},
    quant::QuantizerKind,
    train::{self, AccuracyReport, Backend, Schedule, Trainer, TrainerFactory},
    zoo,
};
use releq_example_support::{
    checkpoint,
    data::{self, ImageArgs, Split},
    exit_code, options,
    output::print,
};
use serde::Serialize;

/// Images that a thread takes at a time.
const CHUNK: usize = 100;

/// Measures the accuracy of trained weights, in full precision or quantized.
#[derive(Parser, Debug)]
#[command(after_help = "NETWORKS:
  lenet, simplenet, svhn, svhn10, vgg11, vgg16, vgg16_3fc, resnet20 (projection shortcuts),
  resnet20_option_a (shortcuts without weights, as in most published checkpoints), alexnet, mobilenet_v1

EXAMPLES:
  evaluate --network simplenet --weights simplenet_cifar.pth.tar --data-dir cifar10
  evaluate ... --bits 8                                 8 bits for the weights of every layer
  evaluate ... --bits 8,5,5,5,8 --quantizer wrpn        one bitwidth per layer, with the paper's quantizer
  evaluate ... --bits 32,2,2,2,32                       first and last layer in full precision
  evaluate ... --bits 4 --batch-norm-steps 50           with batch norm statistics of the quantized network
  evaluate ... --limit 500 --json                       a quick look, as JSON

Set NO_COLOR to disable colors.")]
struct Args {
    /// Network architecture, one of those listed below
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Checkpoint to load: PyTorch (.pt, .pth, .th, .tar) or safetensors
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Key of the checkpoint under which the weights are stored [default: detected]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Folder with `test/CLASS/*.jpg` and `train/CLASS/*.jpg`, or with MNIST, CIFAR-10 or SVHN
    #[arg(long, value_name = "DIR", env = "RELEQ_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    images: ImageArgs,
    /// Which images to use
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Use at most this many images, with all classes in proportion
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    limit: Option<NonZeroUsize>,
    /// Bitwidths of the weights, one per layer or one for all layers; 32 is full precision [default: 32]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    bits: Vec<BitwidthAssignment>,
    /// Quantizer: wrpn-scaled, wrpn-scaled-per-channel, powers-of-two, wrpn or dorefa; the last two do not
    /// preserve the scale of a layer and need retraining
    #[arg(long, default_value_t = QuantizerKind::WrpnScaled)]
    quantizer: QuantizerKind,
    /// Re-estimate the batch norm statistics of the quantized network on this many batches of 128 training
    /// images; 50 are enough. Weights do not change
    #[arg(
        long,
        value_name = "STEPS",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true
    )]
    batch_norm_steps: Option<usize>,
    /// Mean of each channel, for pixels scaled to 0..1, such as 0.5,0.5,0.5 [default: the network's preset]
    #[arg(
        long,
        value_name = "MEAN",
        value_delimiter = ',',
        value_parser = options::mean,
        allow_hyphen_values = true,
        requires = "std"
    )]
    mean: Vec<f32>,
    /// Standard deviation of each channel [default: the network's preset]
    #[arg(
        long,
        value_name = "STD",
        value_delimiter = ',',
        value_parser = options::deviation,
        allow_hyphen_values = true,
        requires = "mean"
    )]
    std: Vec<f32>,
    /// Number of threads; does not affect the result [default: all cores]
    #[arg(long, value_name = "N", value_parser = options::threads, allow_negative_numbers = true)]
    threads: Option<NonZeroUsize>,
    /// Inference backend: native or flex (Burn); if enabled at build time, also ndarray (Burn) and wgpu (Burn, on a
    /// GPU) [default: native if it supports the network, otherwise flex]
    #[arg(long)]
    backend: Option<Backend>,
    /// Print a JSON object, with `correct` and `total`, instead of a table
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
    let bits = options::weight_bits("--bits", &args.bits, args.quantizer)?;
    let bits = bits.map(|bits| checkpoint::per_layer("--bits", &bits, &network)).transpose()?;
    let normalization = match args.mean.as_slice() {
        [] => preset.normalization,
        mean => options::normalization(mean, &args.std, &network)?,
    };
    let (backend, mut first) = trainer(args, &network)?;
    first.load(&state)?;
    first.set_bits(bits.as_ref())?;

    // Classes have the numbers that they have in the training images.
    image_folder::check_classes(&args.data_dir)?;
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

    let threads = parallel::threads(args.threads.map_or(0, NonZeroUsize::get));
    let threads = threads.min(images.len().div_ceil(CHUNK));
    let another = || -> Result<Box<dyn Trainer>> {
        let mut trainer = backend.trainer(&network, args.quantizer.build())?;
        trainer.load(&state)?;
        trainer.set_bits(bits.as_ref())?;
        Ok(trainer)
    };
    let started = Instant::now();
    let report = score(first, &another, threads, &images, &normalization, args.json)?;
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
    print(if args.json { serde_json::to_string_pretty(&outcome)? } else { table(&outcome) })
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

/// Shows all images to the network in chunks. Each thread takes an idle trainer, or makes another one.
fn score(
    first: Box<dyn Trainer>,
    another: &(dyn Fn() -> Result<Box<dyn Trainer>> + Sync),
    threads: usize,
    images: &ImageSet,
    normalization: &Normalization,
    hidden: bool,
) -> Result<AccuracyReport> {
    let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(images.len() as u64) };
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} images, {per_sec}, {eta} left",
    )?);
    let idle = Mutex::new(vec![first]);
    let chunks = (0..images.len()).step_by(CHUNK);
    let correct = parallel::try_map(chunks, threads, |start| -> Result<usize> {
        let waiting = idle.lock().ok().and_then(|mut idle| idle.pop());
        let mut trainer = waiting.map_or_else(another, Ok)?;
        let chunk = part(images, start..images.len().min(start + CHUNK))?;
        let correct = train::accuracy(&mut *trainer, &chunk, normalization, CHUNK)?.correct;
        bar.inc(chunk.len() as u64);
        if let Ok(mut idle) = idle.lock() {
            idle.push(trainer);
        }
        Ok(correct)
    })?;
    bar.finish_and_clear();
    Ok(AccuracyReport { correct: correct.into_iter().sum(), total: images.len() })
}

/// Some images as a set of their own.
fn part(images: &ImageSet, range: std::ops::Range<usize>) -> Result<ImageSet> {
    let pixels = range.clone().flat_map(|index| images.image(index)).copied().collect();
    let labels = range.map(|index| images.label(index)).collect();
    Ok(ImageSet::new(images.name(), images.shape(), images.classes(), pixels, labels)?)
}

fn table(outcome: &Outcome) -> String {
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
    table.to_string()
}
