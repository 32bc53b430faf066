//! How the damage of a layer falls with its bits.

use std::collections::BTreeSet;

use crate::Sensitivities;

/// By how much the damage of a layer falls with each bit: four, the variance of uniform rounding, or less, where the
/// network grows tolerant or the quantizer does not use its range.
pub(super) const DECAYS: [f64; 2] = [4.0, 2.5];

/// Standard deviation of the logarithm of a layer's weight before anything is measured. Wide: one layer in twenty
/// matters fifty times as much as the median one.
const WEIGHT_SPREAD: f64 = 2.0;

/// The same where sensitivities tell what a layer's damage is: a retrain mends some layers better than others.
const KNOWN_WEIGHT_SPREAD: f64 = 0.7;

/// Smallest divergence that is told from none, in nats.
const LEAST: f64 = 1e-9;

/// How the damage of each searched layer falls with its bits, before any weight.
#[derive(Clone, Debug)]
pub(super) enum Law {
    /// By the same factor with each bit, in all layers.
    Decay(f64),
    /// As measured.
    Measured(Measured),
}

/// Logarithms of measured damages.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Bitwidths, ascending.
    bits: Vec<f64>,
    /// Of every layer at each of them.
    layers: Vec<Vec<f64>>,
    /// Of the mean over the layers at each of them, never rising with the bits.
    uniform: Vec<f64>,
}

impl Law {
    /// That of `sensitivities`; `None` unless every layer has one bitwidth at least. A layer that was not measured at a
    /// bitwidth of others, as activations may have other ones than weights, has the damage of its nearest, of two the higher.
    pub(super) fn measured(sensitivities: &Sensitivities) -> Option<Self> {
        let all = sensitivities.layers.iter().flat_map(|layer| &layer.bits);
        let bits: BTreeSet<u8> = all.map(|known| known.bits.get()).collect();
        let mut layers = Vec::new();
        for layer in &sensitivities.layers {
            let damage = |bits: &u8| {
                let known = layer.bits.iter().rev();
                let known = known.min_by_key(|known| known.bits.get().abs_diff(*bits))?;
                Some(known.compared.divergence.value.max(LEAST).ln())
            };
            layers.push(bits.iter().map(damage).collect::<Option<Vec<f64>>>()?);
        }
        let bits: Vec<f64> = bits.into_iter().map(f64::from).collect();
        let mut lowest = f64::INFINITY;
        let uniform = (0..bits.len())
            .map(|place| {
                let sum: f64 = layers.iter().map(|layer| layer[place].exp()).sum();
                lowest = lowest.min((sum / layers.len() as f64).ln());
                lowest
            })
            .collect();
        (!bits.is_empty()).then_some(Self::Measured(Measured { bits, layers, uniform }))
    }

    /// Logarithm of the damage of the `layer`-th searched layer at this many bits.
    pub(super) fn log_damage(&self, layer: usize, bits: f64) -> f64 {
        match self {
            Self::Decay(decay) => -bits * decay.ln(),
            Self::Measured(measured) => {
                let place = measured.bits.partition_point(|&known| known < bits);
                let place = place.min(measured.bits.len() - 1);
                measured.layers.get(layer).map_or(0.0, |damages| damages[place])
            }
        }
    }

    /// The bitwidth of all layers at which their mean damage has this logarithm, and its derivative by that logarithm.
    pub(super) fn uniform_bits(&self, log_damage: f64) -> (f64, f64) {
        match self {
            Self::Decay(decay) => (-log_damage / decay.ln(), -1.0 / decay.ln()),
            Self::Measured(measured) => measured.uniform_bits(log_damage),
        }
    }

    /// Standard deviation of the logarithm of a layer's weight, before anything is measured.
    pub(super) const fn weight_spread(&self) -> f64 {
        match self {
            Self::Decay(_) => WEIGHT_SPREAD,
            Self::Measured(_) => KNOWN_WEIGHT_SPREAD,
        }
    }
}

impl Measured {
    /// Linear between the measured bitwidths; beyond them damage falls as that of uniform rounding.
    fn uniform_bits(&self, log_damage: f64) -> (f64, f64) {
        let beyond = 1.0 / DECAYS[0].ln();
        let last = self.bits.len() - 1;
        let above = self.uniform.partition_point(|&known| known > log_damage);
        let (end, slope) = match above {
            0 => (0, -beyond),
            above if above > last => (last, -beyond),
            above => {
                let fall = (self.uniform[above - 1] - self.uniform[above]).max(1e-6);
                (above, -(self.bits[above] - self.bits[above - 1]) / fall)
            }
        };
        (self.bits[end] + slope * (log_damage - self.uniform[end]), slope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitivity::tests::by_weights;

    #[test]
    fn measured_damage_of_one_decay_is_the_law_of_that_decay() {
        let measured = Law::measured(&by_weights(&[1.0, 1.0, 1.0], 2..=6)).unwrap();
        let decay = Law::Decay(4.0);
        for bits in [2.0, 3.0, 6.0] {
            let (a, b) = (measured.log_damage(1, bits), decay.log_damage(1, bits));
            assert!((a - b).abs() < 1e-9, "{bits}: {a}, {b}");
        }
        for bits in [0.5, 2.0, 2.7, 5.0, 6.0, 9.0] {
            let log = decay.log_damage(0, bits);
            let ((a, slope), (b, expected)) = (measured.uniform_bits(log), decay.uniform_bits(log));
            assert!((a - b).abs() < 1e-9 && (slope - expected).abs() < 1e-9, "{bits}: {a}, {b}");
        }
    }

    #[test]
    fn a_layer_at_other_bitwidths_has_the_damage_of_its_nearest() {
        let mut known = by_weights(&[1.0, 1.0], 2..=6);
        known.layers[1].bits.retain(|known| [3, 5].contains(&known.bits.get()));
        let law = Law::measured(&known).unwrap();
        let full = Law::measured(&by_weights(&[1.0, 1.0], 2..=6)).unwrap();
        for (bits, nearest) in [(2.0, 3.0), (3.0, 3.0), (4.0, 5.0), (5.0, 5.0), (6.0, 5.0)] {
            assert_eq!(law.log_damage(1, bits), full.log_damage(1, nearest));
            assert_eq!(law.log_damage(0, bits), full.log_damage(0, bits));
        }
        known.layers[1].bits.clear();
        assert!(Law::measured(&known).is_none());
        known.layers.clear();
        assert!(Law::measured(&known).is_none());
    }
}
