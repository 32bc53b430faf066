//! `releq evaluate`: the accuracy of trained weights.

use std::{
    num::NonZeroUsize,
    ops::{ControlFlow, Range},
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
    time::Instant,
};

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    ExperimentConfig,
    core::{BitwidthAssignment, Network, parallel},
    data::{ImageSet, Normalization},
    train::{self, AccuracyReport, Backend, Schedule, Trainer, TrainerFactory},
};
use serde::Serialize;

use crate::{
    args::{
        DataArgs, Files, NetworkArgs, NormalizationArgs, PrecisionArgs, UsageError, WeightsArgs,
        images::{self, Split},
        options,
    },
    terminal::{output::print, tables},
};

/// Images that a thread takes at a time.
const CHUNK: usize = 100;

/// Measure the accuracy of trained weights
///
/// Full precision, or with --bits the weights rounded without retraining.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq evaluate simplenet --weights simplenet_cifar.pth.tar --data cifar10
  releq evaluate model.onnx --data photos/ --mean 0.5 --std 0.5
  releq evaluate ... --bits 8            8 bits for the weights of every layer
  releq evaluate ... --bits 8,5,5,5,8 --quantizer wrpn
  releq evaluate ... --bits 32,2,2,2,32  first and last layer in full precision
  releq evaluate ... --bits 4 --batch-norm-steps 50
  releq evaluate ... --images 500 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Which images to use
    #[arg(long, value_enum, default_value_t = Split::Test)]
    split: Split,
    /// Use at most this many images, with all classes in proportion
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    images: Option<NonZeroUsize>,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Re-estimate the batch norm statistics of the quantized network on this many batches of 128 training images; 50
    /// are enough. Weights do not change
    #[arg(
        long,
        value_name = "STEPS",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true
    )]
    batch_norm_steps: Option<usize>,
    #[command(flatten)]
    normalization: NormalizationArgs,
    /// Number of threads; does not affect the result [default: all cores]
    #[arg(long, value_name = "N", value_parser = options::threads, allow_negative_numbers = true)]
    threads: Option<NonZeroUsize>,
    /// What computes, one of `releq list backends` [default: native, or flex for a network that it does not support]
    #[arg(long, value_name = "BACKEND")]
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
    /// Whether the weights were rounded here, not in the file.
    #[serde(skip)]
    rounded: bool,
    batch_norm_steps: Option<usize>,
    normalization: Normalization,
    backend: Backend,
    threads: usize,
    /// Reading and decoding the images.
    load_seconds: f64,
    seconds: f64,
    images_per_second: f64,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        // The network, its weights, its bitwidths: whatever is wrong shows before any image is read.
        let named = self.network.required()?;
        Files::new()
            .reads("--network", self.network.file())
            .reads("--weights", self.weights.weights.as_ref())
            .check()?;
        let of_file = named.normalization.clone();
        let stored = named.quantized.as_ref().filter(|_| self.weights.weights.is_none());
        let stored = stored.map(|model| (model.bits(), model.quantizer().map(str::to_owned)));
        let (network, weights) = self.weights.of(named)?;
        let Some((path, state)) = weights else {
            let reason = "--weights: name the file with the weights to measure";
            return Err(UsageError(reason.to_owned()).into());
        };
        let bits = self.precision.assignment(&network)?;
        let normalization = self.normalization.required(&network, &self.data.images, of_file)?;
        let (backend, mut first) = self.trainer(&network)?;
        first.load(&state)?;
        first.set_bits(bits.as_ref())?;

        let source = self.data.required(&network)?;
        let started = Instant::now();
        let (images, data) = images::load(&source, self.split, self.images, &network)?;
        let load_seconds = started.elapsed().as_secs_f64();

        if let Some(steps) = self.batch_norm_steps {
            let limit = NonZeroUsize::new(steps.saturating_mul(128));
            let (train, _) = images::load(&source, Split::Train, limit, &network)?;
            // Images as the network was trained on, or its statistics would belong to others.
            let augmentation = ExperimentConfig::preset(network.name(), 1)
                .map(|config| config.pretrain.augmentation)
                .unwrap_or_default();
            let schedule = Schedule { augmentation, ..Schedule::statistics_only(steps, 128) };
            let mut go_on = |_| ControlFlow::Continue(());
            train::train(first.as_mut(), &train, &normalization, &schedule, 1, &mut go_on)?;
        }
        let state = first.weights();

        let threads = parallel::threads(self.threads.map_or(0, NonZeroUsize::get));
        let threads = threads.min(images.len().div_ceil(CHUNK));
        let another = || -> Result<Box<dyn Trainer>> {
            let mut trainer = backend.trainer(&network, self.precision.quantizer.build())?;
            trainer.load(&state)?;
            trainer.set_bits(bits.as_ref())?;
            Ok(trainer)
        };
        ensure!(
            images.classes() > 0,
            "{data}: the images have no labels, so there is no accuracy to measure; \
             `releq search --no-retraining` works without"
        );
        let started = Instant::now();
        let report = score(first, &another, threads, &images, &normalization)?;
        let seconds = started.elapsed().as_secs_f64();

        let rounded = bits.is_some();
        let (bits, quantizer) = match (bits, stored) {
            (None, Some((bits, quantizer))) => (Some(bits), quantizer),
            (bits, _) => {
                let quantizer = bits.as_ref().map(|_| self.precision.quantizer.to_string());
                (bits, quantizer)
            }
        };
        let outcome = Outcome {
            network: network.name().to_owned(),
            weights: path,
            data,
            split: self.split,
            correct: report.correct,
            total: report.total,
            accuracy: report.accuracy(),
            standard_error: report.standard_error(),
            mean_bits: bits.as_ref().map(BitwidthAssignment::mean),
            quantizer,
            rounded,
            bits,
            batch_norm_steps: self.batch_norm_steps,
            normalization,
            backend,
            threads,
            load_seconds,
            seconds,
            images_per_second: report.total as f64 / seconds.max(1e-9),
        };
        print(if self.json { serde_json::to_string_pretty(&outcome)? } else { table(&outcome) })?;
        Ok(ExitCode::SUCCESS)
    }

    /// A trainer on the backend that was asked for, or on the first that covers the network.
    fn trainer(&self, network: &Network) -> Result<(Backend, Box<dyn Trainer>)> {
        let on = |backend: Backend| {
            Ok((backend, backend.trainer(network, self.precision.quantizer.build())?))
        };
        match self.backend {
            Some(backend) => on(backend),
            None => on(Backend::Native).or_else(|_: anyhow::Error| on(Backend::Flex)),
        }
    }
}

/// Shows all images to the network in chunks. Each thread takes an idle trainer, or makes another one.
fn score(
    first: Box<dyn Trainer>,
    another: &(dyn Fn() -> Result<Box<dyn Trainer>> + Sync),
    threads: usize,
    images: &ImageSet,
    normalization: &Normalization,
) -> Result<AccuracyReport> {
    let bar = ProgressBar::new(images.len() as u64);
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
fn part(images: &ImageSet, range: Range<usize>) -> Result<ImageSet> {
    let pixels = range.clone().flat_map(|index| images.image(index)).copied().collect();
    let labels = range.map(|index| images.label(index)).collect();
    Ok(ImageSet::new(images.name(), images.shape(), images.classes(), pixels, labels)?)
}

fn table(outcome: &Outcome) -> String {
    let bits = match (&outcome.bits, &outcome.quantizer) {
        (Some(bits), Some(quantizer)) if outcome.rounded => {
            format!("{bits} ({quantizer}, not retrained)")
        }
        (Some(bits), Some(quantizer)) => format!("{bits} ({quantizer}, as in the file)"),
        (Some(bits), None) => format!("{bits} (as in the file)"),
        (None, _) => "full precision".to_owned(),
    };
    let mut table = tables::plain();
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
    tables::text(&table)
}
