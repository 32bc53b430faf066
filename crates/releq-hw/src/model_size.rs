//! Bytes that a stored model takes.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::price::wide;

/// Scales stored with a layer's integer codes, 32 bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleStorage {
    /// None: the levels of WRPN and DoReFa span [-1, 1] by definition.
    None,
    /// One for a layer.
    #[default]
    PerTensor,
    /// One for every output channel.
    PerChannel,
}

/// Bytes of a stored model: weights at their bitwidths, scales and biases in float.
///
/// `(weights * weight bits + 32 * scales + 32 * biases) / 8`, without rounding to whole bytes, so that sums
/// are exact; packed storage adds less than a byte, or a word, per tensor. Activations do not matter.
///
/// Batch norm is folded into the layer before it: its factors become scales, one for every output channel,
/// and its shifts biases. In a float layer the factors disappear in the weights, which take 4 bytes each and no
/// scale.
///
/// # Units
/// Bytes, in exact eighths. Any bitwidth from 1 to 32, and float.
///
/// # Source
/// Arithmetic; no paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct ModelSize {
    /// Scales stored: by default one for a layer, which is the least that integer codes need in general. Runs whose quantizer
    /// has one for each channel count those in its place ([`CostKind::with_scales`](crate::CostKind::with_scales)).
    pub scales: ScaleStorage,
    /// Leaves out the biases, and what folded batch norms make; by default they count, 32 bits each.
    pub without_biases: bool,
}

releq_core::named_fields!(ModelSize);

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
            _ if bits.weight.is_float() => 0,
            _ if layer.batch_norm && !self.without_biases => channels,
            ScaleStorage::None => 0,
            ScaleStorage::PerTensor => 1,
            ScaleStorage::PerChannel => channels,
        };
        let has_bias = layer.bias || layer.batch_norm;
        let biases = if has_bias && !self.without_biases { channels } else { 0 };
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
    use releq_core::Bitwidth;

    use super::*;
    use crate::price::layers::{at, conv, linear};

    #[test]
    fn hand_computed_cases() {
        let bytes = |model: ModelSize, layer: &LayerProfile, weight| {
            model.layer_cost(layer, at(weight, 8)).unwrap().0
        };
        // 450 weights of 3 bits are 168.75 bytes.
        let layer = conv([3, 6], 32, [5, 1, 0]);
        assert_eq!(bytes(ModelSize::weights_only(), &layer, 3), 168.75);
        assert_eq!(bytes(ModelSize::default(), &layer, 3), 172.75);
        let scaled = |scales| ModelSize { scales, ..ModelSize::default() };
        assert_eq!(bytes(scaled(ScaleStorage::None), &layer, 3), 168.75);
        assert_eq!(bytes(scaled(ScaleStorage::PerTensor), &layer, 3), 172.75);
        assert_eq!(bytes(scaled(ScaleStorage::PerChannel), &layer, 3), 192.75);
        let mut biased = linear(500, 10);
        biased.bias = true;
        assert_eq!(bytes(ModelSize::default(), &biased, 2), 1250.0 + 4.0 + 40.0);
        assert_eq!(bytes(ModelSize::weights_only(), &biased, 2), 1250.0);
    }

    #[test]
    fn a_folded_batch_norm_leaves_scales_and_biases() {
        let bytes = |bias: bool, batch_norm: bool, weight| {
            let mut layer = linear(500, 10);
            (layer.bias, layer.batch_norm) = (bias, batch_norm);
            ModelSize::default().layer_cost(&layer, LayerBits::weights_only(weight)).unwrap().0
        };
        let two = Bitwidth::new(2).unwrap();
        assert_eq!(bytes(false, false, two), 1250.0 + 4.0);
        assert_eq!(bytes(true, false, two), 1250.0 + 4.0 + 40.0);
        assert_eq!(bytes(false, true, two), 1250.0 + 40.0 + 40.0);
        assert_eq!(bytes(true, true, two), 1250.0 + 40.0 + 40.0);
        assert_eq!(bytes(false, true, Bitwidth::FLOAT), 20_000.0 + 40.0);
    }

    #[test]
    fn a_float_layer_has_no_scale() {
        let float = LayerBits::weights_only(Bitwidth::FLOAT);
        for scales in [ScaleStorage::None, ScaleStorage::PerTensor, ScaleStorage::PerChannel] {
            let model = ModelSize { scales, ..ModelSize::default() };
            assert_eq!(model.layer_cost(&linear(500, 10), float), Ok(Cost(20_000.0)));
        }
    }
}
