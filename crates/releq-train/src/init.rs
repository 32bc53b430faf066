//! Weights to start from.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use releq_core::{Network, Op, Parameter, ParameterRole, UNKNOWN_RANGE, Weights, layer_parameters};

/// Rectified layers without a norm, one after the other, that can be trained from PyTorch's bounds.
///
/// Each of them shrinks the signal to `sqrt(1 / 6)`: two thirds of the variance are the bound's, half of the rest the
/// rectifier's. After seven it is under 1/400, and the ten layers of `svhn10` stay near chance for 60 epochs.
const MOST_SHRINKING: usize = 6;

/// Random weights for `network`, as PyTorch initializes them: uniform within `1 / sqrt(fan_in)` for weights and biases
/// alike; batch norm, and scale and shift, start as the identity.
///
/// Where more than six layers that a rectifier follows have no norm to keep up the signal, these are uniform within
/// `sqrt(6 / fan_in)` and their biases 0, so that every layer passes on as much variance as it gets.
///
/// The same seed gives the same bits.
///
/// # Source
/// `torch.nn.Conv2d` and `torch.nn.Linear`, `reset_parameters`: Kaiming uniform (He et al., 2015, arXiv 1502.01852)
/// with `a = sqrt(5)`, whose bound `sqrt(6 / ((1 + a^2) * fan_in))` is `1 / sqrt(fan_in)`; for deep plain networks,
/// with `a = 0`, the paper's own for rectifiers. The generator is ours, so the numbers differ from PyTorch's.
#[must_use]
pub fn initial_weights(network: &Network, seed: u64) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut state = Weights::default();
    let rectified: Vec<bool> =
        (0..network.nodes().len()).map(|index| is_rectified(network, index)).collect();
    let deep = rectified.iter().filter(|rectified| **rectified).count() > MOST_SHRINKING;
    for (index, node) in network.nodes().iter().enumerate() {
        let parameters = layer_parameters(network, index);
        let fan_in = |weight: &[usize]| weight[1..].iter().product::<usize>() as f32;
        let bound = match node.op {
            Op::BatchNorm { .. } | Op::ScaleShift | Op::FakeQuantize => None,
            _ => parameters.first().map(|(_, weight)| fan_in(weight).sqrt().recip()),
        };
        let keeps_variance = deep && rectified[index];
        for (role, shape) in parameters {
            let len = shape.iter().product();
            let values = match (bound, role) {
                (Some(_), ParameterRole::Bias) if keeps_variance => vec![0.0; len],
                (Some(bound), _) => {
                    let bound = if keeps_variance { bound * 6f32.sqrt() } else { bound };
                    (0..len).map(|_| rng.random_range(-bound..=bound)).collect()
                }
                (None, ParameterRole::Weight | ParameterRole::RunningVar) => vec![1.0; len],
                (None, ParameterRole::Bias | ParameterRole::RunningMean) => vec![0.0; len],
                (None, ParameterRole::Ranges) => UNKNOWN_RANGE.repeat(len / UNKNOWN_RANGE.len()),
            };
            state.0.insert(role.name(&node.name), Parameter { shape, values });
        }
    }
    state
}

/// Whether a rectifier is the next to change the values of a convolution or linear layer.
fn is_rectified(network: &Network, index: usize) -> bool {
    if !matches!(network.nodes()[index].op, Op::Conv2d(_) | Op::Linear { .. }) {
        return false;
    }
    let mut values = index;
    loop {
        let reader = (values + 1..network.nodes().len())
            .find(|&reader| network.sources(reader).contains(&Some(values)));
        let Some(reader) = reader else { return false };
        match network.nodes()[reader].op {
            Op::Relu => return true,
            Op::MaxPool(_) | Op::Dropout { .. } | Op::Flatten | Op::FakeQuantize => values = reader,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use releq_core::Conv2d;
    use releq_quant::QuantizerKind;

    use super::*;
    use crate::{NativeTrainer, Trainer};

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

    /// Standard deviation of the outputs for random images.
    fn spread(layers: usize) -> f32 {
        let mut builder = Network::builder("plain", [3, 8, 8]);
        for index in 0..layers {
            builder = builder
                .conv(format!("conv{index}"), Conv2d::new(16, 3).padding(1))
                .dropout(format!("dropout{index}"), 0.0)
                .relu(format!("relu{index}"));
        }
        let network = builder.flatten("flatten").linear("fc", 10).build().unwrap();
        let mut trainer = NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
        trainer.load(&initial_weights(&network, 1)).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let images: Vec<f32> = (0..8 * 3 * 64).map(|_| rng.random_range(-1.7..=1.7)).collect();
        let logits = trainer.logits(&images).unwrap();
        // Of what follows from the image: the biases are the same for all.
        let mean = |class: usize| (0..8).map(|image| logits[image * 10 + class]).sum::<f32>() / 8.0;
        let square = |(at, logit): (usize, &f32)| (logit - mean(at % 10)).powi(2);
        (logits.iter().enumerate().map(square).sum::<f32>() / 80.0).sqrt()
    }

    #[test]
    fn deep_plain_networks_pass_on_what_they_see() {
        assert!(spread(12) > 0.05, "{}", spread(12));
        // Six layers have the bounds of PyTorch, as shallower networks.
        assert!((1e-4..0.05).contains(&spread(6)), "{}", spread(6));
    }
}
