//! `releq cost`: the cost of a network under several models.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    core::{Bitwidth, BitwidthAssignment, CostModel, LayerBits, LayerProfile, atomic_file},
    hw::{
        CostKind, CostReport, Costs as Amounts, CpuKernels, CpuLatency, Energy, LatencyConfig,
        LatencyTable, MemoryTraffic, ModelCosts, cost_report, read_layers,
    },
    zoo,
};
use serde::Serialize;

use crate::{
    args::{
        Files, NetworkArgs, UsageError,
        costs::{self, Costs},
        options, usage,
    },
    plot::number::times,
    terminal::{
        output::{note, print},
        tables,
    },
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

/// Compute what a network costs at given bitwidths
///
/// The layers are those of a network, or are read from a table with one row for each layer and the columns
/// network,layer,type,in_ch,in_h,in_w,out_ch,kernel,stride,pad,groups. Such a table has no biases, so sizes do not
/// include them.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq cost lenet --bits 2,2,3,2
  releq cost resnet20 --bits 4 --cost size,stripes-energy
  releq cost lenet --bits 4 --cost stripes-energy=2,size=1   and their sum
  releq cost lenet --bits 4 --cpu-table latency.json         measured here
  releq cost lenet --cpu-table latency.json --cpu-bits 2,3,4,5,6,7
  releq cost --layers layers.csv --layers-of mine --bits 8,4,4,8 --csv costs.csv")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Table of layers, as CSV, instead of a network
    #[arg(long, value_name = "FILE", conflicts_with_all = ["network_name", "network"])]
    layers: Option<PathBuf>,
    /// Network to read from --layers; optional if the table has only one
    #[arg(long, value_name = "NAME", requires = "layers")]
    layers_of: Option<String>,
    /// Weight bitwidth of each layer, such as 8,4,4,8, or one for all layers; 32 is full precision [default: the
    /// bitwidths that the paper publishes for the network]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    bits: Vec<BitwidthAssignment>,
    /// Activation bitwidth of each layer, or one for all layers
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        default_value = "8",
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    activation_bits: Vec<BitwidthAssignment>,
    /// Costs to show, of `releq list costs`; where weights are given, also their sum, as `releq search` would minimize
    /// it [default: stripes, stripes-proportional, dadiannao, bitops, bitops-nncf, size, traffic and energy, except
    /// those that do not cover a layer or its bitwidths]
    #[arg(long, value_name = "COSTS", value_parser = costs::parse)]
    cost: Vec<Costs>,
    /// Add the time on the CPU. It is measured on this machine and stored in FILE, from which later runs read it
    #[arg(long, value_name = "FILE")]
    cpu_table: Option<PathBuf>,
    /// Weight bitwidths to measure besides for every layer, so that a search can use the table: `--cost
    /// cpu-latency:FILE`
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true,
        requires = "cpu_table"
    )]
    cpu_bits: Vec<BitwidthAssignment>,
    /// Kernels to measure: best, bit-serial or int8
    #[arg(long, value_name = "NAME", default_value = "best")]
    cpu_kernels: CpuKernels,
    /// Accept a --cpu-table file that was measured on another machine, and measure nothing
    #[arg(long, requires = "cpu_table")]
    any_machine: bool,
    /// Write the costs to a CSV file with the columns layer,model,metric,value and a `total` for each model
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print a JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    network: &'a str,
    bits: &'a BitwidthAssignment,
    activation_bits: &'a BitwidthAssignment,
    #[serde(flatten)]
    report: &'a CostReport,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let table = self.cpu_table.as_ref();
        let files =
            Files::new().reads("--layers", self.layers.as_ref()).writes("--csv", self.csv.as_ref());
        let files =
            costs::files(&self.cost).fold(files, |files, path| files.reads("--cost", Some(path)));
        match self.any_machine {
            true => files.reads("--cpu-table", table),
            false => files.writes("--cpu-table", table),
        }
        .check()?;
        let (network, layers) = self.layers()?;
        let weights = match options::join_bits(&self.bits).or_else(|| zoo::published_bits(&network))
        {
            Some(bits) => per_layer("--bits", &bits, &layers)?,
            None => {
                let reason = "--bits: name the weight bitwidth of each layer, or one for all";
                return Err(UsageError(reason.to_owned()).into());
            }
        };
        let activations = options::join_bits(&self.activation_bits).context("--activation-bits")?;
        let activations = per_layer("--activation-bits", &activations, &layers)?;
        let bits: Vec<LayerBits> = weights
            .iter()
            .zip(activations.iter())
            .map(|(&weight, &activation)| LayerBits::new(weight.float_at_32(), activation))
            .collect();
        let mut models = self.models(&layers)?;
        if let Some(path) = table {
            models.push(Arc::new(self.cpu_latency(path, &layers, &bits)?));
        }
        let mut report = cost_report(models, &layers, &bits, None)?;
        report.models.iter_mut().filter(|model| is_mean_bits(model)).for_each(to_mean);
        for unpriced in &report.unpriced {
            if !self.cost.is_empty() {
                bail!("{}; remove `{}` from --cost", unpriced.reason, unpriced.model);
            }
            note(format_args!("without {}: {}", unpriced.model, unpriced.reason));
        }
        ensure!(!report.models.is_empty(), "no model covers these layers and bitwidths");

        if let Some(path) = &self.csv {
            atomic_file::write(path, &csv_of(&report, &layers, &bits)?)
                .with_context(|| path.display().to_string())?;
        }
        let outcome = Outcome {
            network: &network,
            bits: &weights,
            activation_bits: &activations,
            report: &report,
        };
        print(if self.json { serde_json::to_string_pretty(&outcome)? } else { table_of(&report) })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The layers, and the name of their network.
    fn layers(&self) -> Result<(String, Vec<LayerProfile>)> {
        match &self.layers {
            Some(path) => {
                let layers = read_layers(path, self.layers_of.as_deref())?;
                let name = self.layers_of.clone().unwrap_or_else(|| path.display().to_string());
                Ok((name, layers))
            }
            None => {
                let network = self.network.required()?.network;
                Ok((network.name().to_owned(), network.profiles()))
            }
        }
    }

    /// The models that are asked for, and their sum if they have weights.
    fn models(&self, layers: &[LayerProfile]) -> Result<Vec<Arc<dyn CostModel>>> {
        let mut kinds: Vec<CostKind> =
            costs::terms(&self.cost).map(|term| term.cost.clone()).collect();
        if kinds.is_empty() {
            kinds = MODELS.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        }
        if kinds.len() > 1 && costs::terms(&self.cost).any(|term| term.weight.is_some()) {
            kinds.extend(costs::sum(&self.cost, layers)?);
        }
        Ok(kinds.iter().map(CostKind::build).collect::<Result<_, _>>()?)
    }

    /// Loads the times in the file, after measuring the layers that it lacks.
    fn cpu_latency(
        &self,
        path: &Path,
        layers: &[LayerProfile],
        bits: &[LayerBits],
    ) -> Result<CpuLatency> {
        if self.any_machine {
            return Ok(CpuLatency::of_any_machine(LatencyTable::load(path)?));
        }
        let config = LatencyConfig { kernels: self.cpu_kernels, ..LatencyConfig::default() };
        // The given bitwidths, and 8-bit weights to compare with.
        let eight = bits.iter().map(|bits| bits.with_weight(Bitwidth::EIGHT));
        let mut work: Vec<(&LayerProfile, LayerBits)> =
            layers.iter().zip(bits.iter().copied()).chain(layers.iter().zip(eight)).collect();
        let more = options::join_bits(&self.cpu_bits);
        for &weight in more.iter().flat_map(|bits| bits.iter()) {
            work.extend(layers.iter().zip(bits.iter().map(|bits| bits.with_weight(weight))));
        }
        let style =
            ProgressStyle::with_template("measuring layers {bar:30} {pos}/{len}  {eta} left")?;
        let bar = ProgressBar::new(0).with_style(style);
        let mut progress = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        let (table, known) = if path.exists() {
            let mut table = LatencyTable::load(path)?;
            let known = table.rows.len();
            table
                .extend(work, &config, &mut progress)
                .with_context(|| path.display().to_string())?;
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
}

/// The bitwidths of an option, one for each layer.
fn per_layer(
    option: &str,
    bits: &BitwidthAssignment,
    layers: &[LayerProfile],
) -> Result<BitwidthAssignment> {
    usage(options::per_layer(option, bits, layers.iter().map(|layer| layer.name.as_str())))
}

fn is_mean_bits(model: &ModelCosts) -> bool {
    model.model == CostKind::MeanBits.name()
}

/// Makes a mean of a sum over the layers, of which each has its share: what the name of mean bits promises, while searches, to
/// which a factor makes no difference, take the sum.
fn to_mean(model: &mut ModelCosts) {
    let count = model.layers.len().max(1) as f64;
    let layers = model.layers.iter_mut().map(|layer| &mut layer.costs);
    for Amounts { cost, uniform8, other } in layers.chain([&mut model.total]) {
        *cost /= count;
        *uniform8 /= count;
        *other = other.map(|other| other / count);
    }
}

/// Converts a unit to the name of a metric: `bit operations` becomes `bit_operations`.
fn metric(unit: &str) -> String {
    unit.to_lowercase().replace(' ', "_")
}

fn csv_of(report: &CostReport, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<Vec<u8>> {
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
        for (index, (metric, _)) in parts.first().into_iter().flatten().enumerate() {
            write(metric, parts.iter().map(|parts| parts[index].1).sum())?;
        }
        write("gain_over_8bit_weights", model.total.gain_over_uniform8())?;
    }
    Ok(out.into_inner()?)
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

/// The report as tables, each with as many models as fit beside each other.
fn table_of(report: &CostReport) -> String {
    let Some(first) = report.models.first() else { return String::new() };
    let mut fixed = vec![vec!["layer".to_owned()], vec!["bits".to_owned()]];
    for row in &first.layers {
        fixed[0].push(row.layer.clone());
        fixed[1].push(format!("{} x {}", row.bits.weight, row.bits.activation));
    }
    fixed[0].extend(["total".to_owned(), "gain".to_owned()]);
    let columns = report.models.iter().map(|model| {
        let mut column = vec![format!("{}\n{}", model.model, model.unit)];
        column.extend(model.layers.iter().map(|row| readable(row.costs.cost)));
        column.push(readable(model.total.cost));
        column.push(times(model.total.gain_over_uniform8()));
        column
    });
    let tables = tables::side_by_side(&fixed, &columns.collect::<Vec<_>>());
    format!("{tables}\n\ngain: cost with 8-bit weights and the same activations, over this cost")
}

/// Formats whole numbers without decimals and others with two.
fn readable(value: f64) -> String {
    if value.fract() == 0.0 { value.to_string() } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use releq::hw::uniform;

    use super::*;

    #[test]
    fn mean_bits_are_a_mean() {
        let layers = zoo::lenet().profiles();
        let bits = uniform(2, layers.len()).unwrap();
        let models = [CostKind::MeanBits.build().unwrap()];
        let mut model = cost_report(models, &layers, &bits, None).unwrap().models.remove(0);
        assert!(is_mean_bits(&model));
        to_mean(&mut model);
        assert_eq!(model.total, Amounts { cost: 2.0, uniform8: 8.0, other: None });
        assert_eq!(model.layers.iter().map(|layer| layer.costs.cost).sum::<f64>(), 2.0);
        assert_eq!(model.total.gain_over_uniform8(), 4.0);
    }
}
