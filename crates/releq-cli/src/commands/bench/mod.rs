//! `releq bench`: networks on this machine's CPU.

mod packed;

use std::{
    num::NonZeroUsize,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use comfy_table::CellAlignment;
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    core::{BitwidthAssignment, LayerProfile, Network},
    hw::{CpuKernels, CpuNetwork, Machine, Timing, uniform, weights_only},
    zoo,
};
use releq_kernels::Isa;
use serde::Serialize;

use super::timed::{RepeatsArg, Timed, is_dense};
use crate::{
    args::{NetworkName, UsageError, checkpoint, options, usage},
    plot::number::times,
    terminal::{output::print, tables},
};

/// Time networks on this machine's CPU
///
/// Four variants run in turn, repeatedly, on one image each time: bit-serial kernels with 8-bit weights and with the
/// given bitwidths (the comparison that the paper makes), int8 kernels, and the most suitable kernel for each layer.
/// All activations have 8 bits. The tables show medians and their ratios, including those where a low bitwidth is not
/// faster.
///
/// A packed network is run as a whole, with all its layers and the rounding of the image: with the kernels that suit its
/// bitwidths, with 8 bits for every weight, and in single precision.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq bench                      all networks with bitwidths in the paper
  releq bench lenet simplenet
  releq bench resnet20 --bits 4
  releq bench lenet --explain      which kernel each layer gets, and why
  releq bench lenet --json
  releq bench packed.safetensors   a whole network, layer by layer")]
pub(crate) struct Args {
    /// Networks to time, of `releq list networks` or in files [default: all with bitwidths in the paper]
    #[arg(value_name = "NETWORK")]
    network_names: Vec<NetworkName>,
    /// Networks to time, comma-separated, as an option
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', conflicts_with = "network_names")]
    network: Vec<NetworkName>,
    /// Weight bitwidths, such as 8,4,4,8, or one for all layers [default: the paper's]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    bits: Vec<BitwidthAssignment>,
    #[command(flatten)]
    timing: RepeatsArg,
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
    /// Show the kernel of each layer and the reason for choosing it, instead of timing
    #[arg(long)]
    explain: bool,
    /// Print a JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// The networks that the paper compares.
pub(super) const PAPER: [&str; 7] =
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

/// The kernel of a layer.
#[derive(Debug, Serialize)]
struct LayerKernel {
    layer: String,
    bits: String,
    kernel: String,
}

/// A network and its bitwidths.
struct Work {
    name: String,
    layers: Vec<LayerProfile>,
    bits: BitwidthAssignment,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let isa = usage(self.isa.unwrap_or_else(Isa::best).check())?;
        if let Some(outcome) = self.packed(isa)? {
            return Ok(outcome);
        }
        let work = self.work()?;
        if self.explain {
            return self.explain(&work, isa);
        }
        let style = ProgressStyle::with_template("{msg:<18} {bar:30} {pos}/{len}  {eta} left")?;
        let bar = ProgressBar::new(work.len() as u64).with_style(style);
        let mut rows = Vec::new();
        for work in &work {
            bar.set_message(work.name.clone());
            rows.push(self.time(work, isa)?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        if self.json {
            let object = serde_json::json!({
                "machine": Machine::this(),
                "commit": commit(),
                "isa": isa.to_string(),
                "threads": self.threads,
                "networks": rows,
            });
            print(serde_json::to_string_pretty(&object)?)?;
        } else {
            print(self.tables(&rows, isa))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Times packed networks, if those are named.
    fn packed(&self, isa: Isa) -> Result<Option<ExitCode>> {
        let named = || self.network_names.iter().chain(&self.network);
        let files: Vec<&Path> = named()
            .filter_map(|name| match name {
                NetworkName::Packed(path) => Some(path.as_path()),
                _ => None,
            })
            .collect();
        if files.is_empty() || self.explain || !self.bits.is_empty() {
            return Ok(None);
        }
        if files.len() < named().count() {
            let reason = "packed networks are timed as a whole, others layer by layer; name either";
            return Err(UsageError(reason.to_owned()).into());
        }
        let commit = commit();
        let mut rows = Vec::new();
        for path in files {
            let row = packed::time(path, isa, self.threads, self.timing.repeats)?;
            if !self.json {
                let machine = Machine::this().to_string();
                print(row.table(&machine, commit.as_deref().unwrap_or("unknown")))?;
            }
            rows.push(row);
        }
        if self.json {
            let object = serde_json::json!({
                "machine": Machine::this(),
                "commit": commit,
                "packed": rows,
            });
            print(serde_json::to_string_pretty(&object)?)?;
        }
        Ok(Some(ExitCode::SUCCESS))
    }

    /// The networks that are named, or all with published bitwidths.
    fn work(&self) -> Result<Vec<Work>> {
        let named = self.network_names.iter().chain(&self.network);
        let mut networks: Vec<Network> =
            named.map(|name| Ok(name.read()?.network)).collect::<Result<_>>()?;
        if networks.is_empty() {
            let known = zoo::NAMES.into_iter().filter(|name| zoo::published_bits(name).is_some());
            networks = known.map(zoo::by_name).collect::<Result<_, _>>()?;
        }
        let given = options::join_bits(&self.bits);
        let work = |network: Network| {
            let name = network.name().to_owned();
            let bits = match &given {
                Some(bits) => usage(checkpoint::per_layer("--bits", bits, &network))?,
                None => zoo::published_bits(&name).ok_or_else(|| {
                    UsageError(format!("the paper gives no bitwidths for {name}; set --bits"))
                })?,
            };
            Ok(Work { name, layers: network.profiles(), bits })
        };
        networks.into_iter().map(work).collect()
    }

    fn explain(&self, work: &[Work], isa: Isa) -> Result<ExitCode> {
        let mut all = serde_json::Map::new();
        for Work { name, layers, bits } in work {
            let per_layer = weights_only(bits);
            let best =
                CpuNetwork::new(layers, &per_layer, CpuKernels::Best, isa, NonZeroUsize::MIN)?;
            let kernels = best.choices().zip(bits.iter()).map(|((layer, choice), bits)| {
                let (bits, kernel) = (format!("{bits} x 8"), choice.to_string());
                LayerKernel { layer: layer.to_owned(), bits, kernel }
            });
            let kernels: Vec<LayerKernel> = kernels.collect();
            if self.json {
                all.insert(name.clone(), serde_json::to_value(kernels)?);
                continue;
            }
            let mut table = tables::plain();
            table.set_header([name, "bits", "kernel"]);
            for LayerKernel { layer, bits, kernel } in kernels {
                table.add_row([layer, bits, kernel]);
            }
            print(format_args!("{}\n", tables::text(&table)))?;
        }
        if self.json {
            print(serde_json::to_string_pretty(&all)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn time(&self, Work { name, layers, bits }: &Work, isa: Isa) -> Result<Row> {
        let (eight, low) = (uniform(8, layers.len())?, weights_only(bits));
        let timed = Timed { isa, threads: self.threads, repeats: self.timing.repeats };
        let variants = [
            (CpuKernels::BitSerial, eight.clone()),
            (CpuKernels::BitSerial, low.clone()),
            (CpuKernels::Int8, eight),
            (CpuKernels::Best, low.clone()),
        ];
        let mut timings = timed.run(layers, &variants)?.into_iter();
        let mut next = || timings.next().context("a variant has no timing");
        let (bit_serial_8, bit_serial, int8, best) = (next()?, next()?, next()?, next()?);
        let macs = |layer: &LayerProfile| layer.macs() as f64;
        let dense = || layers.iter().zip(&low).filter(|(layer, _)| is_dense(layer));
        let planes = dense().map(|(layer, bits)| macs(layer) * f64::from(bits.weight.get()));
        Ok(Row {
            network: name.clone(),
            mega_macs: layers.iter().map(macs).sum::<f64>() / 1e6,
            bits: bits.to_string(),
            bit_serial_gain: bit_serial_8.median_us / bit_serial.median_us,
            bound: 8.0 * dense().map(|(layer, _)| macs(layer)).sum::<f64>() / planes.sum::<f64>(),
            best_gain: int8.median_us / best.median_us,
            bit_serial_8,
            bit_serial,
            int8,
            best,
        })
    }

    fn tables(&self, rows: &[Row], isa: Isa) -> String {
        let ms = |timing: &Timing| format!("{:.3}", timing.median_us / 1e3);
        let spread = |all: [&Timing; 2]| {
            format!("{:.0}", 100.0 * all.into_iter().map(Timing::spread).fold(0.0, f64::max))
        };
        let mut serial = tables::plain();
        serial.set_header([
            "network",
            "MMAC",
            "8 x 8\nms",
            "w x 8\nms",
            "\ngain",
            "\n8/w",
            "of\n8/w",
            "spread\n%",
        ]);
        let mut best = tables::plain();
        best.set_header(["network", "int8\nms", "best\nms", "\ngain", "spread\n%"]);
        for row in rows {
            serial.add_row([
                row.network.clone(),
                format!("{:.1}", row.mega_macs),
                ms(&row.bit_serial_8),
                ms(&row.bit_serial),
                times(row.bit_serial_gain),
                times(row.bound),
                format!("{:.2}", row.bit_serial_gain / row.bound),
                spread([&row.bit_serial_8, &row.bit_serial]),
            ]);
            best.add_row([
                row.network.clone(),
                ms(&row.int8),
                ms(&row.best),
                times(row.best_gain),
                spread([&row.int8, &row.best]),
            ]);
        }
        for table in [&mut serial, &mut best] {
            for column in table.column_iter_mut().skip(1) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let (serial, best) = (tables::text(&serial), tables::text(&best));
        let mut lines = vec![
            format!("bit-serial kernels, weights at 8 bits and at w\n{serial}\n"),
            format!("int8 kernels, and the best kernel of each layer at w\n{best}\n"),
        ];
        lines.extend(mean_gains(rows));
        lines.push(format!(
            "{}\n{isa}, {} thread(s), batch 1, medians of {}, commit {}",
            Machine::this(),
            self.threads,
            self.timing.repeats,
            commit().as_deref().unwrap_or("unknown")
        ));
        lines.push(
            "gain: 8 x 8 over w x 8; int8 over the best kernel\n\
             8/w: upper bound of the bit-serial gain\n\
             spread: interquartile range over the median, the larger of the two"
                .to_owned(),
        );
        lines.join("\n")
    }
}

/// The mean gains, if all of the paper's networks were timed.
fn mean_gains(rows: &[Row]) -> Option<String> {
    let papers: Vec<_> = rows.iter().filter(|row| PAPER.contains(&row.network.as_str())).collect();
    let mean = |gain: fn(&Row) -> f64| {
        papers.iter().map(|row| gain(row)).sum::<f64>() / papers.len() as f64
    };
    (papers.len() == PAPER.len()).then(|| {
        format!(
            "mean gain on the paper's seven networks: bit-serial {:.2}x, with an upper bound\n\
             of {:.2}x; best kernels over int8 {:.2}x",
            mean(|row| row.bit_serial_gain),
            mean(|row| row.bound),
            mean(|row| row.best_gain)
        )
    })
}

/// The commit of the working directory, if there is one.
fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
