//! Cost ratios of two assignments, and bitwidths in the form that cost models take.

use releq_core::{
    Bitwidth, BitwidthError, CostError, CostModel, LayerBits, LayerProfile, checked_network_cost,
};

/// How many times cheaper `bits` are than `baseline`: the cost of the baseline over that of the bits.
///
/// Equal costs give 1, even if both are zero.
///
/// # Errors
/// As [`checked_network_cost`], for either assignment.
pub fn speedup<M: CostModel + ?Sized>(
    model: &M,
    layers: &[LayerProfile],
    bits: &[LayerBits],
    baseline: &[LayerBits],
) -> Result<f64, CostError> {
    let cost = checked_network_cost(model, layers, bits)?.0;
    let baseline = checked_network_cost(model, layers, baseline)?.0;
    Ok(ratio(baseline, cost))
}

/// `baseline / cost`, and 1 if they are equal.
pub(crate) fn ratio(baseline: f64, cost: f64) -> f64 {
    if baseline == cost { 1.0 } else { baseline / cost }
}

/// Weights at `weights`, activations at 8 bits.
#[must_use]
pub fn weights_only(weights: &[Bitwidth]) -> Vec<LayerBits> {
    with_activations(weights, Bitwidth::EIGHT)
}

/// Weights at `weights`, activations of every layer at `activation`.
#[must_use]
pub fn with_activations(weights: &[Bitwidth], activation: Bitwidth) -> Vec<LayerBits> {
    weights.iter().map(|&weight| LayerBits::new(weight, activation)).collect()
}

/// Weights and activations of `layers` layers at `bits` bits; 8 is the baseline of most papers.
///
/// # Errors
/// [`BitwidthError::OutOfRange`] unless `bits` lies in 1 to 32.
pub fn uniform(bits: u8, layers: usize) -> Result<Vec<LayerBits>, BitwidthError> {
    let bits = Bitwidth::new(bits)?;
    Ok(vec![LayerBits::new(bits, bits); layers])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BitOperations, Stripes,
        price::layers::{at, lenet},
    };

    #[test]
    fn hand_computed_cases() {
        let layers = lenet();
        let wide = uniform(8, 4).unwrap();
        assert_eq!(speedup(&BitOperations, &layers, &[at(4, 8); 4], &wide), Ok(2.0));
        // A convolution gains exactly 8 / P on Stripes.
        let gain = speedup(&Stripes::default(), &layers[..2], &[at(5, 8); 2], &wide[..2]);
        assert_eq!(gain, Ok(1.6));
        assert_eq!(speedup(&BitOperations, &[], &[], &[]), Ok(1.0));
        assert!(speedup(&BitOperations, &layers, &wide[1..], &wide).is_err());
        assert!(uniform(0, 4).is_err());
    }
}
