//! Finds the bitwidths of any network of the zoo: takes its weights from a checkpoint or trains them, lets
//! the agent search, retrains what it found, and compares.
//!
//! ```text
//! cargo run --release --example search_network -- --network simplenet --weights simplenet_cifar.pth.tar --data-dir cifar10
//! ```
//!
//! The data folder holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (JPEG, PNG or WebP), or the files of MNIST
//! for `lenet`. Every choice is made on held-out images; those that the report counts serve it alone.
//! Ctrl-C ends the run and still writes the best found so far.
#![allow(clippy::print_stderr, reason = "an example talks to its user")]

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use releq::{
    Experiment, ExperimentConfig, HeldOut, WeightsConfig,
    train::{Length, Schedule},
};
use releq_example_support::{
    SearchArgs, checkpoint,
    data::{self, ImageArgs},
    exit_code,
};

/// Finds a bitwidth for every layer of a network of the zoo by reinforcement learning.
#[derive(Parser, Debug)]
#[command(after_help = "NETWORKS:
  lenet, simplenet, svhn, svhn10, vgg11, vgg16, vgg16_3fc, resnet20 (projections as shortcuts),
  resnet20_option_a (shortcuts without weights, as most published checkpoints), alexnet, mobilenet_v1

Quantizer, searched layers, normalization and retrains are the network's preset: mostly what the paper's
authors used, and slow. A quick search of a small network retrains for an epoch at a higher rate.

EXAMPLES:
  search_network --network lenet --data-dir mnist                  trains LeNet, then searches
  search_network --network simplenet --weights simplenet_cifar.pth.tar --data-dir cifar10 --minutes 30
  search_network ... --short-epochs 1 --long-epochs 10 --learning-rate 0.01 --batch-size 64
  search_network ... --fine-tune 5 --quantizer wrpn-scaled         trains the checkpoint on this data first
  search_network ... --evaluations 0                               no search: published and uniform bits only

Set NO_COLOR to print without colours.")]
struct Args {
    /// Network of the zoo, see below; a variant of it where the checkpoint is one
    #[arg(long, value_name = "NAME")]
    network: String,
    /// Folder with `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, or with the files of MNIST
    #[arg(long, value_name = "DIR", env = "RELEQ_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    images: ImageArgs,
    /// Full-precision weights: PyTorch (.pt, .pth, .th, .tar; zip or legacy) or safetensors [default: trained]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Key in the checkpoint that the weights stand under [default: found]
    #[arg(long, value_name = "KEY", requires = "weights")]
    key: Option<String>,
    /// Train the checkpoint in full precision first, as the long retrain does, for so many epochs
    #[arg(long, value_name = "EPOCHS", requires = "weights")]
    fine_tune: Option<f64>,
    /// Epochs of full-precision training where there is no checkpoint [default: the network's preset]
    #[arg(long, conflicts_with = "weights")]
    epochs: Option<f64>,
    /// Epochs of the retrain of every assignment that the search measures [default: the preset]
    #[arg(long, value_name = "EPOCHS")]
    short_epochs: Option<f64>,
    /// Epochs of the retrain at the end [default: the preset]
    #[arg(long, value_name = "EPOCHS")]
    long_epochs: Option<f64>,
    /// Highest learning rate of both retrains [default: the preset]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f32>,
    /// Images in one step of both retrains [default: the preset]
    #[arg(long, value_name = "N")]
    batch_size: Option<NonZeroUsize>,
    /// Shift training images at random by up to so many pixels in both retrains [default: the preset]
    #[arg(long, value_name = "PIXELS")]
    shift: Option<usize>,
    /// Mirror every other training image at random in both retrains
    #[arg(long)]
    mirror: bool,
    /// Images held out for every choice [default: 5000, of small sets less]
    #[arg(long, value_name = "N")]
    held_out: Option<usize>,
    /// Hold out test images instead of training images, which a published checkpoint has mostly seen; the
    /// report then counts the other test images
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
    let network = checkpoint::network(&args.network)?;
    let (network, weights) = match &args.weights {
        Some(path) => {
            let (network, weights) = checkpoint::open(path, args.key.as_deref(), network)?;
            (network, Some(weights))
        }
        None => (network, None),
    };
    let config = args.search.configure(settings(args, network.name())?)?;

    let (data, source) = data::load_all(&args.data_dir, &network, &args.images)?;
    let mut config = config.with_data(source);
    // A whole checkpoint of this very network can be read again from the configuration alone.
    if let (Some(path), None) = (&args.weights, &args.key) {
        config.weights = Some(WeightsConfig::File(path.clone()).into());
    }
    if args.held_out_from_test {
        config.held_out = HeldOut::Test;
    }
    let most = match config.held_out {
        HeldOut::Training => data.train.len() / 5,
        HeldOut::Test => data.test.len() / 2,
    };
    config.validation = args.held_out.unwrap_or(config.validation.min(most));
    let source = data.source.clone();
    let mut experiment = Experiment::new(network, data, config);
    if let Some(weights) = weights {
        experiment = experiment.weights(weights);
    }
    args.search.run(&source, experiment)
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
