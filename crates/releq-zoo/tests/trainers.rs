//! Every layer of every network under both trainers.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use releq_core::{Conv2d, Network, Op, Shape, Weights};
use releq_data::Label;
use releq_quant::QuantizerKind;
use releq_train::{Batch, BurnTrainer, NativeTrainer, Sgd, Trainer, initial_weights};

fn native(network: &Network, quantizer: QuantizerKind) -> Box<dyn Trainer> {
    Box::new(NativeTrainer::new(network, quantizer.build()).unwrap())
}

fn oracle(network: &Network, quantizer: QuantizerKind) -> Box<dyn Trainer> {
    Box::new(BurnTrainer::flex(network, quantizer.build()).unwrap())
}

/// Images of noise with labels.
fn batch(network: &Network, len: usize, seed: u64) -> (Vec<f32>, Vec<Label>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pixels = len * network.input().iter().product::<usize>();
    let images = (0..pixels).map(|_| rng.random_range(-1.5..1.5)).collect();
    let classes = Label::try_from(network.outputs()).unwrap();
    let labels = (0..len).map(|_| rng.random_range(0..classes)).collect();
    (images, labels)
}

#[test]
fn every_network_of_the_zoo_has_a_native_trainer() {
    for name in releq_zoo::NAMES {
        let network = releq_zoo::by_name(name).unwrap();
        NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
    }
}

/// The layer between two others: gradients of its own weights, and through the one before it of its input.
fn around(op: Op, from: Shape) -> Network {
    let (input, first) = match from {
        Shape::Image { channels, height, width } => {
            let scale = Conv2d::new(channels, 1).groups(channels);
            ([channels, height, width], Op::Conv2d(scale))
        }
        Shape::Vector { features } => ([features, 1, 1], Op::Flatten),
    };
    let network = Network::builder("around", input)
        .layer("before", first, &[])
        .layer("layer", op, &[])
        .relu("relu");
    match from {
        Shape::Image { .. } => network.global_avg_pool("pool"),
        Shape::Vector { .. } => network,
    }
    .linear("after", 3)
    .build()
    .unwrap()
}

#[test]
fn every_layer_shape_of_the_zoo_has_burns_gradients() {
    const PLAIN: Sgd = Sgd { learning_rate: 1.0, momentum: 0.0, weight_decay: 0.0 };
    let mut seen = BTreeSet::new();
    for network in releq_zoo::NAMES.into_iter().map(|name| releq_zoo::by_name(name).unwrap()) {
        for (index, node) in network.nodes().iter().enumerate() {
            let weighted = matches!(node.op, Op::Conv2d(_) | Op::Linear { .. });
            let pools = matches!(node.op, Op::MaxPool(_) | Op::AvgPool(_));
            let from = network.input_shape(index);
            if !(weighted || pools) || !seen.insert(format!("{:?} of {from:?}", node.op)) {
                continue;
            }
            let context = format!("{}, {}: {:?} of {from:?}", network.name(), node.name, node.op);
            let network = around(node.op, from);
            let start = initial_weights(&network, 3);
            let (images, labels) = batch(&network, 2, 1);
            let [got, expected] = [native, oracle].map(|make| {
                let mut trainer = make(&network, QuantizerKind::Wrpn);
                trainer.load(&start).unwrap();
                trainer.train_step(&Batch::labelled(&images, &labels), PLAIN).unwrap();
                trainer.weights()
            });
            for (name, start) in &start.0 {
                let gradient = |state: &Weights| -> Vec<f32> {
                    let after = &state.0[name].values;
                    start.values.iter().zip(after).map(|(before, after)| before - after).collect()
                };
                let (got, expected) = (gradient(&got), gradient(&expected));
                let largest = expected.iter().fold(0f32, |largest, g| largest.max(g.abs()));
                // Sums of up to 25,000 terms that cancel, in other orders; and the difference of two
                // weights is as coarse as the weights are.
                let coarse = start.values.iter().fold(0f32, |largest, w| largest.max(w.abs()));
                let tolerance = 1e-3 * largest + 4.0 * f32::EPSILON * coarse;
                assert!(largest > 0.0 && largest.is_finite(), "{context}, {name}: {largest}");
                for (got, expected) in got.iter().zip(&expected) {
                    let near = (got - expected).abs() <= tolerance;
                    assert!(near, "{context}, {name}: {got}, expected {expected} of {largest}");
                }
            }
        }
    }
    assert!(seen.len() > 80, "{} shapes", seen.len());
}
