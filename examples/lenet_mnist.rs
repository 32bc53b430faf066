//! Finds the bitwidths of LeNet: pretrains it, lets the agent search, retrains what it found.
//!
//! ```text
//! cargo run --example lenet_mnist
//! ```
//!
//! Uses MNIST where it finds it (`--data-dir`, the environment variable `RELEQ_DATA_DIR`, the user's
//! cache folder), fetches it if told to (`--download`), and draws its own digits otherwise. The
//! output always says which. Ctrl-C ends the run and still writes the best found so far.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use releq::{
    Experiment, ExperimentConfig, Progress, ReleqError, Report, Stage,
    core::Bitwidth,
    evaluate::Backend,
    quant::QuantizerKind,
    zoo::{
        data::{DataSet, digits, mnist},
        networks::lenet,
    },
};

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
    /// Everything random follows from it: equal seeds give equal reports
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Evaluations side by side; does not change the result [default: all cores]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Assignments that the search may measure
    #[arg(long)]
    evaluations: Option<usize>,
    /// Minutes after which the search stops; runs then may differ
    #[arg(long)]
    minutes: Option<f64>,
    /// Bitwidths to choose from, from 1 to 8 [default: 2,3,4,5,6,7,8]
    #[arg(long, value_delimiter = ',', value_name = "BITS")]
    bits: Vec<Bitwidth>,
    /// Accepted loss of accuracy in percentage points
    #[arg(long, default_value_t = 0.3, value_name = "POINTS")]
    tolerance: f64,
    /// Quantizer: wrpn-scaled, dorefa or wrpn [default: wrpn-scaled]
    #[arg(long)]
    quantizer: Option<QuantizerKind>,
    /// What trains: native, or flex (Burn)
    #[arg(long, default_value_t = Backend::Native)]
    backend: Backend,
    /// Leave out the random and the layer-by-layer search with as many evaluations
    #[arg(long)]
    no_comparison: bool,
    /// Write the whole report as JSON
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the final table as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print the report as JSON instead of tables
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let args = Args::parse();
    for path in args.output.iter().chain(&args.csv) {
        Report::check_path(path)?;
    }
    let data = find_data(&args)?;
    eprintln!("data: {}", data.source);

    let mut config = ExperimentConfig::lenet(args.seed);
    config.threads =
        args.threads.unwrap_or(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    config.backend = args.backend;
    config.tolerance = args.tolerance / 100.0;
    config.quantizer = args.quantizer.unwrap_or(config.quantizer);
    if !args.bits.is_empty() {
        config.actions.clone_from(&args.bits);
    }
    config.compare = !args.no_comparison;
    if args.evaluations.is_some() {
        config.budget.evaluations = args.evaluations;
    }
    if let Some(minutes) = args.minutes {
        config.budget.wall_time = Some(
            Duration::try_from_secs_f64(60.0 * minutes).context("--minutes must be positive")?,
        );
    }

    // The first Ctrl-C ends the run in good order, the second at once.
    let cancel = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&cancel);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;

    let bars = Bars::new(args.json);
    let outcome = Experiment::new(lenet(), data, config).run(&cancel, &|news| bars.show(&news));
    bars.finish();
    let report = match outcome {
        Err(ReleqError::Cancelled) => {
            eprintln!("stopped before the search began; there is nothing to write");
            std::process::exit(130);
        }
        other => other?,
    };

    if let Some(path) = &args.output {
        report.write_json(path)?;
    }
    if let Some(path) = &args.csv {
        report.write_csv(path)?;
    }
    if args.json {
        println!("{}", report.to_json())
    } else {
        print(&report)
    }
    if report.cancelled {
        std::process::exit(130);
    }
    Ok(())
}

fn find_data(args: &Args) -> Result<DataSet> {
    if !args.digits {
        let mut folder = mnist::find(args.data_dir.as_deref())?;
        if folder.is_none() && args.download {
            let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
                "download {bar:30} {bytes}/{total_bytes}, {eta} left, {msg}",
            )?);
            let download = mnist::Download::to_cache()?;
            folder = Some(mnist::download(&download, &mut |news| {
                bar.set_length(news.total.unwrap_or(0));
                bar.set_position(news.received);
                bar.set_message(news.file.to_owned());
            })?);
            bar.finish_and_clear();
        }
        if let Some(folder) = folder {
            return Ok(mnist::load(&folder)?);
        }
        eprintln!(
            "no MNIST found (--data-dir, RELEQ_DATA_DIR or --download): drawing digits instead"
        );
    }
    Ok(digits::generate(&digits::DigitsConfig { seed: args.seed, ..Default::default() })?)
}

/// One progress bar for each stage, on stderr; hidden where nobody watches.
struct Bars {
    hidden: bool,
    current: Mutex<Option<(Stage, ProgressBar)>>,
}

impl Bars {
    fn new(hidden: bool) -> Self {
        Self { hidden, current: Mutex::new(None) }
    }

    fn show(&self, news: &Progress) {
        let Ok(mut current) = self.current.lock() else { return };
        if current.as_ref().is_none_or(|(stage, _)| *stage != news.stage) {
            if let Some((_, bar)) = current.take() {
                bar.finish();
            }
            let name = match news.stage {
                Stage::Pretrain => "full precision",
                Stage::Search => "search",
                Stage::Comparison => "comparison",
                Stage::Final => "long retrain",
            };
            let bar = ProgressBar::new(news.total as u64).with_prefix(name);
            if self.hidden {
                bar.set_draw_target(ProgressDrawTarget::hidden());
            } else if bar.is_hidden() {
                // Nobody watches a terminal; a log still tells how far the run is.
                eprintln!("{name}: {} to do", news.total);
            }
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix:>14} {bar:30} {pos:>4}/{len:<4} {elapsed:>4}, {eta:>4} left  {msg}",
            ) {
                bar.set_style(style);
            }
            *current = Some((news.stage, bar));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.set_position(news.done as u64);
            bar.set_message(news.message.clone());
        }
    }

    fn finish(&self) {
        if let Ok(mut current) = self.current.lock()
            && let Some((_, bar)) = current.take()
        {
            bar.finish();
        }
    }
}

fn print(report: &Report) {
    let [train, validation, test] = report.images;
    println!("\n{} on {}", report.network, report.data);
    println!(
        "{train} images to train on, {validation} held out for every choice, {test} for this report"
    );
    println!(
        "full precision: {:.2} % on the test images ({:.2} % on the held-out ones)",
        100.0 * report.full_precision_test,
        100.0 * report.full_precision_validation
    );
    println!(
        "quantizer {}, reward {}, State_Quantization {}",
        report.quantizer, report.reward, report.state_quantization
    );

    if report.cancelled {
        println!("\nstopped early; the best so far, after a short retrain only:");
    }
    let mut layers = table(&["layer", "weights", "MACs", "weight std", "bits"]);
    for layer in &report.layers {
        layers.add_row([
            Cell::new(&layer.name),
            right(layer.weights.to_string()),
            right(layer.macs.to_string()),
            right(format!("{:.4}", layer.weight_std)),
            right(layer.bits.map_or_else(|| "-".into(), |bits| bits.to_string())),
        ]);
    }
    println!("{layers}");

    if !report.rows.is_empty() {
        let mut rows = table(&[
            "after the long retrain",
            "bits",
            "average",
            "test %",
            "loss",
            "State_Q",
            "size",
            "Stripes over 8 bits",
        ]);
        rows.add_row([
            Cell::new("full precision"),
            Cell::new("float"),
            right("32".into()),
            right(format!("{:.2}", 100.0 * report.full_precision_test)),
        ]);
        for (index, row) in report.rows.iter().enumerate() {
            let label = Cell::new(&row.label);
            rows.add_row([
                if index == 0 { label.add_attribute(Attribute::Bold) } else { label },
                Cell::new(row.bits.to_string()),
                right(format!("{:.2}", row.mean_bits)),
                right(row.failure.as_ref().map_or_else(
                    || format!("{:.2}", 100.0 * row.test_accuracy),
                    |_| "failed".into(),
                )),
                right(format!("{:+.2}", row.loss_points)),
                right(format!("{:.4}", row.quant_state)),
                right(format!("{:.1} kB", row.model_bytes / 1000.0)),
                right(format!("{:.2}x", row.stripes_speedup_over_8)),
            ]);
        }
        println!("{rows}");
        println!("loss: percentage points of test accuracy below full precision; less is better");
    }
    let seconds: f64 = report.times.values().sum();
    let search = &report.search;
    let share = 1.0 - search.times["evaluation_seconds"] / search.times["seconds"].max(1e-9);
    println!(
        "{} evaluations in {} episodes ({} failed), {}; {:.1} minutes, {:.2} % of the search outside evaluation",
        search.evaluations,
        search.episodes,
        search.failures,
        search.stop,
        seconds / 60.0,
        100.0 * share
    );
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
