//! Every operation beyond those of the zoo against PyTorch's own logits and gradients.
//!
//! The rows in `golden/operations.csv` come from `golden/make_operations.py`, which builds the same networks.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{collections::BTreeMap, path::Path};

use releq::{
    core::{Activation, Axes, Conv2d, Network, NetworkBuilder, Op, Pool2d},
    quant::QuantizerKind,
    train::{Batch, BurnTrainer, NativeTrainer, Sgd, Trainer},
};
use releq_test_support::formula::{by_formula, images};

/// Both sides compute in single precision; gradients are differences of weights of up to 1, of 24 bits.
const TOLERANCE: f32 = 2e-6;

/// The operation of this name, behind the layer `before`.
fn operation(name: &str, builder: NetworkBuilder) -> NetworkBuilder {
    let sides = [1, 0, 0, 2];
    let op = match name {
        "conv_wide" => Op::Conv2d(Conv2d::new(5, [1, 5]).padding(Axes::new(0, 2))),
        "conv_strides" => Op::Conv2d(Conv2d::new(5, [3, 2]).stride([2, 1])),
        "conv_same" => Op::Conv2d(Conv2d::new(5, 3).stride(2).padding([0, 0, 1, 1])),
        "conv_dilated" => Op::Conv2d(Conv2d::new(5, 3).padding(Axes::new(2, 1)).dilation([2, 1])),
        "conv_dilated_strides" => {
            Op::Conv2d(Conv2d::new(4, 2).stride([3, 2]).dilation([2, 3]).groups(2))
        }
        "depthwise_same" => Op::Conv2d(Conv2d::new(6, 3).stride(2).padding([0, 0, 1, 1]).groups(6)),
        "depthwise_dilated" => {
            Op::Conv2d(Conv2d::new(6, [2, 3]).padding(Axes::new(1, 2)).dilation(2).groups(6))
        }
        "max_pool_ceil" => Op::MaxPool(Pool2d::new(3, 2).ceil_mode(true)),
        "max_pool_ceil_padded" => {
            Op::MaxPool(Pool2d::new([2, 3], [3, 2]).padding(1).ceil_mode(true))
        }
        "max_pool_sides" => Op::MaxPool(Pool2d::new(3, 2).padding(sides)),
        "avg_pool_ceil" => Op::AvgPool(Pool2d::new(2, 3).ceil_mode(true)),
        "avg_pool_ceil_counted" => {
            Op::AvgPool(Pool2d::new(3, 2).padding(1).ceil_mode(true).count_include_pad(true))
        }
        "avg_pool_ceil_counted_wide" => {
            let pool = Pool2d::new([3, 4], [4, 3]).padding(Axes::new(1, 2));
            Op::AvgPool(pool.ceil_mode(true).count_include_pad(true))
        }
        "avg_pool_sides" => Op::AvgPool(Pool2d::new(3, 2).padding(sides)),
        "avg_pool_sides_counted" => {
            Op::AvgPool(Pool2d::new(3, 2).padding(sides).count_include_pad(true))
        }
        "relu6" => Op::Activation(Activation::RELU6),
        "clip_at_zero" => Op::Activation(Activation::Clip { min: 0.0, max: 0.75 }),
        "clip" => Op::Activation(Activation::Clip { min: -0.5, max: 0.25 }),
        "sigmoid" => Op::Activation(Activation::Sigmoid),
        "hard_sigmoid" => Op::Activation(Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }),
        "hard_sigmoid_onnx" => Op::Activation(Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }),
        "silu" => Op::Activation(Activation::Silu),
        "hard_swish" => Op::Activation(Activation::HardSwish),
        "leaky_relu" => Op::Activation(Activation::LeakyRelu { slope: 0.1 }),
        "tanh" => Op::Activation(Activation::Tanh),
        "gelu" => Op::Activation(Activation::Gelu),
        "mul_channels" => {
            return builder.global_avg_pool("squeeze").mul("op", ["before", "squeeze"]);
        }
        "mul_images" => return builder.relu("relu").mul("op", ["before", "relu"]),
        "concat" => return builder.relu("relu").concat("op", &["before", "relu"]),
        "scale_shift" => Op::ScaleShift,
        "channel_slice" => Op::ChannelSlice { start: 1, channels: 4 },
        "channel_shuffle" => Op::ChannelShuffle { groups: 3 },
        "local_response_norm" => {
            Op::LocalResponseNorm { size: 3, alpha: 0.5, beta: 0.75, bias: 1.5 }
        }
        "local_response_norm_power" => {
            Op::LocalResponseNorm { size: 5, alpha: 0.5, beta: 0.6, bias: 1.0 }
        }
        other => panic!("no operation `{other}`"),
    };
    builder.layer("op", op, &[])
}

/// For every operation, the first values of its logits and of gradients by parameters.
fn rows() -> BTreeMap<String, BTreeMap<String, Vec<f32>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/operations.csv");
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_path(path).unwrap();
    let mut rows: BTreeMap<String, BTreeMap<String, Vec<f32>>> = BTreeMap::new();
    for row in reader.deserialize() {
        let (operation, values, _, value): (String, String, usize, f32) = row.unwrap();
        rows.entry(operation).or_default().entry(values).or_default().push(value);
    }
    rows
}

#[test]
fn every_operation_gives_the_logits_and_gradients_of_pytorch() {
    const PLAIN: Sgd = Sgd { learning_rate: 1.0, momentum: 0.0, weight_decay: 0.0 };
    let rows = rows();
    assert!(rows.len() > 30);
    for (name, expected) in rows {
        let start = Network::builder(&name, [3, 9, 8]).conv("before", Conv2d::new(6, 3).padding(1));
        let network =
            operation(&name, start).flatten("flatten").linear("after", 4).build().unwrap();
        let state = by_formula(&network);
        let quantizer = || QuantizerKind::Wrpn.build();
        let trainers: [(&str, Box<dyn Trainer>); 2] = [
            ("burn", Box::new(BurnTrainer::flex(&network, quantizer()).unwrap())),
            ("native", Box::new(NativeTrainer::new(&network, quantizer()).unwrap())),
        ];
        for (kind, mut trainer) in trainers {
            trainer.load(&state).unwrap();
            let images = images(&network);
            let logits = trainer.logits(&images).unwrap();
            trainer.train_step(&Batch::labelled(&images, &[1, 3]), PLAIN).unwrap();
            let after = trainer.weights();
            for (values, expected) in &expected {
                let got: Vec<f32> = match state.0.get(values) {
                    None => logits.clone(),
                    Some(before) => {
                        let pairs = before.values.iter().zip(&after.0[values].values);
                        pairs.map(|(before, after)| before - after).collect()
                    }
                };
                for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
                    let near = (got - expected).abs() <= TOLERANCE * (1.0 + expected.abs());
                    assert!(near, "{name} on {kind}, {values} {index}: {got}, PyTorch {expected}");
                }
                assert!(got.len() >= expected.len() && !expected.is_empty(), "{name}, {values}");
            }
        }
    }
}
