//! What every cost model promises, as a test that outside models can run.

use releq_core::{Bitwidth, Cost, CostError, CostModel, LayerBits, LayerKind, LayerProfile};

/// Checks a cost model on a convolution, a strided first layer, a depthwise and a fully connected layer,
/// for weights and activations of 1 to 8 bits.
///
/// A model has a name and a unit; its costs are finite and not negative; one more bit on either side is never
/// cheaper; a network costs no more than its layers one by one; and a missing bitwidth is an error. Layers and
/// bitwidths that the model does not cover are passed over, but at 8 by 8 bits it must cover the convolution.
///
/// # Panics
/// If the model breaks one of these promises.
pub fn check_cost_model<M: CostModel + ?Sized>(model: &M) {
    assert!(!model.name().is_empty() && !model.unit().is_empty(), "a name and a unit are needed");
    let layers = samples();
    let eight = LayerBits::weights_only(Bitwidth::EIGHT);
    assert!(model.layer_cost(&layers[0], eight).is_ok(), "{} covers nothing", model.name());
    for layer in &layers {
        for weight in 1..=8 {
            for activation in 1..=8 {
                check_bits(model, layer, [weight, activation]);
            }
        }
    }
    let covered: Vec<LayerProfile> =
        layers.into_iter().filter(|layer| model.layer_cost(layer, eight).is_ok()).collect();
    let bits = vec![eight; covered.len()];
    let network = model.network_cost(&covered, &bits).map(|cost| cost.0);
    let sum: Result<f64, CostError> =
        covered.iter().map(|layer| model.layer_cost(layer, eight).map(|cost| cost.0)).sum();
    match (network, sum) {
        (Ok(network), Ok(sum)) => assert!(
            network <= sum * (1.0 + 1e-9),
            "{}: the network costs {network}, its layers {sum}",
            model.name()
        ),
        (network, sum) => panic!("{}: network {network:?}, layers {sum:?}", model.name()),
    }
    assert!(model.network_cost(&covered, &bits[1..]).is_err(), "a missing bitwidth is an error");
}

fn check_bits<M: CostModel + ?Sized>(model: &M, layer: &LayerProfile, [w, a]: [u8; 2]) {
    let cost = |weight, activation| {
        let (weight, activation) = (Bitwidth::new(weight).ok()?, Bitwidth::new(activation).ok()?);
        model.layer_cost(layer, LayerBits { weight, activation }).ok()
    };
    let Some(here) = cost(w, a) else { return };
    let (model, name) = (model.name(), &layer.name);
    assert!(here.0.is_finite() && here.0 >= 0.0, "{model}, {name} at {w} x {a}: {here:?}");
    let check = |more: Option<Cost>| {
        if let Some(more) = more {
            assert!(more >= here, "{model}, {name}: {here:?} at {w} x {a}, more bits {more:?}");
        }
    };
    check(cost(w + 1, a));
    check(cost(w, a + 1));
}

fn samples() -> Vec<LayerProfile> {
    let conv = LayerProfile {
        name: "convolution".into(),
        kind: LayerKind::Conv2d,
        in_channels: 20,
        in_height: 12,
        in_width: 12,
        out_channels: 50,
        kernel: 5,
        stride: 1,
        padding: 0,
        groups: 1,
        out_height: 8,
        out_width: 8,
        bias: true,
    };
    let strided = LayerProfile {
        name: "strided first convolution".into(),
        in_channels: 3,
        in_height: 224,
        in_width: 224,
        out_channels: 64,
        kernel: 11,
        stride: 4,
        padding: 2,
        out_height: 55,
        out_width: 55,
        ..conv.clone()
    };
    let depthwise = LayerProfile {
        name: "depthwise convolution".into(),
        kind: LayerKind::DepthwiseConv2d,
        out_channels: 20,
        groups: 20,
        ..conv.clone()
    };
    let linear = LayerProfile {
        name: "fully connected".into(),
        kind: LayerKind::Linear,
        in_channels: 800,
        in_height: 1,
        in_width: 1,
        out_channels: 500,
        kernel: 1,
        out_height: 1,
        out_width: 1,
        ..conv.clone()
    };
    vec![conv, strided, depthwise, linear]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ConstantPower, CostModelKind, FullyConnected, PeakScaling, Roofline, SerialOperand,
        Stripes, StripesConfig, WeightedSum,
        price::layers::{at, conv, depthwise, linear},
    };

    /// Every model of this crate.
    fn all() -> Vec<Box<dyn CostModel>> {
        let mut all: Vec<_> = CostModelKind::ALL.map(CostModelKind::build).into();
        for scaling in [PeakScaling::Fixed, PeakScaling::Product, PeakScaling::PowerOfTwo] {
            all.push(Box::new(Roofline::new(1e12, 1e10, scaling).unwrap()));
        }
        for fully_connected in [FullyConnected::AsBuilt, FullyConnected::Proportional] {
            let config = StripesConfig {
                serial: SerialOperand::Activation,
                fully_connected,
                ..StripesConfig::default()
            };
            all.push(Box::new(Stripes::new(config).unwrap()));
        }
        all.push(Box::new(ConstantPower::relative(Stripes::default())));
        let sum = WeightedSum::new("sum");
        all.push(Box::new(sum.with(0.5, Stripes::default()).unwrap()));
        all
    }

    #[test]
    fn every_model_passes() {
        for model in all() {
            check_cost_model(&model);
        }
    }

    fn any_layer() -> impl Strategy<Value = LayerProfile> {
        prop_oneof![
            ((1usize..70, 1usize..300), 5usize..40, (1usize..=5, 1usize..4, 0usize..3)).prop_map(
                |((cin, cout), side, (k, stride, padding))| {
                    conv([cin, cout], side, [k, stride, padding])
                }
            ),
            (1usize..70, 5usize..40, 1usize..3).prop_map(|(channels, side, stride)| depthwise(
                channels,
                side,
                [3, stride, 1]
            )),
            (1usize..3000, 1usize..600).prop_map(|(inputs, outputs)| linear(inputs, outputs)),
        ]
    }

    proptest! {
        #[test]
        fn additive_over_layers_and_never_cheaper_with_more_bits(
            network in proptest::collection::vec((any_layer(), 1u8..8, 1u8..8), 1..5),
        ) {
            let (layers, bits): (Vec<_>, Vec<_>) = network
                .into_iter()
                .map(|(layer, weight, activation)| (layer, at(weight, activation)))
                .unzip();
            for model in all() {
                let sum: f64 = layers
                    .iter()
                    .zip(&bits)
                    .map(|(layer, &bits)| model.layer_cost(layer, bits).unwrap().0)
                    .sum();
                let network = model.network_cost(&layers, &bits).unwrap().0;
                prop_assert!((network - sum).abs() <= 1e-9 * sum, "{}", model.name());
                for (layer, bits) in layers.iter().zip(&bits) {
                    check_bits(&model, layer, [bits.weight.get(), bits.activation.get()]);
                }
            }
        }
    }
}
