//! Defines a network of your own and searches its bitwidths on an image folder.
//!
//! ```text
//! cargo run --example own_network                           generates a small folder of digits
//! cargo run --example own_network -- --data-dir my_images   uses yours: train/CLASS/*.jpg, test/CLASS/*.jpg
//! ```
//!
//! A network is data: a list of layers. Training, quantization, search and costs are derived from it. Images may
//! have any size, as long as all have the same size, and any number of classes.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::Parser;
use releq::{
    DataConfig, Experiment, ExperimentConfig,
    core::{Conv2d, Network, NetworkError},
    data::{
        ImageFolderConfig,
        digits::{self, DigitsConfig},
    },
    train::Length,
};
use releq_cli::{
    args::{SearchArgs, images::write_folder},
    terminal::exit_code,
};

/// Three convolutions, with batch norm after the second, and a linear layer that predicts the class.
fn my_network(input: [usize; 3], classes: usize) -> Result<Network, NetworkError> {
    Network::builder("mine", input)
        .conv2d("conv1", 8, 5)
        .relu("relu1")
        .max_pool("pool1", 2, 2)
        .conv("conv2", Conv2d::new(16, 3).padding(1).without_bias())
        .batch_norm("bn2")
        .relu("relu2")
        .conv("conv3", Conv2d::new(32, 3).stride(2))
        .relu("relu3")
        .flatten("flatten")
        .linear("fc", classes)
        .build()
}

fn main() -> ExitCode {
    exit_code(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<ExitCode> {
    args.search.check()?;
    let drawn = tempfile::tempdir()?;
    let folder = match &args.data_dir {
        Some(folder) => folder,
        None => draw_digits(drawn.path())?,
    };
    let source = DataConfig::Folder {
        path: folder.to_owned(),
        kind: None,
        images: ImageFolderConfig::default(),
    };
    let data = source.load()?;
    let network = my_network(data.train.shape(), data.train.classes())?;

    // The settings of LeNet suit most small networks. A fifth of the training images is held out for choices.
    let mut config =
        args.search.configure(ExperimentConfig::lenet(args.search.seed))?.with_data(source);
    config.validation = data.train.len() / 5;
    config.pretrain.length = Length::Epochs(10.0);
    config.budget.evaluations = args.search.evaluations.or(Some(40));
    args.search.start(&data.source.clone(), Experiment::new(network, data, config))
}

/// Searches the bitwidths of the network that this example defines.
#[derive(Parser, Debug)]
struct Args {
    /// Folder with `train/CLASS/*.jpg` and `test/CLASS/*.jpg` [default: a generated folder of digits]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    search: SearchArgs,
}

/// Writes 2,500 digits as PNG files, one folder for each of the ten classes.
fn draw_digits(folder: &Path) -> Result<&Path> {
    let data = digits::generate(&DigitsConfig { train: 2000, test: 500, ..Default::default() })?;
    write_folder(&folder.join("train"), &data.train)?;
    write_folder(&folder.join("test"), &data.test)?;
    Ok(folder)
}
