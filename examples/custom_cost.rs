//! Computes the cost of your own layers at your own bitwidths: on Stripes, on this CPU, and under your own cost
//! model.
//!
//! ```text
//! cargo run --release --example custom_cost
//! ```

use std::process::ExitCode;

use anyhow::Result;
use releq_cli::terminal::{exit_code, output::print};
use releq_core::{Bitwidth, Cost, CostError, CostModel, LayerBits, LayerProfile, Network};
use releq_hw::{CpuLatency, LatencyConfig, Stripes, cost_report, weights_only};

/// Bytes that a radio link transfers to update the weights of a device.
struct RadioBytes;

impl CostModel for RadioBytes {
    fn name(&self) -> &str {
        "radio"
    }

    fn unit(&self) -> &str {
        "bytes"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        // Each packet has a payload of 48 bytes.
        let bytes = (layer.weights() * u64::from(bits.weight.get())).div_ceil(8);
        Ok(Cost((bytes.div_ceil(48) * 48) as f64))
    }
}

fn main() -> ExitCode {
    exit_code(run)
}

fn run() -> Result<()> {
    let network = Network::builder("keywords", [1, 40, 40])
        .conv2d("conv1", 32, 3)
        .max_pool("pool1", 2, 2)
        .conv2d("conv2", 64, 3)
        .max_pool("pool2", 2, 2)
        .flatten("flatten")
        .linear("fc", 12)
        .build()?;
    let layers = network.profiles();
    let bits = weights_only(&[8, 3, 4].map(|bits| Bitwidth::new(bits).expect("1 to 32")));

    // This measures the layers on the CPU.
    let cpu = CpuLatency::measure(&layers, &bits, &LatencyConfig::default())?;
    let models: [&dyn CostModel; 3] = [&Stripes::default(), &cpu, &RadioBytes];
    for model in cost_report(models, &layers, &bits, None)?.models {
        let gain = model.total.gain_over_uniform8();
        let (name, cost, unit) = (model.model, model.total.cost, model.unit);
        print(format_args!("{name:>12}: {cost:>10.1} {unit:<7} {gain:.2}x"))?;
    }
    Ok(())
}
