//! Accuracies that nobody measured, to try searches on.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use releq::{
    ReleqError,
    core::BitwidthAssignment,
    evaluate::{Evaluation, Evaluator},
};

/// Accuracy of a network drawn at random, for any assignment.
///
/// Layers differ widely in how much they matter and in how fast their damage falls with the bits, pairs of them spoil or
/// spare each other, a network with too much damage collapses to chance, and every accuracy is off by as much
/// as a short retrain is. The best assignment is far from any uniform one.
#[derive(Clone, Debug)]
pub struct Landscape {
    seed: u64,
    /// Damage of each layer at four bits.
    damage: Vec<f64>,
    /// By how much it falls with each bit.
    decay: Vec<f64>,
    /// Pairs of layers, and the damage that they do together over the geometric mean of what each does.
    pairs: Vec<(usize, usize, f64)>,
}

/// Standard deviation of an accuracy.
const NOISE: f64 = 0.0015;

const FULL_PRECISION: f64 = 0.92;
const CHANCE: f64 = 0.1;

impl Landscape {
    /// The landscape of this seed.
    #[must_use]
    pub fn draw(seed: u64, layers: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let damage = (0..layers)
            .map(|_| 0.12 / layers as f64 * 10f64.powf(rng.random_range(-1.2..1.2)))
            .collect();
        let decay = (0..layers).map(|_| rng.random_range(2.5..5.0)).collect();
        let pairs = (0..layers)
            .filter_map(|_| {
                let (a, b) = (rng.random_range(0..layers), rng.random_range(0..layers));
                (a != b).then(|| (a, b, rng.random_range(-0.8..1.2)))
            })
            .collect();
        Self { seed, damage, decay, pairs }
    }

    /// Damage of one layer alone at this many bits.
    #[must_use]
    pub fn damage(&self, layer: usize, bits: u8) -> f64 {
        self.damage[layer] * self.decay[layer].powf(4.0 - f64::from(bits))
    }

    /// The accuracy without noise.
    #[must_use]
    pub fn accuracy(&self, bits: &[u8]) -> f64 {
        let each: Vec<f64> = (0..bits.len()).map(|layer| self.damage(layer, bits[layer])).collect();
        let together =
            self.pairs.iter().map(|&(a, b, share)| share * (each[a] * each[b]).sqrt()).sum::<f64>();
        let damage = (each.iter().sum::<f64>() + together).max(0.2 * each.iter().sum::<f64>());
        let alive = 1.0 / (1.0 + ((damage - 0.6) / 0.08).exp());
        FULL_PRECISION * (-damage / 0.4).exp() * alive + CHANCE * (1.0 - alive)
    }
}

impl Evaluator for Landscape {
    fn full_precision(&self) -> f64 {
        FULL_PRECISION
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        let bits = bits.to_bits();
        let seed = bits
            .iter()
            .fold(self.seed, |hash, &bits| (hash ^ u64::from(bits)).wrapping_mul(0x0100_0000_01b3));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The sum of twelve uniform numbers is nearly normal, with a variance of one.
        let noise = (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>() * NOISE;
        Ok(Evaluation::new((self.accuracy(&bits) + noise).clamp(0.0, 1.0)))
    }

    fn name(&self) -> &str {
        "landscape"
    }
}
