//! Searches the bitwidths of any network of the zoo: loads or trains weights, runs the agent, retrains what it found,
//! and compares.
//!
//! ```text
//! cargo run --release --example search_network -- simplenet --weights simplenet_cifar.pth.tar --data cifar10
//! ```
//!
//! The data folder contains `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (JPEG, PNG, WebP, BMP, TIFF or PNM), or the
//! files of MNIST, CIFAR-10 or SVHN. All decisions are made on held-out images; the images of the report are used for nothing else.
//! Ctrl-C stops the run and still writes the best result so far.

use std::{num::NonZeroUsize, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use releq::{
    Experiment, ExperimentConfig, HeldOut, WeightsConfig,
    train::{Length, Schedule},
};
use releq_cli::{
    args::{DataArgs, NetworkArgs, SearchArgs, WeightsArgs, checkpoint, images, options},
    terminal::exit_code,
};

/// Finds a bitwidth for every layer of a network by reinforcement learning.
#[derive(Parser, Debug)]
#[command(after_help = "NETWORKS:
  lenet, simplenet, svhn, svhn10, vgg11, vgg16, vgg16_3fc, resnet20 (projection shortcuts),
  resnet20_option_a (shortcuts without weights, as in most published checkpoints), alexnet, mobilenet_v1

Each network has a preset for the quantizer, the layers to search, normalization and retraining. Presets mostly
follow the paper's authors and are slow. For a quick search of a small network, retrain for one epoch at a higher
learning rate.

EXAMPLES:
  search_network lenet --data mnist                  train LeNet, then search
  search_network simplenet --weights simplenet_cifar.pth.tar --data cifar10 --minutes 30
  search_network ... --short-epochs 1 --long-epochs 10 --learning-rate 0.01 --batch-size 64
  search_network ... --fine-tune 5 --quantizer wrpn-scaled         train the checkpoint on this data first
  search_network ... --evaluations 0                               no search: published and uniform bits only

Set NO_COLOR to disable colors.")]
struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Fine-tune the checkpoint in full precision for this many epochs first, with the settings of the long
    /// retrain
    #[arg(
        long,
        value_name = "EPOCHS",
        requires = "weights",
        value_parser = options::not_negative,
        allow_hyphen_values = true
    )]
    fine_tune: Option<f64>,
    /// Epochs of full-precision training without a checkpoint [default: the network's preset]
    #[arg(
        long,
        conflicts_with = "weights",
        value_parser = options::not_negative,
        allow_hyphen_values = true
    )]
    epochs: Option<f64>,
    /// Epochs of the short retrain, which every assignment gets during the search [default: the preset]
    #[arg(
        long,
        value_name = "EPOCHS",
        value_parser = options::not_negative,
        allow_hyphen_values = true
    )]
    short_epochs: Option<f64>,
    /// Epochs of the long retrain, which the best assignments get at the end [default: the preset]
    #[arg(
        long,
        value_name = "EPOCHS",
        value_parser = options::not_negative,
        allow_hyphen_values = true
    )]
    long_epochs: Option<f64>,
    /// Peak learning rate of both retrains [default: the preset]
    #[arg(long, value_name = "RATE", value_parser = options::rate, allow_hyphen_values = true)]
    learning_rate: Option<f32>,
    /// Batch size of both retrains [default: the preset]
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    batch_size: Option<NonZeroUsize>,
    /// Shift training images randomly by up to this many pixels in both retrains [default: the preset]
    #[arg(
        long,
        value_name = "PIXELS",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true
    )]
    shift: Option<usize>,
    /// Flip training images horizontally at random in both retrains
    #[arg(long)]
    mirror: bool,
    /// Number of held-out images, on which all decisions are made [default: 5000, or fewer for small data sets]
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    held_out: Option<NonZeroUsize>,
    /// Hold out test images instead of training images, because a published checkpoint was trained on the
    /// latter; the report uses the remaining test images
    #[arg(long)]
    held_out_from_test: bool,
    #[command(flatten)]
    search: SearchArgs,
}

fn main() -> ExitCode {
    exit_code(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<ExitCode> {
    // Files, network, weights and settings: whatever is wrong shows before any image is read.
    args.search.check()?;
    let network = args.network.required()?;
    let (network, weights) = match &args.weights.weights {
        Some(path) => {
            let (network, weights) = checkpoint::open(path, args.weights.key.as_deref(), network)?;
            (network, Some(weights))
        }
        None => (network, None),
    };
    let config = args.search.configure(settings(args, network.name())?)?;

    let source = args.data.required(&network)?;
    let data = images::load_all(&source, &network)?;
    let mut config = config.with_data(source);
    // A whole checkpoint of this very network can be read again from the configuration alone.
    if let (Some(path), None) = (&args.weights.weights, &args.weights.key) {
        config.weights = Some(WeightsConfig::File(path.clone()).into());
    }
    if args.held_out_from_test {
        config.held_out = HeldOut::Test;
    }
    let most = match config.held_out {
        HeldOut::Training => data.train.len() / 5,
        HeldOut::Test => data.test.len() / 2,
    };
    config.validation = args.held_out.map_or(config.validation.min(most), NonZeroUsize::get);
    let source = data.source.clone();
    let mut experiment = Experiment::new(network, data, config);
    if let Some(weights) = weights {
        experiment = experiment.weights(weights);
    }
    args.search.start(&source, experiment)
}

/// The network's preset, and over it what the options say of training.
fn settings(args: &Args, network: &str) -> Result<ExperimentConfig> {
    let mut config = ExperimentConfig::preset(network, args.search.seed)
        .context("every network of the zoo has a preset")?;
    for (schedule, epochs) in [
        (&mut config.short_retrain, args.short_epochs),
        (&mut config.long_retrain, args.long_epochs),
    ] {
        schedule.length = epochs.map_or(schedule.length, Length::Epochs);
        schedule.sgd.learning_rate = args.learning_rate.unwrap_or(schedule.sgd.learning_rate);
        schedule.batch_size = args.batch_size.map_or(schedule.batch_size, NonZeroUsize::get);
        let augmentation = &mut schedule.augmentation;
        augmentation.max_shift = args.shift.unwrap_or(augmentation.max_shift);
        augmentation.mirror |= args.mirror;
        schedule.check()?;
    }
    if let Some(epochs) = args.epochs {
        config.pretrain.length = Length::Epochs(epochs);
    }
    config.fine_tune = args
        .fine_tune
        .map(|epochs| Schedule { length: Length::Epochs(epochs), ..config.long_retrain });
    for schedule in config.fine_tune.iter().chain([&config.pretrain]) {
        schedule.check()?;
    }
    Ok(config)
}
