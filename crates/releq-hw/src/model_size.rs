//! Bytes that the weights take.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::price::wide;

/// Scales that are stored beside a layer's integer codes, 32 bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleStorage {
    /// None: WRPN's and DoReFa's levels span [-1, 1] by definition.
    #[default]
    None,
    /// One for a layer.
    PerTensor,
    /// One for every output channel.
    PerChannel,
}

/// Bytes of a stored model: weights at their bitwidths, scales if there are any, float biases.
///
/// `(weights * weight bits + 32 * scales + 32 * biases) / 8`, without rounding to whole bytes, so that sums
/// are exact; packed storage adds less than a byte, or a word, per tensor. Activations do not matter.
///
/// # Units
/// Bytes, in exact eighths. Any bitwidth from 1 to 32.
///
/// # Source
/// Arithmetic; no paper. Batch norm is taken as folded into weights and biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSize {
    /// Scales stored: none by default, as in the quantizers of the ReLeQ paper.
    pub scales: ScaleStorage,
    /// Leaves out the biases of the layers that have one; by default they count, 32 bits each.
    pub without_biases: bool,
}

/// Bits of a stored scale or bias.
const FLOAT_BITS: u64 = 32;

impl ModelSize {
    /// Weights alone.
    #[must_use]
    pub const fn weights_only() -> Self {
        Self { scales: ScaleStorage::None, without_biases: true }
    }

    /// Exact bits that `layer` takes.
    #[must_use]
    pub fn bits(&self, layer: &LayerProfile, bits: LayerBits) -> u64 {
        let channels = layer.out_channels as u64;
        let scales = match self.scales {
            ScaleStorage::None => 0,
            ScaleStorage::PerTensor => 1,
            ScaleStorage::PerChannel => channels,
        };
        let biases = if layer.bias && !self.without_biases { channels } else { 0 };
        layer.weights() * wide(bits.weight) + FLOAT_BITS * (scales + biases)
    }
}

impl CostModel for ModelSize {
    fn name(&self) -> &str {
        "size"
    }

    fn unit(&self) -> &str {
        "bytes"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        Ok(Cost(self.bits(layer, bits) as f64 / 8.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::layers::{at, conv, linear};

    #[test]
    fn hand_computed_cases() {
        let bytes = |model: ModelSize, layer: &LayerProfile, weight| {
            model.layer_cost(layer, at(weight, 8)).unwrap().0
        };
        // 450 weights of 3 bits are 168.75 bytes.
        let layer = conv([3, 6], 32, [5, 1, 0]);
        assert_eq!(bytes(ModelSize::default(), &layer, 3), 168.75);
        let scaled = |scales| ModelSize { scales, ..ModelSize::default() };
        assert_eq!(bytes(scaled(ScaleStorage::PerTensor), &layer, 3), 172.75);
        assert_eq!(bytes(scaled(ScaleStorage::PerChannel), &layer, 3), 192.75);
        let mut biased = linear(500, 10);
        biased.bias = true;
        assert_eq!(bytes(ModelSize::default(), &biased, 2), 1250.0 + 40.0);
        assert_eq!(bytes(ModelSize::weights_only(), &biased, 2), 1250.0);
    }
}
