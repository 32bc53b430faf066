//! Times the paper's networks on this machine's CPU, at the paper's bitwidths and at 8 bits.
//!
//! ```text
//! cargo run --release --example network_speed
//! ```
//!
//! Four variants run in turn, repeatedly, on one image each time: bit-serial kernels with 8-bit weights and with the
//! paper's bitwidths (the comparison that the paper makes), int8 kernels, and the most suitable kernel for
//! each layer. All activations have 8 bits. The table shows medians and their ratios, including those where a
//! low bitwidth is not faster.

use std::{
    num::NonZeroUsize,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    core::{BitwidthAssignment, LayerKind, LayerProfile},
    hw::{CpuKernels, CpuNetwork, Machine, Timing, time_interleaved, uniform, weights_only},
    zoo,
};
use releq_cli::{
    args::options,
    terminal::{exit_code, output::print},
};
use releq_kernels::Isa;
use serde::Serialize;

/// Times the paper's networks on this machine's CPU, at the paper's bitwidths and at 8 bits.
#[derive(Parser, Debug)]
struct Args {
    /// Networks to time, comma-separated [default: all networks with bitwidths in the paper]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    networks: Vec<String>,
    /// Weight bitwidths to use instead of the paper's, such as 8,4,4,8, or one bitwidth for all layers
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    weight_bits: Vec<BitwidthAssignment>,
    /// Number of times to time each variant
    #[arg(
        long,
        value_name = "N",
        default_value = "11",
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    repeats: NonZeroUsize,
    /// Instruction set: portable, avx2 or avx512 [default: the best one that this CPU supports]
    #[arg(long, value_name = "NAME")]
    isa: Option<Isa>,
    /// Number of threads that compute a layer
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        value_parser = options::threads,
        allow_negative_numbers = true
    )]
    threads: NonZeroUsize,
    /// Print the kernel of each layer and the reason for choosing it, instead of timing
    #[arg(long)]
    explain: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// The networks that the paper compares.
const PAPER: [&str; 7] =
    ["lenet", "simplenet", "resnet20", "alexnet", "vgg16_3fc", "svhn10", "mobilenet_v1"];

/// Times of one network.
#[derive(Debug, Serialize)]
struct Row {
    network: String,
    /// Includes depthwise layers.
    mega_macs: f64,
    /// Weight bitwidths in the order of the layers.
    bits: String,
    bit_serial_8: Timing,
    bit_serial: Timing,
    /// Speedup of bit-serial kernels at these bitwidths over 8 bits.
    bit_serial_gain: f64,
    /// Upper bound of this speedup: 8 over the bitwidths, weighted by MACs.
    bound: f64,
    int8: Timing,
    best: Timing,
    /// Speedup of the best kernels over int8.
    best_gain: f64,
}

fn main() -> ExitCode {
    exit_code(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let isa = args.isa.unwrap_or_else(Isa::best).check()?;
    let names: Vec<&str> = match args.networks.as_slice() {
        [] => zoo::NAMES.into_iter().filter(|name| zoo::published_bits(name).is_some()).collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    let weight_bits = options::join_bits(&args.weight_bits);
    let mut work = Vec::new();
    for name in names {
        let layers = layers(name)?;
        let bits = bits(name, layers.len(), weight_bits.as_ref())?;
        work.push((name, layers, bits));
    }
    if args.explain {
        for (name, layers, bits) in &work {
            explain(name, layers, bits, isa)?;
        }
        return Ok(());
    }
    let style = ProgressStyle::with_template("{msg:<14} {bar:30} {pos}/{len}  {eta} left")?;
    let bar = ProgressBar::new(work.len() as u64).with_style(style);
    let mut rows = Vec::new();
    for (name, layers, bits) in &work {
        bar.set_message((*name).to_owned());
        rows.push(time(name, layers, bits, isa, args)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.json {
        let object = serde_json::json!({
            "machine": Machine::this(),
            "commit": commit(),
            "isa": isa.to_string(),
            "threads": args.threads,
            "networks": rows,
        });
        print(serde_json::to_string_pretty(&object)?)?;
        return Ok(());
    }
    print(table(&rows, isa, args))
}

fn layers(name: &str) -> Result<Vec<LayerProfile>> {
    let network = zoo::by_name(name)?;
    Ok(network.profiles())
}

fn bits(
    name: &str,
    layers: usize,
    given: Option<&BitwidthAssignment>,
) -> Result<BitwidthAssignment> {
    match given {
        Some(bits) if bits.len() == 1 => Ok(BitwidthAssignment::uniform(bits[0], layers)?),
        Some(bits) if bits.len() == layers => Ok(bits.clone()),
        Some(bits) => {
            bail!("--weight-bits: {} bitwidths for the {layers} layers of {name}", bits.len())
        }
        None => zoo::published_bits(name)
            .with_context(|| format!("the paper gives no bitwidths for {name}; set --weight-bits")),
    }
}

fn explain(name: &str, layers: &[LayerProfile], bits: &BitwidthAssignment, isa: Isa) -> Result<()> {
    let per_layer = weights_only(bits);
    let best = CpuNetwork::new(layers, &per_layer, CpuKernels::Best, isa, NonZeroUsize::MIN)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([name, "bits", "kernel"]);
    for ((layer, choice), bits) in best.choices().zip(bits.iter()) {
        table.add_row([layer.to_owned(), format!("{bits} x 8"), choice.to_string()]);
    }
    print(format_args!("{table}\n"))?;
    Ok(())
}

fn time(
    name: &str,
    layers: &[LayerProfile],
    bits: &BitwidthAssignment,
    isa: Isa,
    args: &Args,
) -> Result<Row> {
    let (eight, low) = (uniform(8, layers.len())?, weights_only(bits));
    // There is no bit-serial kernel for depthwise convolutions.
    let (dense, dense_low): (Vec<_>, Vec<_>) = layers
        .iter()
        .cloned()
        .zip(low.iter().copied())
        .filter(|(layer, _)| layer.kind != LayerKind::DepthwiseConv2d)
        .unzip();
    let prepare = |layers: &[_], bits: &[_], kernels| {
        CpuNetwork::new(layers, bits, kernels, isa, args.threads)
    };
    let mut bit_serial_8 = prepare(&dense, &eight[..dense.len()], CpuKernels::BitSerial)?;
    let mut bit_serial = prepare(&dense, &dense_low, CpuKernels::BitSerial)?;
    let mut int8 = prepare(layers, &eight, CpuKernels::Int8)?;
    let mut best = prepare(layers, &low, CpuKernels::Best)?;
    let mut timings = time_interleaved(
        &mut [
            &mut || bit_serial_8.run(),
            &mut || bit_serial.run(),
            &mut || int8.run(),
            &mut || best.run(),
        ],
        args.repeats,
        Duration::from_millis(5),
    )
    .into_iter();
    let mut next = || timings.next().context("a variant has no timing");
    let (bit_serial_8, bit_serial, int8, best) = (next()?, next()?, next()?, next()?);
    let macs = |layer: &LayerProfile| layer.macs() as f64;
    let planes = dense.iter().zip(&dense_low).map(|(l, b)| macs(l) * f64::from(b.weight.get()));
    Ok(Row {
        network: name.to_owned(),
        mega_macs: layers.iter().map(macs).sum::<f64>() / 1e6,
        bits: bits.to_string(),
        bit_serial_gain: bit_serial_8.median_us / bit_serial.median_us,
        bound: 8.0 * dense.iter().map(macs).sum::<f64>() / planes.sum::<f64>(),
        best_gain: int8.median_us / best.median_us,
        bit_serial_8,
        bit_serial,
        int8,
        best,
    })
}

fn table(rows: &[Row], isa: Isa, args: &Args) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "network",
        "MMAC",
        "bit-serial\n8 x 8, ms",
        "bit-serial\nw x 8, ms",
        "\ngain",
        "\n8/w",
        "of\n8/w",
        "int8\nms",
        "best\nms",
        "\ngain",
        "spread\n%",
    ]);
    let ms = |timing: &Timing| format!("{:.3}", timing.median_us / 1e3);
    for row in rows {
        let all = [row.bit_serial_8, row.bit_serial, row.int8, row.best];
        let spread = all.iter().map(Timing::spread).fold(0.0, f64::max);
        table.add_row([
            row.network.clone(),
            format!("{:.1}", row.mega_macs),
            ms(&row.bit_serial_8),
            ms(&row.bit_serial),
            format!("{:.2}x", row.bit_serial_gain),
            format!("{:.2}x", row.bound),
            marked(row.bit_serial_gain / row.bound, "", 0.9),
            ms(&row.int8),
            ms(&row.best),
            marked(row.best_gain, "x", if row.network == "alexnet" { 1.4 } else { 0.98 }),
            format!("{:.0}", 100.0 * spread),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = vec![format!("{table}\n")];
    let papers: Vec<_> = rows.iter().filter(|row| PAPER.contains(&row.network.as_str())).collect();
    if papers.len() == PAPER.len() {
        let mean = |gain: fn(&Row) -> f64| {
            papers.iter().map(|row| gain(row)).sum::<f64>() / papers.len() as f64
        };
        lines.push(format!(
            "mean gain on the paper's seven networks ({}): bit-serial {:.2}x, with an upper bound of {:.2}x; best \
             kernels over int8 {:.2}x",
            PAPER.join(", "),
            mean(|row| row.bit_serial_gain),
            mean(|row| row.bound),
            mean(|row| row.best_gain)
        ));
    }
    lines.push(format!(
        "{}, {isa}, {} thread(s), batch 1, medians of {}, commit {}",
        Machine::this(),
        args.threads,
        args.repeats,
        commit().as_deref().unwrap_or("unknown")
    ));
    lines.push(
        "gain: bit-serial at the low bitwidths over bit-serial at 8 bits; the best kernels over int8\n\
         8/w: upper bound of the bit-serial gain\n\
         *: below the goal, which is 0.9 of 8/w for bit-serial, and for the best kernels 1.4x on alexnet and 0.98x \
         on the others\n\
         spread: interquartile range over the median, the largest of the four"
            .to_owned(),
    );
    lines.join("\n")
}

/// Formats a ratio, with a star if it is below the goal.
fn marked(ratio: f64, unit: &str, goal: f64) -> String {
    format!("{ratio:.2}{unit}{}", if ratio < goal { "*" } else { "" })
}

/// The commit of the working directory, if there is one.
fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
