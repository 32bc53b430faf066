//! Both trainers beside the reference, with windows of any geometry.

use proptest::{array::uniform2, array::uniform4, bool, prelude::*};
use releq_core::{Axes, Conv2d, Network, Op, Pool2d};
use releq_quant::QuantizerKind;

use crate::{
    Batch, NativeTrainer, Sgd, Trainer,
    oracle::{batch, close_values, oracle, state},
    reference,
};

/// Sums of up to some hundred products in single precision.
const TOLERANCE: f32 = 2e-5;
const PLAIN: Sgd = Sgd { learning_rate: 1.0, momentum: 0.0, weight_decay: 0.0 };

fn axes(sizes: std::ops::Range<usize>) -> impl Strategy<Value = Axes> {
    uniform2(sizes).prop_map(Axes::from)
}

/// Convolutions of four channels.
fn convolutions() -> impl Strategy<Value = Op> {
    let groups = prop_oneof![Just((3, 1)), Just((6, 2)), Just((4, 4)), Just((8, 4))];
    (groups, axes(1..5), axes(1..4), axes(1..4), uniform4(0usize..7)).prop_map(
        |((outputs, groups), kernel, stride, dilation, padding)| {
            let conv = Conv2d::new(outputs, kernel).stride(stride).dilation(dilation);
            Op::Conv2d(conv.padding(padding).groups(groups))
        },
    )
}

fn pools() -> impl Strategy<Value = Op> {
    (axes(1..5), axes(1..5), uniform4(0usize..4), bool::ANY, bool::ANY, bool::ANY).prop_map(
        |(kernel, stride, padding, ceil_mode, counts, largest)| {
            let pool = Pool2d::new(kernel, stride).padding(padding).ceil_mode(ceil_mode);
            if largest { Op::MaxPool(pool) } else { Op::AvgPool(pool.count_include_pad(counts)) }
        },
    )
}

/// The layer between two others: gradients of its own weights, and through the one before of its input.
fn around(op: Op, sides: [usize; 2]) -> Option<Network> {
    let [height, width] = sides;
    let network = Network::builder("around", [2, height, width]).conv2d("before", 4, 1);
    let network = network.layer("layer", op, &[]).flatten("flatten").linear("after", 2);
    network.build().ok()
}

fn check(network: &Network) {
    let start = state(network, 5);
    let values = reference::values(&start);
    let (images, labels) = batch(network, 2, 1);
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let logits = narrow(&reference::forward(network, &values, &images, None).0);
    let gradients = reference::gradients(network, &values, &images, &labels, 0);
    let native = Box::new(NativeTrainer::new(network, QuantizerKind::Wrpn.build()).unwrap());
    let burn = oracle(network, QuantizerKind::Wrpn);
    for (kind, mut trainer) in [("native", native as Box<dyn Trainer>), ("burn", burn)] {
        let context = |what: &str| format!("{kind}, {:?}: {what}", network.nodes()[1].op);
        trainer.load(&start).unwrap();
        close_values(&trainer.logits(&images).unwrap(), &logits, TOLERANCE, &context("logits"));
        trainer.train_step(&Batch::labelled(&images, &labels), PLAIN).unwrap();
        let after = trainer.weights();
        for (name, expected) in &gradients {
            let pairs = start.0[name].values.iter().zip(&after.0[name].values);
            let got: Vec<f32> = pairs.map(|(before, after)| before - after).collect();
            close_values(&got, &narrow(expected), TOLERANCE, &context(name));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn convolutions_are_those_of_the_reference(op in convolutions(), sides in uniform2(1usize..9)) {
        let network = around(op, sides);
        prop_assume!(network.is_some());
        check(&network.unwrap());
    }

    #[test]
    fn pools_are_those_of_the_reference(op in pools(), sides in uniform2(1usize..9)) {
        let network = around(op, sides);
        prop_assume!(network.is_some());
        check(&network.unwrap());
    }
}
