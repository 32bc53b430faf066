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

/// Divergences, in nats, up to which the loss of accuracy is taken to be proportional to it: the first that tells enough.
/// The smaller, the truer; but with few images, small divergences are lost among the images that are classified otherwise by
/// chance.
const SMALL: [f64; 4] = [0.1, 0.2, 0.3, 0.5];
/// What tells enough: the most that the standard error of the proportion may be, as a part of it.
const ENOUGH: f64 = 1.0 / 6.0;

impl Sensitivities {
    /// How much accuracy is lost with every nat of divergence, by least squares over all that was measured at a small
    /// divergence; `None` where that tells nothing, as for images without labels or a quantizer under which every layer
    /// collapses.
    ///
    /// Small is at most 0.1 nats, or up to 0.5 where the standard error would otherwise be over a sixth of the result.
    #[must_use]
    pub fn accuracy_per_nat(&self) -> Option<f64> {
        let all = self.layers.iter().flat_map(|layer| &layer.bits);
        let points: Option<Vec<[f64; 3]>> = all.map(|known| known.loss_by_divergence()).collect();
        let points = points?;
        let mut slope = None;
        for most in SMALL {
            let (mut products, mut squares, mut variance) = (0.0, 0.0, 0.0);
            for [nats, loss, error] in points.iter().filter(|[nats, ..]| *nats <= most) {
                products += nats * loss;
                squares += nats * nats;
                variance += (nats * error).powi(2);
            }
            let found = products / squares;
            slope = Some(found).filter(|found| found.is_finite() && *found > 0.0);
            if slope.is_some_and(|slope| variance.sqrt() / squares <= ENOUGH * slope) {
                break;
            }
        }
        slope
    }
}

impl Sensitivity {
    /// Divergence, the accuracy that is lost, and its standard error; `None` without labels.
    fn loss_by_divergence(&self) -> Option<[f64; 3]> {
        let difference = self.compared.labelled.as_ref()?.difference();
        Some([self.compared.divergence.value, -difference.value, difference.standard_error])
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

    /// One layer, at these divergences: images that were classified correctly before alone and after alone, of `images`.
    fn labelled(images: usize, all: &[(f64, usize, usize)]) -> Sensitivities {
        let one = |(place, &(nats, lost, won)): (usize, &(f64, usize, usize))| Sensitivity {
            bits: Bitwidth::new(place as u8 + 1).unwrap(),
            compared: serde_json::from_value(serde_json::json!({
                "divergence": { "value": nats, "standard_error": 0.0 },
                "labelled": {
                    "accuracy": { "correct": images / 2, "total": images },
                    "cross_entropy": { "value": 1.0, "standard_error": 0.1 },
                    "won": won,
                    "lost": lost,
                },
            }))
            .unwrap(),
        };
        let bits = all.iter().enumerate().map(one).collect();
        let layers = vec![LayerSensitivity { layer: 0, name: "layer0".to_owned(), bits }];
        Sensitivities { images, layers }
    }

    #[test]
    fn the_loss_for_each_nat_is_told_by_the_smallest_divergences_that_tell_enough() {
        let slope = |known: Sensitivities| known.accuracy_per_nat().unwrap();
        // Many images: 0.3 for each nat at first, half of that where accuracy is nearly gone.
        let many = labelled(10_000, &[(0.05, 170, 20), (0.1, 330, 30), (0.5, 800, 50)]);
        assert!((slope(many) - 0.3).abs() < 0.001);
        // Few of them classify 3 otherwise by chance, which says nothing; what is further away does.
        let few = [(0.05, 1, 2), (0.1, 2, 1), (0.2, 9, 5), (0.3, 20, 2), (0.5, 32, 3)];
        assert!((slope(labelled(200, &few)) - 0.264).abs() < 0.001);
        // Nothing is nearer than that.
        assert_eq!(labelled(200, &[(3.0, 90, 0)]).accuracy_per_nat(), None);
        assert_eq!(labelled(200, &[(0.1, 0, 9)]).accuracy_per_nat(), None);
        assert_eq!(by_weights(&[1.0], 2..=3).accuracy_per_nat(), None);
    }
}
