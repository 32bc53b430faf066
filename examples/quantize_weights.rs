//! Shows the effect of each bitwidth on the weights of one layer: levels, bytes and rounding error.
//!
//! ```text
//! cargo run --release --example quantize_weights -- --scheme wrpn-scaled --bits 2,4,8
//! cargo run --release --example quantize_weights -- --file weights.txt --json
//! ```
//!
//! Uses only `releq-quant`: no network, no training. Without `--file`, the weights are random with a bell-shaped
//! distribution of standard deviation 0.05, similar to a trained convolution. Equal seeds (`--seed`) give equal
//! weights. Try `--scheme wrpn --bits 2`: without a scale, nearly all of these weights round to zero.

use std::{collections::BTreeSet, num::NonZeroUsize, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use releq_cli::{
    args::options,
    terminal::{exit_code, output::print},
};
use releq_core::{BitwidthAssignment, text};
use releq_quant::{Bitwidth, LayerWeights, QuantError, Quantizer, QuantizerKind};
use serde::Serialize;

/// Shows the effect of each bitwidth on the weights of one layer.
///
/// Prints for each bitwidth: the number of distinct levels in the result, the size of the packed codes in
/// bytes, the compression compared with 32-bit floats, the root mean squared and the largest rounding
/// error, and the share of weights that become zero. Schemes whose levels are not evenly spaced have no
/// codes.
#[derive(Parser, Debug)]
#[command(after_help = "Schemes:
  wrpn         fixed levels from -1 to 1, including zero; at few bits, small weights become zero
  dorefa       2^b levels from -1 to 1 after a tanh, without zero; rescales the layer, so the error
               relative to the given weights is large before retraining
  wrpn-scaled  wrpn on [-c, c], with the c that minimizes the squared error of the layer
  wrpn-scaled-per-channel
               the same, with one c for each of the --channels
  powers-of-two
               zero and signed powers of two, from 2 bits on; fine near zero, coarse at the ends

At 1 bit, all schemes except powers-of-two give the sign times the mean magnitude.")]
struct Args {
    /// Quantization scheme, one of those listed below
    #[arg(long, default_value = "wrpn-scaled")]
    scheme: QuantizerKind,
    /// Bitwidths to show, comma-separated [default: all that the scheme supports]
    #[arg(long, num_args = 1.., value_parser = options::bits, allow_negative_numbers = true)]
    bits: Vec<BitwidthAssignment>,
    /// Number of output channels; the weights must be ordered by channel
    #[arg(long, default_value = "1", value_parser = options::count, allow_negative_numbers = true)]
    channels: NonZeroUsize,
    /// File with the weights to quantize: numbers separated by spaces, newlines, commas or semicolons
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "count"])]
    file: Option<PathBuf>,
    /// Seed of the random weights
    #[arg(
        long,
        default_value_t = 0,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// Number of random weights
    #[arg(
        long,
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000_000)
    )]
    count: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// One row of the table.
#[derive(Debug, Serialize)]
struct Row {
    bits: Bitwidth,
    levels: usize,
    /// `None` for a scheme without integer codes.
    bytes: Option<usize>,
    compression: Option<f64>,
    rms_error: f64,
    max_error: f64,
    share_of_zeros: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    scheme: QuantizerKind,
    weights: usize,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    exit_code(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let weights = match &args.file {
        Some(path) => text::read_numbers(path)?,
        None => random_weights(args.seed, args.count),
    };
    let quantizer = args.scheme.build();
    let layer = LayerWeights::new(&weights, args.channels.get())?;
    let supported = (1..=8).map(Bitwidth::new).collect::<Result<Vec<_>, _>>()?;
    let supported = supported.into_iter().filter(|&bits| quantizer.supports(bits)).collect();
    let bits = options::join_bits(&args.bits).map_or(supported, Vec::from);
    let rows = bits.into_iter().map(|bits| row(&*quantizer, layer, bits));
    let rows = rows.collect::<Result<_>>()?;
    let report = Report { scheme: args.scheme, weights: weights.len(), rows };
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { table(&report) };
    print(text)
}

/// Quantizes at one bitwidth and compares with the given weights.
fn row(quantizer: &dyn Quantizer, weights: LayerWeights<'_>, bits: Bitwidth) -> Result<Row> {
    let mut rounded = vec![0.0; weights.len()];
    quantizer.fake_quantize(weights, bits, &mut rounded)?;
    let bytes = match quantizer.quantize(weights, bits) {
        Ok(quantized) => Some(quantized.pack()?.as_bytes().len()),
        Err(QuantError::NoCodes { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let (mut squares, mut max_error, mut zeros) = (0.0, 0.0f64, 0);
    let mut levels = BTreeSet::new();
    for (&weight, &level) in weights.values().iter().zip(&rounded) {
        let error = f64::from(weight) - f64::from(level);
        squares += error * error;
        max_error = max_error.max(error.abs());
        zeros += usize::from(level == 0.0);
        // Adding zero makes a negative zero positive.
        levels.insert((level + 0.0).to_bits());
    }
    let count = weights.len() as f64;
    Ok(Row {
        bits,
        levels: levels.len(),
        bytes,
        compression: bytes.map(|bytes| 4.0 * count / bytes as f64),
        rms_error: (squares / count).sqrt(),
        max_error,
        share_of_zeros: zeros as f64 / count,
    })
}

fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["bits", "levels", "bytes", "vs f32", "rms error", "max error", "zeros"]);
    for row in &report.rows {
        table.add_row([
            row.bits.to_string(),
            row.levels.to_string(),
            row.bytes.map_or("-".to_owned(), |bytes| bytes.to_string()),
            row.compression.map_or("-".to_owned(), |ratio| format!("{ratio:.1}x")),
            format!("{:.3e}", row.rms_error),
            format!("{:.3e}", row.max_error),
            format!("{:.1} %", 100.0 * row.share_of_zeros),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}: {} weights\n{table}", report.scheme, report.weights)
}

/// Draws from a bell-shaped distribution of standard deviation 0.05; the sum of twelve uniform numbers has a
/// variance of 1.
fn random_weights(seed: u64, count: u32) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        // SplitMix64 (Steele et al. 2014), which is good for any seed, including zero.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 0.05).collect()
}
