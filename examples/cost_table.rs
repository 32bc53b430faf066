//! Computes the cost of a network under several cost models. The layers are read from a table.
//!
//! ```text
//! cargo run --release --example cost_table -- --layers layers.csv --network lenet --weight-bits 2,2,3,2
//! ```
//!
//! The table has one row for each layer and the columns `network,layer,type,in_ch,in_h,in_w,out_ch,kernel,
//! stride,pad,groups`, in any order; `type` is `conv`, `dw` or `fc`. The columns `layer_index`, `out_h`, `out_w`
//! and `weights` are optional and are checked against the others; any further column is ignored. `--csv` prints
//! rows of `layer,model,metric,value`, ending with a `total` for each model.
//!
//! `--cpu-table latency.json` adds the time on this machine's CPU. Layers that the file lacks are measured and
//! added to it.
//!
//! The table has no biases, so sizes do not include them.
#![allow(clippy::print_stderr, reason = "an example talks to its user")]

use std::{
    fs::File,
    io::{Write, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use releq_core::{Bitwidth, BitwidthAssignment, CostModel, LayerBits, LayerKind, LayerProfile};
use releq_example_support::exit_code;
use releq_hw::{
    CostKind, CostReport, CpuKernels, CpuLatency, Energy, LatencyConfig, LatencyTable,
    MemoryTraffic, cost_report,
};

/// Computes the cost of a network's layers under several cost models.
#[derive(Parser, Debug)]
struct Args {
    /// Table of layers, as CSV
    #[arg(long, value_name = "FILE")]
    layers: PathBuf,
    /// Network to read from the table; optional if the table has only one
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Weight bitwidth of each layer, such as 8,4,4,8, or one bitwidth for all layers
    #[arg(long, value_name = "BITS")]
    weight_bits: BitwidthAssignment,
    /// Activation bitwidth of each layer, or one bitwidth for all layers
    #[arg(long, value_name = "BITS", default_value = "8")]
    act_bits: BitwidthAssignment,
    /// Cost models, comma-separated
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "stripes,stripes-proportional,dadiannao,bitops,bitops-nncf,size,traffic,energy"
    )]
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
    let layers = read_layer_table(&args.layers, args.network.as_deref())?;
    let weights = per_layer("--weight-bits", &args.weight_bits, layers.len())?;
    let activations = per_layer("--act-bits", &args.act_bits, layers.len())?;
    let bits: Vec<LayerBits> = weights
        .iter()
        .zip(activations.iter())
        .map(|(&weight, &activation)| LayerBits::new(weight, activation))
        .collect();
    let mut models: Vec<Arc<dyn CostModel>> =
        args.models.iter().map(CostKind::build).collect::<Result<_, _>>()?;
    if let Some(path) = &args.cpu_table {
        models.push(Arc::new(cpu_latency(path, &layers, &bits, args)?));
    }
    let report = cost_report(models, &layers, &bits, None)?;
    if let Some(unpriced) = report.unpriced.first() {
        bail!("{}; remove `{}` from --models", unpriced.reason, unpriced.model);
    }

    if args.csv { print_csv(&report, &layers, &bits) } else { print_table(&report) }
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

/// One bitwidth for each layer, from a list with one for each layer or from a single bitwidth.
fn per_layer(option: &str, bits: &BitwidthAssignment, layers: usize) -> Result<BitwidthAssignment> {
    if bits.len() == 1 {
        return Ok(BitwidthAssignment::uniform(bits[0], layers)?);
    }
    ensure!(bits.len() == layers, "{option}: {} bitwidths for {layers} layers", bits.len());
    Ok(bits.clone())
}

/// Converts a unit to the name of a metric: `bit operations` becomes `bit_operations`.
fn metric(unit: &str) -> String {
    unit.to_lowercase().replace(' ', "_")
}

fn print_csv(report: &CostReport, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<()> {
    let mut out = csv::Writer::from_writer(stdout().lock());
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
    Ok(out.flush()?)
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

fn print_table(report: &CostReport) -> Result<()> {
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
    let mut out = stdout().lock();
    writeln!(out, "{table}")?;
    writeln!(out, "gain: cost with 8-bit weights and the same activations, over this cost")?;
    Ok(())
}

/// Formats whole numbers without decimals and others with two.
fn readable(value: f64) -> String {
    if value.fract() == 0.0 { value.to_string() } else { format!("{value:.2}") }
}

/// Largest channel count or image side that is accepted; keeps every product below 2^63.
const MAX_SIZE: usize = 1 << 20;

/// Reads the layers of `network` from the table in `path`.
///
/// # Errors
/// If the file cannot be read, lacks a column or the network, or contains a value that is not a valid size or
/// contradicts other values. The message names file, line and column.
fn read_layer_table(path: &Path, network: Option<&str>) -> Result<Vec<LayerProfile>> {
    let file = path.display();
    let opened = File::open(path).with_context(|| format!("cannot open {file}"))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(opened);
    let header = reader.headers().with_context(|| format!("{file}: cannot read the header"))?;
    let columns: Vec<String> =
        header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.with_context(|| format!("{file}: not a CSV table"))?;
        let line = record.position().map_or(0, csv::Position::line);
        rows.push(Row { file: file.to_string(), line, columns: &columns, record });
    }

    let mut names: Vec<&str> = Vec::new();
    for row in &rows {
        let name = row.text("network")?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let network = match (network, names.as_slice()) {
        (_, []) => bail!("{file}: no layers below the header"),
        (None, [only]) => *only,
        (None, _) => bail!("{file} contains several networks; choose with --network: {names:?}"),
        (Some(name), _) if names.contains(&name) => name,
        (Some(name), _) => bail!("{file}: no network `{name}`; the table contains {names:?}"),
    };
    let mut layers = Vec::new();
    for row in &rows {
        if row.text("network")? == network {
            let layer = row.layer()?;
            row.must_be("layer_index", "the row's position in its network", layers.len() as u64)?;
            layers.push(layer);
        }
    }
    Ok(layers)
}

/// One row of the table and its location in the file.
struct Row<'c> {
    file: String,
    line: u64,
    columns: &'c [String],
    record: csv::StringRecord,
}

impl Row<'_> {
    fn find(&self, column: &str) -> Option<&str> {
        let index = self.columns.iter().position(|name| name == column)?;
        self.record.get(index)
    }

    fn text(&self, column: &str) -> Result<&str> {
        self.find(column).with_context(|| format!("{}: no column `{column}`", self.file))
    }

    /// The location of a value, for error messages.
    fn place(&self, column: &str) -> String {
        format!("{}, line {}, column `{column}`", self.file, self.line)
    }

    fn number<T: FromStr>(&self, column: &str) -> Result<T> {
        let text = self.text(column)?;
        text.parse().ok().with_context(|| {
            format!("{}: expected a whole number, got `{text}`", self.place(column))
        })
    }

    fn size(&self, column: &str, least: usize) -> Result<usize> {
        let size = self.number(column)?;
        ensure!(
            (least..=MAX_SIZE).contains(&size),
            "{}: expected {least} to {MAX_SIZE}, got {size}",
            self.place(column)
        );
        Ok(size)
    }

    /// If the column exists, its value must be `expected`, which is computed from the other columns.
    fn must_be(&self, column: &str, what: &str, expected: u64) -> Result<()> {
        if self.find(column).is_some_and(|text| !text.is_empty()) {
            let got: u64 = self.number(column)?;
            ensure!(got == expected, "{}: {got}, but {what} is {expected}", self.place(column));
        }
        Ok(())
    }

    fn layer(&self) -> Result<LayerProfile> {
        let kind = match self.text("type")? {
            "conv" | "conv2d" => LayerKind::Conv2d,
            "dw" | "depthwise" => LayerKind::DepthwiseConv2d,
            "fc" | "linear" => LayerKind::Linear,
            other => {
                bail!("{}: expected conv, dw or fc, got `{other}`", self.place("type"))
            }
        };
        let name = self.text("layer")?.to_owned();
        ensure!(
            !name.is_empty() && name != "total",
            "{}: `{name}` is not a valid layer name",
            self.place("layer")
        );
        let (inputs, outputs) = (self.size("in_ch", 1)?, self.size("out_ch", 1)?);
        let mut layer = LayerProfile::linear(name, inputs, outputs);
        layer.kind = kind;
        layer.in_height = self.size("in_h", 1)?;
        layer.in_width = self.size("in_w", 1)?;
        layer.kernel = self.size("kernel", 1)?;
        layer.stride = self.size("stride", 1)?;
        layer.padding = self.size("pad", 0)?;
        layer.groups = self.size("groups", 1)?;
        layer.out_height = self.out_side(&layer, "in_h", layer.in_height)?;
        layer.out_width = self.out_side(&layer, "in_w", layer.in_width)?;
        self.check_groups(&layer)?;
        self.check_products(&layer)?;
        self.must_be("out_h", "the computed output height", layer.out_height as u64)?;
        self.must_be("out_w", "the computed output width", layer.out_width as u64)?;
        self.must_be("weights", "the computed number of weights", layer.weights())?;
        Ok(layer)
    }

    fn out_side(&self, layer: &LayerProfile, column: &str, side: usize) -> Result<usize> {
        let padded = side + 2 * layer.padding;
        ensure!(
            padded >= layer.kernel,
            "{}: a kernel of {} does not fit into {padded} padded pixels",
            self.place(column),
            layer.kernel
        );
        Ok((padded - layer.kernel) / layer.stride + 1)
    }

    fn check_groups(&self, layer: &LayerProfile) -> Result<()> {
        let LayerProfile { groups, in_channels, out_channels, .. } = *layer;
        let place = || self.place("groups");
        match layer.kind {
            LayerKind::DepthwiseConv2d => ensure!(
                groups == in_channels,
                "{}: a depthwise layer of {in_channels} channels has {groups} groups",
                place()
            ),
            LayerKind::Linear => {
                let square = [layer.kernel, layer.in_height, layer.in_width, layer.stride];
                let plain = square == [1; 4] && layer.padding == 0 && groups == 1;
                ensure!(
                    plain,
                    "{}, line {}: a fully connected layer has in_h, in_w, kernel, stride and groups \
                     of 1 and pad of 0",
                    self.file,
                    self.line
                );
            }
            LayerKind::Conv2d => {}
        }
        ensure!(
            in_channels % groups == 0 && out_channels % groups == 0,
            "{}: {groups} groups do not divide {in_channels} and {out_channels} channels",
            place()
        );
        Ok(())
    }

    /// Rejects layers whose counts would not be exact.
    fn check_products(&self, layer: &LayerProfile) -> Result<()> {
        let product =
            |sizes: &[usize]| sizes.iter().try_fold(1u64, |p, &s| p.checked_mul(s as u64));
        let LayerProfile { in_channels, out_channels, kernel, .. } = *layer;
        let (out_height, out_width) = (layer.out_height, layer.out_width);
        let macs = product(&[in_channels, out_channels, kernel, kernel, out_height, out_width]);
        let inputs = product(&[in_channels, layer.in_height, layer.in_width]);
        let most = macs.zip(inputs).map(|(macs, inputs)| macs.max(inputs));
        ensure!(
            most.is_some_and(|count| count < 1 << 43),
            "{}, line {}: the layer is too large to be counted exactly",
            self.file,
            self.line
        );
        Ok(())
    }
}
