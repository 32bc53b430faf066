//! Bytes moved if every tensor moves once.

use releq_core::{Bitwidth, Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::price::wide;

/// Bits that one layer moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficBits {
    /// Bits of weights read.
    pub weights: u64,
    /// Bits of input activations read.
    pub inputs: u64,
    /// Bits of output activations written.
    pub outputs: u64,
}

impl TrafficBits {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.weights + self.inputs + self.outputs
    }
}

/// Bytes between memory and chip if weights and inputs are read once and outputs written once.
///
/// `(weights * bw + in_activations * ba + out_activations * ba_out) / 8`: the least that a machine without
/// room for a whole layer can move. Biases are left out.
///
/// # Units
/// Bytes of one inference, batch 1, in exact eighths. Any bitwidth from 1 to 32; a float takes 4 bytes.
///
/// # Source
/// Arithmetic; the compulsory traffic of the roofline model (Williams et al. 2009).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct MemoryTraffic {
    /// Bitwidth of the outputs; that of the layer's own inputs if `None`, the default.
    pub output_bits: Option<Bitwidth>,
}

releq_core::named_fields!(MemoryTraffic);

impl MemoryTraffic {
    /// Exact bits that one inference through `layer` moves.
    #[must_use]
    pub fn bits(&self, layer: &LayerProfile, bits: LayerBits) -> TrafficBits {
        TrafficBits {
            weights: layer.weights() * wide(bits.weight),
            inputs: layer.in_activations() * wide(bits.activation),
            outputs: layer.out_activations() * wide(self.output_bits.unwrap_or(bits.activation)),
        }
    }
}

impl CostModel for MemoryTraffic {
    fn name(&self) -> &str {
        "traffic"
    }

    fn unit(&self) -> &str {
        "bytes"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        Ok(Cost(self.bits(layer, bits).total() as f64 / 8.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::layers::{at, lenet};

    #[test]
    fn hand_computed_cases() {
        let layer = &lenet()[0];
        let moved = MemoryTraffic::default().bits(layer, at(2, 8));
        let expected = TrafficBits { weights: 1000, inputs: 6272, outputs: 92_160 };
        assert_eq!(moved, expected);
        let wide = MemoryTraffic { output_bits: Some(Bitwidth::FLOAT) };
        assert_eq!(wide.bits(layer, at(2, 8)).outputs, 11_520 * 32);
        assert_eq!(wide.layer_cost(layer, at(2, 8)).unwrap().0, (7272.0 + 368_640.0) / 8.0);
    }
}
