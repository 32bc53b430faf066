//! A quantizer implemented outside the workspace, with levels that are not evenly spaced.

#[cfg(feature = "everything")]
use releq::{
    core::Network,
    train::{NativeTrainer, TrainError},
};
use releq_quant::{Bitwidth, LayerWeights, QuantError, Quantizer};

/// `2^bits` shared values for each layer, found by k-means.
///
/// # Source
/// Han et al. 2016, *Deep Compression* (arXiv 1510.00149), section 3: centroids start evenly between the
/// smallest and the largest weight. The gradient passes straight through to every weight, whereas theirs is
/// summed over the weights that share a value.
#[derive(Clone, Debug)]
pub struct Codebook {
    name: String,
    iterations: usize,
}

impl Codebook {
    /// A codebook that moves its values this many times.
    #[must_use]
    pub fn new(iterations: usize) -> Self {
        Self { name: format!("codebook-{iterations}"), iterations }
    }

    /// The shared values, in ascending order.
    fn train(&self, weights: &[f32], bits: Bitwidth) -> Vec<f64> {
        let values = || weights.iter().map(|&weight| f64::from(weight));
        let (min, max) = values().fold((f64::MAX, f64::MIN), |(l, h), w| (l.min(w), h.max(w)));
        let last = (1u32 << bits.get()) - 1;
        let even = |i| min + (max - min) * f64::from(i) / f64::from(last);
        let mut centroids: Vec<f64> = (0..=last).map(even).collect();
        for _ in 0..self.iterations {
            let mut sums = vec![(0.0, 0.0); centroids.len()];
            for weight in values() {
                let (sum, count) = &mut sums[nearest(&centroids, weight)];
                *sum += weight;
                *count += 1.0;
            }
            for (centroid, (sum, count)) in centroids.iter_mut().zip(sums) {
                if count > 0.0 {
                    *centroid = sum / count;
                }
            }
        }
        centroids
    }
}

/// Index of the value nearest to `weight`; of two, the larger one.
fn nearest(centroids: &[f64], weight: f64) -> usize {
    let above = centroids.partition_point(|centroid| *centroid < weight);
    if above == centroids.len() {
        return above - 1;
    }
    let below = above.saturating_sub(1);
    if weight - centroids[below] < centroids[above] - weight { below } else { above }
}

impl Quantizer for Codebook {
    fn name(&self) -> &str {
        &self.name
    }

    fn supports(&self, bits: Bitwidth) -> bool {
        bits.get() <= 8
    }

    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        weights.check(self, bits)?;
        weights.check_length("out", out.len())?;
        let centroids = self.train(weights.values(), bits);
        for (out, &weight) in out.iter_mut().zip(weights.values()) {
            *out = centroids[nearest(&centroids, weight.into())] as f32;
        }
        Ok(())
    }
}

/// A trainer of the library that quantizes with [`Codebook`].
///
/// # Errors
/// If the trainer does not cover a layer of `network`.
#[cfg(feature = "everything")]
pub fn trainer(network: &Network) -> Result<NativeTrainer, TrainError> {
    NativeTrainer::new(network, std::sync::Arc::new(Codebook::new(10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codebook_is_a_quantizer() {
        for iterations in [0, 10] {
            releq_quant::check_quantizer(&Codebook::new(iterations));
        }
    }

    #[test]
    fn values_move_to_where_the_weights_are() {
        let weights = [-1.0, -0.9, 0.4, 0.6];
        let mut out = [0.0; 4];
        Codebook::new(5).fake_quantize((&weights).into(), Bitwidth::ONE, &mut out).unwrap();
        assert_eq!(out, [-0.95, -0.95, 0.5, 0.5]);
    }
}
