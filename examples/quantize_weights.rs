//! Quantizes the weights of one layer with `releq-quant` alone: no network, no training, no tensors.
//!
//! ```text
//! cargo run --release --example quantize_weights
//! ```
//!
//! For each scheme and bitwidth: the levels that are in use, the bytes of the packed codes, and the rounding error.
//! Without a scale (`wrpn`), few bits round nearly all of these weights to zero.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Result;
use releq_cli::terminal::{exit_code, output::print};
use releq_quant::{Bitwidth, LayerWeights, PowersOfTwo, QuantError, Quantizer, Wrpn, WrpnScaled};

/// Weights like those of a trained convolution: bell-shaped, small, and of 16 output channels.
fn weights() -> Vec<f32> {
    let bell = |index: i16| {
        let x = f32::from(index) / 200.0 - 2.0;
        0.05 * x * (-0.5 * x * x).exp()
    };
    (0..800).map(bell).collect()
}

fn main() -> ExitCode {
    exit_code(run)
}

fn run() -> Result<()> {
    let weights = weights();
    let layer = LayerWeights::new(&weights, 16)?;
    let quantizers: [&dyn Quantizer; 3] = [&Wrpn, &WrpnScaled::default(), &PowersOfTwo];
    print(format_args!("{:<14} bits  levels  bytes  rms error", "quantizer"))?;
    for quantizer in quantizers {
        for bits in [2, 4, 8] {
            let bits = Bitwidth::new(bits)?;

            // What training sees: floats on the levels that the bitwidth allows.
            let mut rounded = vec![0.0; weights.len()];
            quantizer.fake_quantize(layer, bits, &mut rounded)?;
            let squares =
                weights.iter().zip(&rounded).map(|(weight, level)| (weight - level).powi(2));
            let rms = (squares.sum::<f32>() / weights.len() as f32).sqrt();
            let levels: BTreeSet<u32> =
                rounded.iter().map(|level| (level + 0.0).to_bits()).collect();

            // What is stored: integer codes, packed. Levels that are not evenly spaced have none.
            let bytes = match quantizer.quantize(layer, bits) {
                Ok(quantized) => quantized.pack()?.as_bytes().len().to_string(),
                Err(QuantError::NoCodes { .. }) => "-".to_owned(),
                Err(error) => return Err(error.into()),
            };
            let (name, levels) = (quantizer.name(), levels.len());
            print(format_args!("{name:<14} {bits:>4} {levels:>7} {bytes:>6}  {rms:.2e}"))?;
        }
    }
    Ok(())
}
