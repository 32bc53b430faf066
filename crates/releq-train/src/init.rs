//! Weights to start from.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use releq_core::{Network, Op, Parameter, ParameterRole, Weights, layer_parameters};

/// Random weights for `network`, as PyTorch initializes them: uniform within
/// `1 / sqrt(fan_in)` for weights and biases alike; batch norm, and scale and shift, start as the
/// identity.
///
/// The same seed gives the same bits.
///
/// # Source
/// `torch.nn.Conv2d` and `torch.nn.Linear`, `reset_parameters`: Kaiming uniform (He et al.,
/// 2015) with `a = sqrt(5)`, whose bound `sqrt(6 / ((1 + a^2) * fan_in))` is
/// `1 / sqrt(fan_in)`. The generator is ours, so the numbers differ from PyTorch's.
#[must_use]
pub fn initial_weights(network: &Network, seed: u64) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut state = Weights::default();
    for (index, node) in network.nodes().iter().enumerate() {
        let parameters = layer_parameters(network, index);
        let fan_in = |weight: &[usize]| weight[1..].iter().product::<usize>() as f32;
        let bound = match node.op {
            Op::BatchNorm { .. } | Op::ScaleShift => None,
            _ => parameters.first().map(|(_, weight)| fan_in(weight).sqrt().recip()),
        };
        for (role, shape) in parameters {
            let len = shape.iter().product();
            let values = match (bound, role) {
                (Some(bound), _) => (0..len).map(|_| rng.random_range(-bound..=bound)).collect(),
                (None, ParameterRole::Weight | ParameterRole::RunningVar) => vec![1.0; len],
                (None, ParameterRole::Bias | ParameterRole::RunningMean) => vec![0.0; len],
            };
            state.0.insert(role.name(&node.name), Parameter { shape, values });
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use releq_core::Conv2d;

    use super::*;

    #[test]
    fn values_fill_their_bounds_and_batch_norm_is_the_identity() {
        let network = Network::builder("init", [4, 8, 8])
            .conv("conv", Conv2d::new(64, 3).groups(2))
            .batch_norm("bn")
            .flatten("flatten")
            .linear("fc", 10)
            .build()
            .unwrap();
        let state = initial_weights(&network, 3);
        // By hand: fan_in is 2 * 3 * 3 = 18 and 64 * 6 * 6 = 2304.
        for (layer, bound) in [("conv", 1.0 / 18f32.sqrt()), ("fc", 1.0 / 48.0)] {
            let weight = &state.0[&format!("{layer}.weight")].values;
            let largest = weight.iter().fold(0f32, |m, w| m.max(w.abs()));
            assert!(largest <= bound && largest > 0.98 * bound, "{layer}: {largest} of {bound}");
            let mean = weight.iter().sum::<f32>() / weight.len() as f32;
            assert!(mean.abs() < 0.1 * bound, "{layer}: {mean}");
            assert!(state.0[&format!("{layer}.bias")].values.iter().all(|b| b.abs() <= bound));
        }
        for (role, value) in
            [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
        {
            assert_eq!(state.0[&format!("bn.{role}")].values, vec![value; 64]);
        }
        assert_eq!(state, initial_weights(&network, 3));
        assert_ne!(state, initial_weights(&network, 4));
    }
}
