//! Every cost model of this crate passes the suite of `releq-core`.

use std::sync::Arc;

use proptest::prelude::*;
use releq_core::{
    Bitwidth, CostModel, LayerBits, LayerProfile, NetworkCost, check_cost_model, sample_layers,
};

use crate::{
    ConstantPower, CostKind, FullyConnected, PeakScaling, Roofline, SerialOperand, Stripes,
    StripesConfig, WeightedSum,
    price::layers::{conv, depthwise, grouped, linear},
};

/// Every model of this crate.
fn all() -> Vec<Arc<dyn CostModel>> {
    let mut all: Vec<_> = CostKind::all().iter().map(|kind| kind.build().unwrap()).collect();
    for scaling in [PeakScaling::Fixed, PeakScaling::Product, PeakScaling::PowerOfTwo] {
        all.push(Arc::new(Roofline::new(1e12, 1e10, scaling).unwrap()));
    }
    for fully_connected in [FullyConnected::AsBuilt, FullyConnected::Proportional] {
        let config = StripesConfig {
            serial: SerialOperand::Activation,
            fully_connected,
            ..StripesConfig::default()
        };
        all.push(Arc::new(Stripes::new(config).unwrap()));
    }
    all.push(Arc::new(ConstantPower::relative(Stripes::default())));
    let sum = WeightedSum::new("sum");
    all.push(Arc::new(sum.with(0.5, Stripes::default()).unwrap()));
    all
}

#[test]
fn every_model_passes() {
    for model in all() {
        check_cost_model(&model, &sample_layers(), NetworkCost::SumOfLayers);
    }
}

/// Layers in float cost what 32 bits cost, or more where their arithmetic has a price of its own; or the model says
/// that it is about integers.
#[test]
fn float_layers_are_priced_or_refused_with_the_reason() {
    let float = LayerBits::weights_only(Bitwidth::FLOAT);
    let wide = LayerBits::weights_only(Bitwidth::new(32).unwrap());
    let mut refused = Vec::new();
    for model in all() {
        for layer in sample_layers() {
            match (model.layer_cost(&layer, float), model.layer_cost(&layer, wide)) {
                (Ok(float), Ok(wide)) => {
                    // A layer of integers stores a scale of 4 bytes, one of floats does not.
                    assert!(float.0 >= wide.0 - 4.0, "{}, {layer:?}", model.name());
                }
                (Err(error), _) => {
                    assert!(error.to_string().contains("integer bitwidths"), "{error}");
                    assert!(error.to_string().contains("got float"), "{error}");
                    refused.push(model.name().to_owned());
                }
                (Ok(_), Err(error)) => panic!("{}: float, but {error}", model.name()),
            }
        }
    }
    refused.dedup();
    let integer = |name: &String| {
        name.starts_with("stripes")
            || name == "dadiannao"
            || name == "bitserial-cpu"
            || name == "sum"
    };
    assert!(!refused.is_empty() && refused.iter().all(integer), "{refused:?}");
}

fn any_layer() -> impl Strategy<Value = LayerProfile> {
    prop_oneof![
        ((1usize..70, 1usize..300), 5usize..40, (1usize..=5, 1usize..4, 0usize..3)).prop_map(
            |((cin, cout), side, (k, stride, padding))| {
                conv([cin, cout], side, [k, stride, padding.min(k - 1)])
            }
        ),
        (1usize..70, 5usize..40, 1usize..3).prop_map(|(channels, side, stride)| depthwise(
            channels,
            side,
            [3, stride, 1]
        )),
        ((1usize..9, 1usize..20, 1usize..40), 5usize..20, 1usize..3).prop_map(
            |((groups, cin, cout), side, stride)| {
                grouped(groups, [groups * cin, groups * cout], side, [3, stride, 1])
            }
        ),
        (1usize..3000, 1usize..600).prop_map(|(inputs, outputs)| linear(inputs, outputs)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_model_passes_on_random_networks(
        layers in proptest::collection::vec(any_layer(), 1..5),
    ) {
        for model in all() {
            check_cost_model(&model, &layers, NetworkCost::SumOfLayers);
        }
    }
}
