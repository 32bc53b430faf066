//! A model of the accuracy of assignments that were not measured.

use nalgebra::{DMatrix, DVector};
use releq_core::{Bitwidth, BitwidthAssignment};

use super::{
    curve::Curve,
    law::{DECAYS, Law},
    process::Process,
};
use crate::{
    ReleqError, Sensitivities,
    evaluate::{Evaluation, Evaluator},
};

/// How many measurements a model is fitted to at most; the time of a fit grows with the cube.
const MOST: usize = 256;

/// Standard deviation of an accuracy around the first part of the model, as a share of full precision.
const SPREAD: f64 = 0.01;

/// What is known of one assignment.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Bits of the searched layers.
    pub(super) bits: Vec<f64>,
    /// Accuracy over that of full precision.
    pub(super) accuracy: f64,
}

/// The accuracy of assignments, as far as some measurements tell.
///
/// Every searched layer `l` does a damage of `w_l` times what a [`Law`] says of its bits. The bitwidth which does the same damage when all layers
/// have it is looked up on the measured [`Curve`] of uniform bitwidths. The weights `w_l` are those of highest
/// posterior probability under a log-normal prior (Levenberg-Marquardt), and their uncertainty by Laplace's
/// approximation. What that leaves unexplained, such as layers that spoil each other, is a Gaussian [`Process`].
#[derive(Clone, Debug)]
pub(super) struct Surrogate {
    curve: Curve,
    law: Law,
    /// Logarithms of the weights.
    weights: Vec<f64>,
    /// Covariance of those.
    covariance: DMatrix<f64>,
    process: Option<Process>,
}

/// Mean and standard deviation of an accuracy over that of full precision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess {
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

impl Surrogate {
    /// Fits the model to `known`, and to the `uniform` ones of (bits, accuracy), sorted by bits. There are this many
    /// searched `layers`. Of the laws, the one that explains what is known best stands.
    pub(super) fn fit(
        known: &[Known],
        uniform: &[(f64, f64)],
        layers: usize,
        sensitivities: Option<&Sensitivities>,
    ) -> Self {
        let curve = Curve::new(uniform);
        // The newest tell most of where the search is now; the uniform ones are in the curve.
        let known = &known[known.len().saturating_sub(MOST)..];
        let decays = DECAYS.map(Law::Decay).into_iter();
        let laws = decays.chain(sensitivities.and_then(Law::measured));
        let fits = laws.map(|law| Weights::fit(&curve, law, known, layers));
        let best = fits.min_by(|a, b| a.objective.total_cmp(&b.objective));
        let Weights { law, logs, covariance, .. } =
            best.unwrap_or_else(|| Weights::fit(&curve, Law::Decay(DECAYS[0]), known, layers));
        let mut model = Self { curve, law, weights: logs, covariance, process: None };
        let residuals: Vec<f64> =
            known.iter().map(|known| known.accuracy - model.by_weights(&known.bits).0).collect();
        let inputs = known.iter().map(|known| input(&known.bits)).collect();
        model.process = Process::fit(inputs, &residuals);
        model
    }

    /// By the first part of the model: mean, and its derivatives by the logarithms of the weights.
    fn by_weights(&self, bits: &[f64]) -> (f64, Vec<f64>) {
        let damage = Damage::new(&self.weights, &self.law, bits);
        (self.curve.at(damage.bits), damage.derivatives(self.curve.slope(damage.bits)))
    }

    /// A guess by the first part alone, without its uncertainty: cheap.
    pub(super) fn glance(&self, bits: &[f64]) -> f64 {
        self.curve.at(Damage::new(&self.weights, &self.law, bits).bits)
    }

    /// The accuracy of an assignment.
    pub(super) fn guess(&self, bits: &[f64]) -> Guess {
        let (mean, derivatives) = self.by_weights(bits);
        let derivatives = DVector::from_vec(derivatives);
        let variance = derivatives.dot(&(&self.covariance * &derivatives)).max(0.0);
        let (more, variance_more) =
            self.process.as_ref().map_or((0.0, 0.0), |process| process.predict(&input(bits)));
        Guess { mean: (mean + more).max(0.0), deviation: (variance + variance_more).sqrt() }
    }
}

/// The process sees bitwidths by their logarithms: from 2 to 3 bits more changes than from 7 to 8.
fn input(bits: &[f64]) -> Vec<f64> {
    bits.iter().map(|bits| bits.log2()).collect()
}

/// Damage of the layers of one assignment.
struct Damage {
    /// The bitwidth that does as much damage when all layers have it.
    bits: f64,
    /// Derivative of those bits by the logarithm of the damage.
    slope: f64,
    /// Share of each layer in it.
    shares: Vec<f64>,
}

impl Damage {
    fn new(weights: &[f64], law: &Law, bits: &[f64]) -> Self {
        let layers = weights.iter().zip(bits).enumerate();
        let each: Vec<f64> =
            layers.map(|(layer, (w, bits))| (w + law.log_damage(layer, *bits)).exp()).collect();
        let sum: f64 = each.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let (bits, slope) = law.uniform_bits((sum / weights.len() as f64).ln());
        Self { bits, slope, shares: each.into_iter().map(|damage| damage / sum).collect() }
    }

    /// Derivatives of the accuracy by the logarithms of the weights, where the curve has this slope.
    fn derivatives(&self, slope: f64) -> Vec<f64> {
        self.shares.iter().map(|share| slope * self.slope * share).collect()
    }
}

/// The weights under one law.
struct Weights {
    law: Law,
    logs: Vec<f64>,
    covariance: DMatrix<f64>,
    /// Twice the negative logarithm of the posterior, up to a constant.
    objective: f64,
}

impl Weights {
    fn fit(curve: &Curve, law: Law, known: &[Known], layers: usize) -> Self {
        const STEPS: usize = 30;
        let spread = law.weight_spread();
        let prior_precision = 1.0 / (spread * spread);
        let precision = 1.0 / (SPREAD * SPREAD);
        let objective = |logs: &[f64]| {
            let misses: f64 = known
                .iter()
                .map(|known| {
                    let damage = Damage::new(logs, &law, &known.bits);
                    (known.accuracy - curve.at(damage.bits)).powi(2)
                })
                .sum();
            let away: f64 = logs.iter().map(|log| log * log).sum();
            misses * precision + away * prior_precision
        };
        // The Hessian of Gauss and Newton, and the negative gradient.
        let system = |logs: &[f64]| {
            let mut hessian = DMatrix::from_diagonal_element(layers, layers, prior_precision);
            let mut descent =
                DVector::from_iterator(layers, logs.iter().map(|log| -log * prior_precision));
            for known in known {
                let damage = Damage::new(logs, &law, &known.bits);
                let slope = DVector::from_vec(damage.derivatives(curve.slope(damage.bits)));
                let miss = known.accuracy - curve.at(damage.bits);
                descent.axpy(miss * precision, &slope, 1.0);
                hessian.ger(precision, &slope, &slope, 1.0);
            }
            (hessian, descent)
        };
        let mut logs = vec![0.0; layers];
        let mut now = objective(&logs);
        let mut damping = 1e-3;
        for _ in 0..STEPS {
            let (hessian, descent) = system(&logs);
            let before = now;
            while damping < 1e6 {
                let mut damped = hessian.clone();
                for i in 0..layers {
                    damped[(i, i)] *= 1.0 + damping;
                }
                let step = damped.cholesky().map(|factor| factor.solve(&descent));
                let next: Option<Vec<f64>> =
                    step.map(|step| logs.iter().zip(&step).map(|(log, step)| log + step).collect());
                let better = next.map(|next| (objective(&next), next)).filter(|(o, _)| *o < now);
                if let Some((lower, next)) = better {
                    (now, logs) = (lower, next);
                    damping = f64::max(damping / 5.0, 1e-6);
                    break;
                }
                damping *= 5.0;
            }
            if before - now < 1e-4 * now {
                break;
            }
        }
        let (hessian, _) = system(&logs);
        let covariance = match hessian.cholesky() {
            Some(factor) => factor.inverse(),
            None => DMatrix::zeros(layers, layers),
        };
        Self { law, logs, covariance, objective: now }
    }
}

/// A surrogate in place of measurements, for imagined episodes.
pub(super) struct Imagined<'a> {
    pub(super) surrogate: &'a Surrogate,
    pub(super) searched: &'a [usize],
    pub(super) full_precision: f64,
    /// How many standard deviations below the mean an accuracy is taken.
    pub(super) pessimism: f64,
}

impl Evaluator for Imagined<'_> {
    fn full_precision(&self) -> f64 {
        self.full_precision
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        let Guess { mean, deviation } = self.surrogate.guess(&searched_bits(bits, self.searched));
        let accuracy = self.full_precision * (mean - self.pessimism * deviation);
        Ok(Evaluation::new(accuracy.clamp(0.0, 1.0)))
    }

    fn name(&self) -> &str {
        "surrogate"
    }
}

/// Bits of the searched layers.
pub(super) fn searched_bits(bits: &[Bitwidth], searched: &[usize]) -> Vec<f64> {
    searched.iter().map(|&layer| f64::from(bits[layer].get())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Damage of layers of very different weight, on a curve with a cliff.
    fn truth(bits: &[f64]) -> f64 {
        let weights = [0.1, 5.0, 1.0, 0.3];
        let damage: f64 = weights.iter().zip(bits).map(|(w, bits)| w * 4f64.powf(-bits)).sum();
        1.0 / (1.0 + 100.0 * damage)
    }

    #[test]
    fn it_learns_which_layer_matters() {
        let known = |bits: &[f64]| Known { bits: bits.to_vec(), accuracy: truth(bits) };
        let uniform: Vec<(f64, f64)> =
            (2..=8).map(|bits| (f64::from(bits), truth(&[f64::from(bits); 4]))).collect();
        let mut measured: Vec<Known> = (2..=8).map(|bits| known(&[f64::from(bits); 4])).collect();
        for layer in 0..4 {
            let mut bits = [4.0; 4];
            bits[layer] = 2.0;
            measured.push(known(&bits));
        }
        let model = Surrogate::fit(&measured, &uniform, 4, None);
        let order = |bits: [f64; 4]| model.guess(&bits).mean;
        assert!(order([2.0, 5.0, 4.0, 3.0]) > order([5.0, 2.0, 4.0, 3.0]) + 0.2);
        for bits in [[2.0, 5.0, 4.0, 3.0], [3.0, 6.0, 5.0, 3.0], [2.0, 4.0, 3.0, 2.0]] {
            let Guess { mean, deviation } = model.guess(&bits);
            assert!((mean - truth(&bits)).abs() < 0.1, "{bits:?}: {mean} not {}", truth(&bits));
            assert!(deviation < 0.2);
        }
    }

    #[test]
    fn without_measurements_all_layers_are_alike() {
        let model = Surrogate::fit(&[], &[(2.0, 0.2), (4.0, 0.9), (8.0, 1.0)], 2, None);
        assert!((model.glance(&[2.0, 4.0]) - model.glance(&[4.0, 2.0])).abs() < 1e-12);
        assert!(model.guess(&[4.0, 4.0]).mean > model.guess(&[4.0, 2.0]).mean);
    }
}
