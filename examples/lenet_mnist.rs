//! Finds the bitwidths of LeNet: pretrains it, lets the agent search, retrains what it found.
//!
//! ```text
//! cargo run --example lenet_mnist
//! ```
//!
//! Uses MNIST where it finds it (`--data-dir`, the environment variable `RELEQ_DATA_DIR`, the user's
//! cache folder), fetches it if told to (`--download`), and draws its own digits otherwise. The
//! output always says which. Ctrl-C ends the run and still writes the best found so far.
#![allow(clippy::print_stderr, reason = "an example talks to its user")]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    DataConfig, Experiment, ExperimentConfig,
    data::{self, DataKind, Download, ImageFolderConfig, digits::DigitsConfig},
    zoo::lenet,
};
use releq_example_support::{SearchArgs, exit_code};

/// Finds a bitwidth for every layer of LeNet by reinforcement learning.
#[derive(Parser, Debug)]
#[command(after_help = "EXAMPLES:
  cargo run --example lenet_mnist                          the whole path on whatever data is there
  cargo run --example lenet_mnist -- --evaluations 30      a quick look
  cargo run --example lenet_mnist -- --download            fetch MNIST into the cache folder first
  cargo run --example lenet_mnist -- --json > report.json  for machines

Set NO_COLOR to print without colours.")]
struct Args {
    /// Folder with the four MNIST files, plain or .gz
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Fetch MNIST into the user's cache folder if it is not there
    #[arg(long, conflicts_with_all = ["data_dir", "digits"])]
    download: bool,
    /// Use the digits we draw ourselves even if MNIST is there
    #[arg(long, conflicts_with = "data_dir")]
    digits: bool,
    #[command(flatten)]
    search: SearchArgs,
}

fn main() -> ExitCode {
    exit_code(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<ExitCode> {
    args.search.check()?;
    let source = find_data(args)?;
    let data = source.load()?;
    let config = args.search.configure(ExperimentConfig::lenet(args.search.seed))?;
    let config = config.with_data(source);
    args.search.run(&data.source.clone(), Experiment::new(lenet(), data, config))
}

fn find_data(args: &Args) -> Result<DataConfig> {
    if !args.digits {
        let mut folder = data::find(DataKind::Mnist, args.data_dir.as_deref())?;
        if folder.is_none() && args.download {
            let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
                "download {bar:30} {bytes}/{total_bytes}, {eta} left, {msg}",
            )?);
            let download = Download::to_cache(DataKind::Mnist)?;
            folder = Some(data::download(&download, &mut |news| {
                bar.set_length(news.total.unwrap_or(0));
                bar.set_position(news.received);
                bar.set_message(news.file.to_owned());
            })?);
            bar.finish_and_clear();
        }
        if let Some(folder) = folder {
            let (kind, images) = (Some(DataKind::Mnist), ImageFolderConfig::default());
            return Ok(DataConfig::Folder { path: folder, kind, images });
        }
        eprintln!(
            "no MNIST found (--data-dir, RELEQ_DATA_DIR or --download): drawing digits instead"
        );
    }
    Ok(DataConfig::Digits(DigitsConfig { seed: args.search.seed, ..DigitsConfig::default() }))
}
