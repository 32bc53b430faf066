//! Every cost model of this crate passes the suite of `releq-core`.

use std::sync::Arc;

use proptest::prelude::*;
use releq_core::{CostModel, LayerProfile, NetworkCost, check_cost_model, sample_layers};

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
