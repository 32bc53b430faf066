//! Dropout masks that depend on nothing but the step and the layer.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Factors for the inputs of dropout layer `node` in training step `step`, counted since the last
/// load: 0 with `probability`, else `1 / (1 - probability)`.
///
/// Every trainer uses these, so that they can be compared, and equal calls give equal bits.
///
/// # Shapes
/// - output: `[len]`, where `len` is the batch times the values of one sample
pub(crate) fn dropout_mask(step: u64, node: usize, probability: f64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(step);
    rng.set_stream(node as u64);
    let kept = (1.0 / (1.0 - probability)) as f32;
    (0..len).map(|_| if rng.random_bool(probability) { 0.0 } else { kept }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_differ_by_step_and_layer_and_keep_the_mean() {
        let mask = |step, node| dropout_mask(step, node, 0.25, 40_000);
        assert_eq!(mask(3, 5), mask(3, 5));
        assert_ne!(mask(3, 5), mask(4, 5));
        assert_ne!(mask(3, 5), mask(3, 6));
        let zeros = mask(3, 5).iter().filter(|&&factor| factor == 0.0).count();
        // The binomial deviation is sqrt(40000 * 0.25 * 0.75) = 87.
        assert!(zeros.abs_diff(10_000) < 400, "{zeros}");
        assert!(mask(3, 5).iter().all(|&f| f == 0.0 || f == 4.0 / 3.0));
        assert_eq!(dropout_mask(0, 0, 0.0, 3), [1.0; 3]);
    }
}
