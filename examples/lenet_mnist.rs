//! Searches the bitwidths of LeNet: pretrains it, runs the agent, and retrains what it found.
//!
//! ```text
//! cargo run --example lenet_mnist
//! ```
//!
//! Looks for MNIST in `--data-dir`, in the folder that `RELEQ_DATA_DIR` names, and in the user's cache folder;
//! `--download` fetches it. Without MNIST, the example generates its own digits. The output says which data was used.
//! Ctrl-C stops the run and still writes the best result so far.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    DataConfig, Experiment, ExperimentConfig,
    data::{self, DataKind, Download, ImageFolderConfig, digits::DigitsConfig},
    zoo::lenet,
};
use releq_cli::{
    args::SearchArgs,
    terminal::{exit_code, output::note},
};

/// Finds a bitwidth for every layer of LeNet by reinforcement learning.
#[derive(Parser, Debug)]
#[command(after_help = "EXAMPLES:
  cargo run --example lenet_mnist                          the complete path on whatever data is available
  cargo run --example lenet_mnist -- --evaluations 30      a quick look
  cargo run --example lenet_mnist -- --download            download MNIST first
  cargo run --example lenet_mnist -- --json > report.json  the report as JSON

Set NO_COLOR to disable colors.")]
struct Args {
    /// Folder with the four MNIST files, plain or gzip-compressed
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Download MNIST into the user's cache folder unless it is there
    #[arg(long, conflicts_with_all = ["data_dir", "digits"])]
    download: bool,
    /// Use generated digits even if MNIST is available
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
    args.search.start(&data.source.clone(), Experiment::new(lenet(), data, config))
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
        note("MNIST not found (see --data-dir, RELEQ_DATA_DIR and --download): generating digits");
    }
    Ok(DataConfig::Digits(DigitsConfig { seed: args.search.seed, ..DigitsConfig::default() }))
}
