//! How much each layer suffers from each bitwidth, and the assignments that follow from it.

mod knapsack;
mod measure;

use releq_core::Bitwidth;
use releq_train::Compared;
use serde::{Deserialize, Serialize};

pub use knapsack::Proposed;

/// What quantizing one layer alone, without any retraining, does to the outputs of a network.
///
/// A forward pass over the held-out images for each layer and bitwidth gives it. The sum over the layers predicts
/// how assignments compare after a retrain better than a short retrain of each of them does; `docs/reproduction.md`
/// has our measurement. That holds for quantizers that fit their levels to the weights: where a layer collapses until
/// it is retrained, as with plain WRPN, little can be read from it.
///
/// # Source
/// Sensitivities of single layers, and a knapsack over them: HAWQ-V3 (Yao et al., ICML 2021), which takes the Hessian.
/// The divergence in its place is our choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Sensitivities {
    /// Images that were shown.
    pub images: usize,
    /// The searched layers, in order.
    pub layers: Vec<LayerSensitivity>,
}

/// Sensitivity of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LayerSensitivity {
    /// Place among all quantizable layers.
    pub layer: usize,
    /// Its name.
    pub name: String,
    /// Every bitwidth to choose from, ascending.
    pub bits: Vec<Sensitivity>,
}

/// What became of the network with one layer at one bitwidth, and all others in floating point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Sensitivity {
    /// The bitwidth.
    pub bits: Bitwidth,
    /// The outputs beside those in full precision.
    pub compared: Compared,
}

impl Sensitivities {
    /// Sum of the divergences of all searched layers, in nats; `None` for a bitwidth that was not measured.
    ///
    /// # Shapes
    /// - `bits`: one for each quantizable layer; those of layers that are not searched do not matter
    #[must_use]
    pub fn divergence(&self, bits: &[Bitwidth]) -> Option<f64> {
        self.layers.iter().map(|layer| layer.divergence(*bits.get(layer.layer)?)).sum()
    }
}

/// Divergence up to which the loss of accuracy is taken to be proportional to it, in nats.
const SMALL: f64 = 0.1;

impl Sensitivities {
    /// How much accuracy is lost with every nat of divergence, by least squares over all that was measured at a small
    /// divergence; `None` where that tells nothing, as for images without labels or a quantizer under which every layer
    /// collapses.
    #[must_use]
    pub fn accuracy_per_nat(&self) -> Option<f64> {
        let (mut products, mut squares) = (0.0, 0.0);
        for known in self.layers.iter().flat_map(|layer| &layer.bits) {
            let nats = known.compared.divergence.value;
            if nats <= SMALL {
                let loss = -known.compared.labelled.as_ref()?.difference().value;
                products += nats * loss;
                squares += nats * nats;
            }
        }
        let slope = products / squares;
        (slope.is_finite() && slope > 0.0).then_some(slope)
    }
}

impl LayerSensitivity {
    /// Divergence at this bitwidth, in nats, if it was measured.
    #[must_use]
    pub fn divergence(&self, bits: Bitwidth) -> Option<f64> {
        let measured = self.bits.iter().find(|measured| measured.bits == bits)?;
        Some(measured.compared.divergence.value)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use releq_train::{Compared, Estimate};

    use super::*;

    /// Sensitivities of layers whose divergence at `bits` is `weight * 4^-bits`.
    pub(crate) fn by_weights(weights: &[f64], bits: std::ops::RangeInclusive<u8>) -> Sensitivities {
        let compared = |value: f64| -> Compared {
            let divergence = Estimate { value, standard_error: 0.0 };
            serde_json::from_value(serde_json::json!({ "divergence": divergence })).unwrap()
        };
        let layer = |(layer, weight): (usize, &f64)| LayerSensitivity {
            layer,
            name: format!("layer{layer}"),
            bits: bits
                .clone()
                .map(|bits| Sensitivity {
                    bits: Bitwidth::new(bits).unwrap(),
                    compared: compared(weight * 4f64.powi(-i32::from(bits))),
                })
                .collect(),
        };
        Sensitivities { images: 100, layers: weights.iter().enumerate().map(layer).collect() }
    }

    #[test]
    fn divergences_add_up_over_the_searched_layers() {
        let mut known = by_weights(&[16.0, 64.0], 2..=3);
        known.layers[1].layer = 2;
        let bits = |all: [u8; 3]| all.map(|bits| Bitwidth::new(bits).unwrap());
        assert_eq!(known.divergence(&bits([2, 8, 3])), Some(2.0));
        assert_eq!(known.divergence(&bits([2, 8, 8])), None);
        assert_eq!(known.divergence(&bits([2, 8, 3])[..2]), None);
    }
}
