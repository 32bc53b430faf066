//! `releq quantize`: the effect of each bitwidth on the weights of one layer.

use std::{collections::BTreeSet, num::NonZeroUsize, path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use comfy_table::CellAlignment;
use releq::{
    core::{Bitwidth, BitwidthAssignment, text},
    quant::{LayerWeights, QuantError, Quantizer, QuantizerKind},
};
use serde::Serialize;

use crate::{
    args::{Files, UsageError, options, usage},
    terminal::{output::print, tables},
};

/// Show what each bitwidth does to the weights of a layer
///
/// Prints for each bitwidth: the number of distinct levels in the result, the size of the packed codes in bytes, the
/// compression compared with 32-bit floats, the root mean squared and the largest rounding error, and the share of
/// weights that become zero. Quantizers whose levels are not evenly spaced have no codes.
///
/// Without --file, the weights are random with a bell-shaped distribution of standard deviation 0.05, similar to a
/// trained convolution.
#[derive(clap::Args, Debug)]
#[command(after_help = "Quantizers:
  wrpn         fixed levels from -1 to 1, including zero; at few bits, small
               weights become zero
  dorefa       2^b levels from -1 to 1 after a tanh, without zero; rescales the
               layer, so that the error is large before retraining
  wrpn-scaled  wrpn on [-c, c], with the c that minimizes the squared error
  wrpn-scaled-per-channel
               the same, with one c for each of the --channels
  powers-of-two
               zero and signed powers of two, from 2 bits on

At 1 bit, all but powers-of-two give the sign times the mean magnitude.

Examples:
  releq quantize --bits 2,4,8
  releq quantize --quantizer wrpn --bits 2    nearly all weights become zero
  releq quantize --file weights.txt --json")]
pub(crate) struct Args {
    /// Quantizer, one of those listed below
    #[arg(long, default_value_t = QuantizerKind::WrpnScaled)]
    quantizer: QuantizerKind,
    /// Bitwidths to show, comma-separated [default: all that the quantizer takes]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    bits: Vec<BitwidthAssignment>,
    /// Number of output channels; the weights must be ordered by channel
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    channels: NonZeroUsize,
    /// File with the weights to quantize: numbers separated by spaces, newlines, commas or semicolons
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "count"])]
    file: Option<PathBuf>,
    /// Seed of the random weights
    #[arg(
        long,
        value_name = "SEED",
        default_value_t = 0,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// Number of random weights
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000_000)
    )]
    count: u32,
    /// Print a JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One row of the table.
#[derive(Debug, Serialize)]
struct Row {
    bits: Bitwidth,
    levels: usize,
    /// `None` for a quantizer without integer codes.
    bytes: Option<usize>,
    compression: Option<f64>,
    rms_error: f64,
    max_error: f64,
    share_of_zeros: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    quantizer: QuantizerKind,
    weights: usize,
    rows: Vec<Row>,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        Files::new().reads("--file", self.file.as_ref()).check()?;
        let quantizer = self.quantizer.build();
        let supported = (1..=8).map(Bitwidth::new).collect::<Result<Vec<_>, _>>()?;
        let supported = supported.into_iter().filter(|&bits| quantizer.supports(bits)).collect();
        let bits = match usage(options::weight_bits("--bits", &self.bits, self.quantizer))? {
            Some(bits) if bits.iter().any(|bits| bits.is_float()) => {
                return Err(UsageError("--bits: full precision is not quantized".into()).into());
            }
            Some(bits) => Vec::from(bits),
            None => supported,
        };
        let weights = match &self.file {
            Some(path) => text::read_numbers(path)?,
            None => random_weights(self.seed, self.count),
        };
        let channels = self.channels.get();
        if !weights.len().is_multiple_of(channels) {
            bail!("--channels: {} weights are not divisible by {channels}", weights.len());
        }
        let layer = LayerWeights::new(&weights, channels)?;
        let rows = bits.into_iter().map(|bits| row(&*quantizer, layer, bits));
        let rows = rows.collect::<Result<_>>()?;
        let report = Report { quantizer: self.quantizer, weights: weights.len(), rows };
        print(if self.json { serde_json::to_string_pretty(&report)? } else { table(&report) })?;
        Ok(ExitCode::SUCCESS)
    }
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
    let mut table =
        tables::framed(&["bits", "levels", "bytes", "vs f32", "rms error", "max error", "zeros"]);
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
    let table = tables::text(&table);
    format!("{}: {} weights\n{table}", report.quantizer, report.weights)
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
