//! Computes the cost of a network under several cost models. The layers are read from a table.
//!
//! ```text
//! cargo run --release --example cost_table -- --layers layers.csv --network lenet --weight-bits 2,2,3,2
//! ```
//!
//! The table has one row for each layer and the columns `network,layer,type,in_ch,in_h,in_w,out_ch,kernel,
//! stride,pad,groups`, as `releq_hw::read_layers` describes. `--csv` prints rows of `layer,model,metric,value`,
//! ending with a `total` for each model.
//!
//! `--cpu-table latency.json` adds the time on this machine's CPU. Layers that the file lacks are measured and
//! added to it.
//!
//! The table has no biases, so sizes do not include them.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use releq_cli::{
    args::options,
    terminal::{
        exit_code,
        output::{note, print},
    },
};
use releq_core::{Bitwidth, BitwidthAssignment, CostModel, LayerBits, LayerProfile, atomic_file};
use releq_hw::{
    CostKind, CostReport, CpuKernels, CpuLatency, Energy, LatencyConfig, LatencyTable,
    MemoryTraffic, cost_report, read_layers,
};

/// Models that are shown unless others are named.
const MODELS: [&str; 8] = [
    "stripes",
    "stripes-proportional",
    "dadiannao",
    "bitops",
    "bitops-nncf",
    "size",
    "traffic",
    "energy",
];

/// Computes the cost of a network's layers under several cost models.
#[derive(Parser, Debug)]
struct Args {
    /// Table of layers, as CSV
    #[arg(long, value_name = "FILE")]
    layers: PathBuf,
    /// Network to read from the table; optional if the table has only one
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Weight bitwidth of each layer, such as 8,4,4,8, or one bitwidth for all layers; `float` is full precision
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        required = true,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    weight_bits: Vec<BitwidthAssignment>,
    /// Activation bitwidth of each layer, or one bitwidth for all layers
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        default_value = "8",
        value_parser = options::bits, allow_negative_numbers = true
    )]
    act_bits: Vec<BitwidthAssignment>,
    /// Cost models, comma-separated [default: stripes, stripes-proportional, dadiannao, bitops, bitops-nncf, size,
    /// traffic and energy, except those that do not cover a layer or its bitwidths]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    models: Vec<CostKind>,
    /// Add the time on the CPU. It is measured on this machine and stored in FILE, from which later runs read it
    #[arg(long, value_name = "FILE")]
    cpu_table: Option<PathBuf>,
    /// Kernels to measure: best, bit-serial or int8
    #[arg(long, value_name = "NAME", default_value = "best")]
    cpu_kernels: CpuKernels,
    /// Accept a --cpu-table file that was measured on another machine, and measure nothing
    #[arg(long)]
    any_machine: bool,
    /// Print CSV with the columns layer,model,metric,value instead of a table
    #[arg(long)]
    csv: bool,
}

fn main() -> ExitCode {
    exit_code(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    // The network, its bitwidths, and their costs.
    let layers = read_layers(&args.layers, args.network.as_deref())?;
    let weights = per_layer("--weight-bits", &args.weight_bits, &layers)?;
    let activations = per_layer("--act-bits", &args.act_bits, &layers)?;
    let bits: Vec<LayerBits> = weights
        .iter()
        .zip(activations.iter())
        .map(|(&weight, &activation)| LayerBits::new(weight, activation))
        .collect();
    let chosen = match args.models.as_slice() {
        [] => MODELS.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
        models => models.to_vec(),
    };
    let mut models: Vec<Arc<dyn CostModel>> =
        chosen.iter().map(CostKind::build).collect::<Result<_, _>>()?;
    if let Some(path) = &args.cpu_table {
        models.push(Arc::new(cpu_latency(path, &layers, &bits, args)?));
    }
    let report = cost_report(models, &layers, &bits, None)?;
    for unpriced in &report.unpriced {
        if !args.models.is_empty() {
            bail!("{}; remove `{}` from --models", unpriced.reason, unpriced.model);
        }
        note(format_args!("without {}: {}", unpriced.model, unpriced.reason));
    }
    ensure!(!report.models.is_empty(), "no model covers these layers and bitwidths");

    print(if args.csv { csv_of(&report, &layers, &bits)? } else { table_of(&report) })
}

/// Loads the times in the file, after measuring the layers that it lacks.
fn cpu_latency(
    path: &Path,
    layers: &[LayerProfile],
    bits: &[LayerBits],
    args: &Args,
) -> Result<CpuLatency> {
    if args.any_machine {
        return Ok(CpuLatency::of_any_machine(LatencyTable::load(path)?));
    }
    atomic_file::check_writable(path)?;
    let config = LatencyConfig { kernels: args.cpu_kernels, ..LatencyConfig::default() };
    // The given bitwidths, and 8-bit weights to compare with.
    let eight = bits.iter().map(|bits| bits.with_weight(Bitwidth::EIGHT));
    let work = layers.iter().zip(bits.iter().copied()).chain(layers.iter().zip(eight));
    let style = ProgressStyle::with_template("measuring layers {bar:30} {pos}/{len}  {eta} left")?;
    let bar = ProgressBar::new(0).with_style(style);
    let mut progress = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let (table, known) = if path.exists() {
        let mut table = LatencyTable::load(path)?;
        let known = table.rows.len();
        table.extend(work, &config, &mut progress).with_context(|| path.display().to_string())?;
        (table, known)
    } else {
        (LatencyTable::measure(work, &config, &mut progress)?, 0)
    };
    bar.finish_and_clear();
    if table.rows.len() > known {
        table.save(path)?;
    }
    Ok(CpuLatency::new(table)?)
}

/// The bitwidths of an option, one for each layer.
fn per_layer(
    option: &str,
    arguments: &[BitwidthAssignment],
    layers: &[LayerProfile],
) -> Result<BitwidthAssignment> {
    let bits =
        options::join_bits(arguments).with_context(|| format!("{option} needs bitwidths"))?;
    options::per_layer(option, &bits, layers.iter().map(|layer| layer.name.as_str()))
}

/// Converts a unit to the name of a metric: `bit operations` becomes `bit_operations`.
fn metric(unit: &str) -> String {
    unit.to_lowercase().replace(' ', "_")
}

fn csv_of(report: &CostReport, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<String> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(["layer", "model", "metric", "value"])?;
    for model in &report.models {
        let mut parts = Vec::new();
        for (layer, &bits) in layers.iter().zip(bits) {
            parts.push(parts_of(&model.model, layer, bits));
        }
        let metric = metric(&model.unit);
        for (row, parts) in model.layers.iter().zip(&parts) {
            let mut write = |metric: &str, value: f64| {
                out.write_record([&row.layer, &model.model, metric, &value.to_string()])
            };
            write(&metric, row.costs.cost)?;
            for &(metric, value) in parts {
                write(metric, value)?;
            }
        }
        let mut write = |metric: &str, value: f64| {
            out.write_record(["total", &model.model, metric, &value.to_string()])
        };
        write(&metric, model.total.cost)?;
        for (index, (metric, _)) in parts[0].iter().enumerate() {
            write(metric, parts.iter().map(|parts| parts[index].1).sum())?;
        }
        write("gain_over_8bit_weights", model.total.gain_over_uniform8())?;
    }
    Ok(String::from_utf8(out.into_inner()?)?.trim_end().to_owned())
}

/// The components of a layer's cost, for models that report them.
fn parts_of(model: &str, layer: &LayerProfile, bits: LayerBits) -> Vec<(&'static str, f64)> {
    if model == Energy::default().name() {
        let energy = Energy::default().breakdown(layer, bits);
        vec![
            ("mac_pj", energy.mac),
            ("weight_memory_pj", energy.weight_memory),
            ("activation_memory_pj", energy.activation_memory),
        ]
    } else if model == MemoryTraffic::default().name() {
        let moved = MemoryTraffic::default().bits(layer, bits);
        vec![
            ("weight_bits", moved.weights as f64),
            ("input_bits", moved.inputs as f64),
            ("output_bits", moved.outputs as f64),
        ]
    } else {
        Vec::new()
    }
}

fn table_of(report: &CostReport) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header = vec!["layer".to_owned(), "bits".to_owned()];
    for model in &report.models {
        header.push(format!("{}\n{}", model.model, model.unit));
    }
    table.set_header(header);
    for (index, layer) in report.models[0].layers.iter().enumerate() {
        let bits = format!("{} x {}", layer.bits.weight, layer.bits.activation);
        let mut row = vec![layer.layer.clone(), bits];
        row.extend(report.models.iter().map(|model| readable(model.layers[index].costs.cost)));
        table.add_row(row);
    }
    let mut total = vec!["total".to_owned(), String::new()];
    total.extend(report.models.iter().map(|model| readable(model.total.cost)));
    table.add_row(total);
    let mut gain = vec!["gain".to_owned(), String::new()];
    gain.extend(
        report.models.iter().map(|model| format!("{:.2}x", model.total.gain_over_uniform8())),
    );
    table.add_row(gain);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\ngain: cost with 8-bit weights and the same activations, over this cost")
}

/// Formats whole numbers without decimals and others with two.
fn readable(value: f64) -> String {
    if value.fract() == 0.0 { value.to_string() } else { format!("{value:.2}") }
}
