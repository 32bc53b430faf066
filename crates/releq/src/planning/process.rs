//! A Gaussian process over assignments.

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};

/// A Gaussian process of what another model leaves unexplained.
///
/// The covariance of two assignments is the mean of two squared exponentials of `log2` of their bitwidths: one of
/// each layer by itself, averaged over the layers, and one of all layers together. Its settings are those of highest
/// marginal likelihood in a small grid.
///
/// # Source
/// Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1 and equation 5.8.
#[derive(Clone, Debug)]
pub(super) struct Process {
    inputs: Vec<Vec<f64>>,
    settings: Settings,
    factor: Cholesky<f64, Dyn>,
    /// Inverse of the covariance of the data times the data.
    weights: DVector<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    /// Standard deviation of the function.
    amplitude: f64,
    /// In units of `log2` of a bitwidth.
    length: f64,
}

/// Grid of the settings; amplitudes and noises, the standard deviations of measurements, are accuracies.
const AMPLITUDES: [f64; 3] = [0.005, 0.02, 0.08];
const LENGTHS: [f64; 3] = [0.5, 1.0, 2.0];
const NOISES: [f64; 2] = [0.003, 0.012];

impl Process {
    /// The process of highest likelihood; `None` where numbers are not finite.
    pub(super) fn fit(inputs: Vec<Vec<f64>>, values: &[f64]) -> Option<Self> {
        let values = DVector::from_column_slice(values);
        let mut best: Option<(f64, Self)> = None;
        for length in LENGTHS {
            let count = inputs.len();
            let shape =
                DMatrix::from_fn(count, count, |i, j| shape(&inputs[i], &inputs[j], length));
            for amplitude in AMPLITUDES {
                for noise in NOISES {
                    let mut covariance = &shape * (amplitude * amplitude);
                    for i in 0..count {
                        covariance[(i, i)] += noise * noise;
                    }
                    let Some(factor) = Cholesky::new(covariance) else { continue };
                    let weights = factor.solve(&values);
                    let log_determinant: f64 =
                        factor.l_dirty().diagonal().iter().map(|d| d.ln()).sum();
                    let likelihood = -0.5 * values.dot(&weights) - log_determinant;
                    if likelihood.is_finite()
                        && best.as_ref().is_none_or(|(highest, _)| likelihood > *highest)
                    {
                        let settings = Settings { amplitude, length };
                        let process = Self { inputs: Vec::new(), settings, factor, weights };
                        best = Some((likelihood, process));
                    }
                }
            }
        }
        best.map(|(_, process)| Self { inputs, ..process })
    }

    /// Mean and variance of the function at `input`.
    pub(super) fn predict(&self, input: &[f64]) -> (f64, f64) {
        let Settings { amplitude, length } = self.settings;
        let variance = amplitude * amplitude;
        let mut covariances = DVector::from_iterator(
            self.inputs.len(),
            self.inputs.iter().map(|known| variance * shape(known, input, length)),
        );
        let mean = covariances.dot(&self.weights);
        self.factor.l_dirty().solve_lower_triangular_mut(&mut covariances);
        (mean, (variance - covariances.norm_squared()).max(0.0))
    }
}

/// Covariance of two inputs at amplitude 1.
fn shape(a: &[f64], b: &[f64], length: f64) -> f64 {
    let (mut alone, mut sum) = (0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let square = ((x - y) / length).powi(2);
        // One layer by itself varies at half the length.
        alone += (-2.0 * square).exp();
        sum += square;
    }
    0.5 * (alone / a.len() as f64 + (-0.5 * sum).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_interpolates_and_knows_where_it_does_not_know() {
        let inputs: Vec<Vec<f64>> =
            (0..12).map(|i| vec![f64::from(i % 4), f64::from(i / 4)]).collect();
        let truth = |x: &[f64]| 0.05 * (x[0] - 1.5).sin() - 0.02 * x[1];
        let values: Vec<f64> = inputs.iter().map(|x| truth(x)).collect();
        let process = Process::fit(inputs.clone(), &values).unwrap();
        for x in &inputs {
            assert!((process.predict(x).0 - truth(x)).abs() < 0.01, "{x:?}");
        }
        let (near, far) = (process.predict(&[1.0, 1.0]).1, process.predict(&[40.0, 40.0]).1);
        assert!(near < far, "{near} {far}");
        // Far away only the prior is left.
        let amplitude = process.settings.amplitude;
        assert!(
            (far - amplitude * amplitude).abs() < 0.01 * far
                && process.predict(&[40.0, 40.0]).0.abs() < 1e-6
        );
    }
}
