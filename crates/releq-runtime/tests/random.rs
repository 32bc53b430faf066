//! Networks that nobody designed: the runtime gives what its plain twin gives, code for code on every instruction set.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{collections::BTreeMap, num::NonZeroUsize};

use proptest::prelude::*;
use releq_core::{
    Activation as Function, Axes, Bitwidth, BitwidthAssignment, Conv2d, Network, NetworkBuilder,
    Parameter, Pool2d, Weights, parameter_shapes,
};
use releq_format::{
    QuantizedNetwork,
    packed::{self, Packed},
};
use releq_kernels::Isa;
use releq_quant::{ActivationGrid, ActivationGrids, QuantizerKind};
use releq_runtime::{Activation, Mode, Model, Options, reference};

/// Pseudo-random numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % sides
    }

    /// From -1 to 1.
    fn value(&mut self) -> f32 {
        self.roll(2_001) as f32 / 1_000.0 - 1.0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len())]
    }
}

/// A network, and for each layer that the runtime names, the last one that is part of it.
struct Drawn {
    network: Network,
    ends: BTreeMap<String, String>,
}

/// What every layer is part of: perhaps a norm, perhaps a rectifier.
fn tail(
    dice: &mut Dice,
    builder: NetworkBuilder,
    at: usize,
    first: &str,
) -> (NetworkBuilder, String) {
    let (mut builder, mut end) = (builder, first.to_owned());
    if dice.roll(2) == 0 && !first.starts_with("sum") && !first.starts_with("alone") {
        end = format!("norm{at}");
        builder = builder.batch_norm(&end);
    }
    match dice.roll(3) {
        0 => {}
        1 => {
            end = format!("relu{at}");
            builder = builder.relu(&end);
        }
        _ => {
            end = format!("clip{at}");
            builder = builder.activation(&end, Function::RELU6);
        }
    }
    (builder, end)
}

fn draw(dice: &mut Dice) -> Drawn {
    let (mut channels, mut side) = (dice.of(&[1, 3, 16]), 8 + dice.roll(6));
    // Means of images that are not square are in single precision.
    let mut builder = Network::builder("drawn", [channels, side, side + dice.roll(2)]);
    let mut ends = BTreeMap::new();
    for at in 0..2 + dice.roll(4) {
        let name = format!("layer{at}");
        let end = match dice.roll(14) {
            0..=2 => {
                let (kernel, padding) = dice.of(&[(1, 0), (3, 1), (3, 0), (5, 2), (3, 2)]);
                let stride = if side > 6 { 1 + dice.roll(2) } else { 1 };
                channels = dice.of(&[1, 5, 16, 33, 70]);
                let conv = Conv2d::new(channels, kernel).stride(stride).padding(padding);
                builder = builder.conv(&name, conv);
                side = (side + 2 * padding - kernel) / stride + 1;
                let (after, end) = tail(dice, builder, at, &name);
                builder = after;
                end
            }
            3 => {
                // TensorFlow pads like the second of these.
                let padding = dice.of(&[[1, 1, 1, 1], [0, 0, 2, 2]]);
                let conv = Conv2d::new(channels, 3).padding(padding).groups(channels);
                builder = builder.conv(&name, conv);
                let (after, end) = tail(dice, builder, at, &name);
                builder = after;
                end
            }
            4 => {
                builder = builder.layer(
                    &name,
                    releq_core::Op::MaxPool(Pool2d::new(3, 1).padding(1)),
                    &[],
                );
                name.clone()
            }
            5 => {
                builder = builder.layer(&name, releq_core::Op::AvgPool(Pool2d::new(2, 1)), &[]);
                side -= 1;
                name.clone()
            }
            6 => {
                // A residual block.
                let (inner, sum) = (format!("inner{at}"), format!("sum{at}"));
                builder = builder
                    .conv(&name, Conv2d::new(channels, 1).without_bias())
                    .conv(&inner, Conv2d::new(channels, 3).padding(1))
                    .add(&sum, &[&name, &inner]);
                ends.insert(inner.clone(), inner);
                let (after, end) = tail(dice, builder, at, &sum);
                builder = after;
                ends.insert(sum, end);
                name.clone()
            }
            7 => {
                builder = builder.padded_shortcut(&name, channels + 5, 1);
                channels += 5;
                name.clone()
            }
            8 | 9 => {
                let (inner, joined) = (format!("inner{at}"), format!("joined{at}"));
                builder = builder
                    .conv(&name, Conv2d::new(channels, 1))
                    .conv(&inner, Conv2d::new(7, 3).padding(1))
                    .concat(&joined, &[&inner, &name]);
                channels += 7;
                ends.extend([&inner, &joined].map(|name| (name.clone(), name.clone())));
                name.clone()
            }
            10 => {
                // Squeeze and excitation.
                let [mean, inner, sigmoid, gated] =
                    ["mean", "inner", "sigmoid", "gated"].map(|word| format!("{word}{at}"));
                let mut factors = [name.as_str(), &sigmoid];
                factors.rotate_left(dice.roll(2));
                builder = builder
                    .conv(&name, Conv2d::new(channels, 1))
                    .global_avg_pool(&mean)
                    .linear(&inner, channels)
                    .activation(&sigmoid, Function::Sigmoid)
                    .mul(&gated, factors);
                ends.extend([mean, inner, sigmoid, gated].map(|name| (name.clone(), name)));
                name.clone()
            }
            11 => {
                let (slice, squared) = (format!("slice{at}"), format!("squared{at}"));
                let groups = (2..=channels).find(|&groups| channels.is_multiple_of(groups));
                let groups = groups.unwrap_or(1);
                builder = builder.layer(&name, releq_core::Op::ChannelShuffle { groups }, &[]);
                let start = dice.roll(channels);
                channels = 1 + dice.roll(channels - start);
                builder = builder
                    .layer(&slice, releq_core::Op::ChannelSlice { start, channels }, &[])
                    .mul(&squared, [&slice, &slice]);
                ends.extend([&slice, &squared].map(|name| (name.clone(), name.clone())));
                name.clone()
            }
            12 => {
                // A norm that is part of no layer before it.
                let alone = format!("alone{at}");
                builder = builder.activation(&name, Function::HardSwish).batch_norm(&alone);
                let (after, end) = tail(dice, builder, at, &alone);
                builder = after;
                ends.insert(alone, end);
                name.clone()
            }
            _ => {
                builder =
                    builder.activation(&name, dice.of(&[Function::Sigmoid, Function::HardSwish]));
                name.clone()
            }
        };
        ends.insert(name, end);
        if side < 4 {
            break;
        }
    }
    builder = match dice.roll(2) {
        0 => builder.flatten("flat"),
        _ => builder.global_avg_pool("mean"),
    };
    ends.insert("mean".to_owned(), "mean".to_owned());
    let network = builder
        .linear("hidden", 1 + dice.roll(40))
        .relu("last_relu")
        .linear("classes", 1 + dice.roll(20))
        .build()
        .unwrap();
    ends.insert("hidden".to_owned(), "last_relu".to_owned());
    Drawn { network, ends }
}

fn weights(dice: &mut Dice, network: &Network) -> Weights {
    let parameter = |(name, shape): (String, Vec<usize>)| {
        let count: usize = shape.iter().product();
        let fan_in = (count / shape[0]).max(1) as f32;
        let value = |dice: &mut Dice| match name.rsplit('.').next() {
            Some("running_var") => 0.5 + dice.value().abs(),
            // Norms that turn the sign as well.
            Some("weight") if shape.len() == 1 => 1.5 * dice.value(),
            Some("weight") => dice.value() * 2.0 / fan_in.sqrt(),
            _ => 0.3 * dice.value(),
        };
        let values = (0..count).map(|_| value(dice)).collect();
        (name.clone(), Parameter { shape: shape.clone(), values })
    };
    Weights(parameter_shapes(network).map(parameter).collect())
}

fn image(dice: &mut Dice, network: &Network) -> Vec<f32> {
    (0..network.input().iter().product()).map(|_| 2.0 * dice.value()).collect()
}

fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((0.0, 0.0), |(low, high), &value| (value.min(low), value.max(high)))
}

fn packed(dice: &mut Dice) -> Packed {
    let drawn = draw(dice);
    with_grids(dice, drawn)
}

/// A network with grids of the ranges that it has in single precision.
fn with_grids(dice: &mut Dice, Drawn { network, ends }: Drawn) -> Packed {
    let weights = weights(dice, &network);
    let bits = (0..network.quantizable_layers()).map(|_| match dice.roll(10) {
        9 => Bitwidth::FLOAT,
        bits => Bitwidth::new(1 + bits.min(7) as u8).unwrap(),
    });
    let bits = BitwidthAssignment::new(bits.collect()).unwrap();
    let kind = dice.of(&[QuantizerKind::WrpnScaled, QuantizerKind::WrpnScaledPerChannel]);
    let quantizer = kind.build();
    let model = QuantizedNetwork::new(network, weights, &bits, &*quantizer).unwrap();
    let mut packed = Packed::from(model);
    let image = image(dice, packed.model.network());
    let mut layers = BTreeMap::new();
    let mut seen = range(&image);
    let activation_bits = |dice: &mut Dice| match dice.roll(3) {
        0 => Bitwidth::new(1 + dice.roll(8) as u8).unwrap(),
        _ => Bitwidth::EIGHT,
    };
    let input = ActivationGrid::of_range(seen.0, seen.1, activation_bits(dice)).unwrap();
    let mut before = input;
    reference::run(&packed, &image, &mut |layer, activation| {
        let Activation::Values(values) = activation else { panic!("there are no grids yet") };
        seen = range(values);
        let Some(end) = ends.get(layer) else { return };
        let is_moved = packed.model.network().nodes().iter().any(|node| {
            let moves = ["max_pool", "padded_shortcut", "channel_shuffle", "channel_slice"];
            node.name == layer && moves.contains(&node.op.kind())
        });
        // Ranges of rectified values may begin below zero, and end before the largest.
        let low = if dice.roll(4) == 0 { seen.0 - 0.1 } else { seen.0 };
        let high = seen.1 * dice.of(&[1.0, 0.9]);
        let own = ActivationGrid::of_range(low, high, activation_bits(dice)).unwrap();
        before = if is_moved { before } else { own };
        layers.insert(end.clone(), before);
    })
    .unwrap();
    packed.activations = Some(ActivationGrids { input, layers });
    packed
}

/// What a run shows, layer by layer.
#[derive(Debug, PartialEq)]
enum Seen {
    Codes(Vec<u8>),
    Values(Vec<f32>),
}

fn seen(activation: Activation<'_>) -> Seen {
    match activation {
        Activation::Codes { codes, .. } => Seen::Codes(codes.to_vec()),
        Activation::Values(values) => Seen::Values(values.to_vec()),
        _ => unreachable!(),
    }
}

/// Whether no layer before is in single precision, where instruction sets round differently.
fn check(packed: &Packed, image: &[f32], options: &Options) -> Result<(), TestCaseError> {
    let mut expected = Vec::new();
    let outputs = reference::run(packed, image, &mut |layer, tensor| {
        expected.push((layer.to_owned(), seen(tensor)))
    })
    .unwrap();
    let mut model = Model::compile(packed, options).unwrap();
    let plans: Vec<_> = model.layers().collect();
    let mut got = vec![7.0; model.outputs()];
    // The second run finds what the first one left behind.
    for _ in 0..2 {
        let (mut at, mut exact) = (0, true);
        model
            .run_observed(image, &mut got, &mut |layer, tensor| {
                exact &= !plans[at].is_float;
                if exact {
                    assert_eq!(
                        (layer.to_owned(), seen(tensor)),
                        expected[at],
                        "{options:?} {:?}",
                        plans[at]
                    );
                }
                at += 1;
            })
            .unwrap();
        prop_assert_eq!(at, expected.len());
        if exact {
            prop_assert_eq!(&got, &outputs);
        }
    }
    Ok(())
}

/// The network of a seed that was once refused: a convolution of few bit planes, of codes whose zero is another than 0.
#[test]
fn few_bit_planes_with_another_zero_are_no_bit_planes() {
    let dice = &mut Dice(1_628_102_774_773_400_166_u64.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let packed = packed(dice);
    let image = image(dice, packed.model.network());
    for isa in Isa::available() {
        let options = Options { isa, ..Options::default() };
        check(&packed, &image, &options).unwrap();
    }
    let model = Model::compile(&packed, &Options::default()).unwrap();
    let reasons: String = model.layers().map(|layer| layer.reason.clone()).collect();
    assert!(reasons.contains("bit planes are padded with the code 0"), "{reasons}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn codes_are_those_of_the_twin(seed in 1_u64..u64::MAX / 2) {
        let dice = &mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let packed = packed(dice);
        let image = image(dice, packed.model.network());
        for isa in Isa::available() {
            for mode in [Mode::Best, Mode::Int8] {
                let threads = NonZeroUsize::new(1 + dice.roll(3)).unwrap();
                check(&packed, &image, &Options { isa, threads, mode })?;
            }
        }
    }

    #[test]
    fn single_precision_is_near_the_twin(seed in 1_u64..u64::MAX / 2) {
        let dice = &mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let packed = Packed { activations: None, ..packed(dice) };
        let image = image(dice, packed.model.network());
        let expected = reference::run(&packed, &image, &mut |_, _| {}).unwrap();
        let reach = expected.iter().fold(1.0_f32, |reach, value| reach.max(value.abs()));
        for isa in Isa::available() {
            let options = Options { isa, ..Options::default() };
            let mut model = Model::compile(&packed, &options).unwrap();
            prop_assert!(model.layers().all(|layer| layer.is_float || layer.bits.is_none()));
            let mut got = vec![0.0; model.outputs()];
            model.run(&image, &mut got).unwrap();
            for (a, b) in got.iter().zip(&expected) {
                prop_assert!((a - b).abs() <= 2e-4 * reach, "{isa}: {a} {b}, of {reach}");
            }
        }
    }
}

/// Codes that are read from a file give what those in memory give, on integers and in single precision.
/// Layers of networks at random are too small to be shared.
#[test]
fn large_layers_have_the_same_codes_with_any_number_of_threads() {
    let network = Network::builder("large", [3, 112, 112])
        .conv("first", Conv2d::new(32, 3).padding(1))
        .relu("first_relu")
        .conv("depthwise", Conv2d::new(32, 3).padding(1).groups(32))
        .relu("depthwise_relu")
        .max_pool("pool", 2, 2)
        .conv("second", Conv2d::new(32, 3).padding(1))
        .relu("second_relu")
        .add("sum", &["second_relu", "pool"])
        .relu("sum_relu")
        .avg_pool("means", 2, 2)
        .activation("alone", Function::Silu)
        // Few pixels, many outputs.
        .conv("third", Conv2d::new(160, 3).stride(4))
        .flatten("flat")
        .linear("classes", 100)
        .build()
        .unwrap();
    let ends = network.nodes().iter().map(|node| match node.name.as_str() {
        name @ ("first" | "depthwise" | "second" | "sum") => {
            (name.to_owned(), format!("{name}_relu"))
        }
        name => (name.to_owned(), name.to_owned()),
    });
    let drawn = Drawn { ends: ends.collect(), network };
    let dice = &mut Dice(1);
    let packed = with_grids(dice, drawn);
    let image = image(dice, packed.model.network());
    for isa in Isa::available() {
        for threads in [1, 2, 3, 8].map(|threads| NonZeroUsize::new(threads).unwrap()) {
            check(&packed, &image, &Options { isa, threads, mode: Mode::Best }).unwrap();
        }
    }
}

#[test]
fn codes_in_a_file_are_those_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drawn.safetensors");
    for seed in 1..40 {
        let dice = &mut Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed) | 1);
        let mut packed = packed(dice);
        if seed % 4 == 0 {
            packed.activations = None;
        }
        let image = image(dice, packed.model.network());
        packed::save(&path, &packed).unwrap();
        let options = Options::default();
        let outputs = [Model::compile(&packed, &options), Model::load(&path, &options)];
        let outputs = outputs.map(|model| {
            let mut model = model.unwrap();
            let mut outputs = vec![0.0; model.outputs()];
            model.run(&image, &mut outputs).unwrap();
            outputs
        });
        assert_eq!(outputs[0], outputs[1], "{seed}");
    }
}

/// Layers that have no integer kernel are in single precision, and those around them are not.
#[test]
fn layers_without_integer_kernels_fall_back() {
    let network = Network::builder("odd", [4, 9, 9])
        .conv("first", Conv2d::new(8, 3).padding(1))
        .conv("wide", Conv2d::new(8, [1, 3]).padding(Axes::new(0, 1)))
        .conv("groups", Conv2d::new(8, 3).groups(2))
        .conv("dilated", Conv2d::new(8, 3).dilation(2))
        .layer("ceil", releq_core::Op::MaxPool(Pool2d::new(2, 2).ceil_mode(true)), &[])
        .layer(
            "response",
            releq_core::Op::LocalResponseNorm { size: 3, alpha: 0.5, beta: 0.75, bias: 1.0 },
            &[],
        )
        .global_avg_pool("mean")
        .linear("classes", 3)
        .build()
        .unwrap();
    let dice = &mut Dice(77);
    let weights = weights(dice, &network);
    let bits = BitwidthAssignment::from_bits(vec![4; 5]).unwrap();
    let quantizer = QuantizerKind::WrpnScaled.build();
    let names: Vec<String> = network.nodes().iter().map(|node| node.name.clone()).collect();
    let model = QuantizedNetwork::new(network, weights, &bits, &*quantizer).unwrap();
    let grid = ActivationGrid::of_range(-3.0, 3.0, Bitwidth::EIGHT).unwrap();
    let layers = names[..7].iter().map(|name| (name.clone(), grid)).collect();
    let packed = Packed {
        activations: Some(ActivationGrids { input: grid, layers }),
        ..Packed::from(model)
    };
    let image = image(dice, packed.model.network());
    let expected = reference::run(&packed, &image, &mut |_, _| {}).unwrap();
    for isa in Isa::available() {
        let mut model = Model::compile(&packed, &Options { isa, ..Options::default() }).unwrap();
        let floats: Vec<String> =
            model.layers().filter(|plan| plan.is_float).map(|plan| plan.layer).collect();
        assert_eq!(floats, ["wide", "groups", "dilated", "ceil", "response"]);
        let mut got = vec![0.0; 3];
        model.run(&image, &mut got).unwrap();
        for (a, b) in got.iter().zip(&expected) {
            // A code may fall on the other side of a half.
            assert!((a - b).abs() < 0.05, "{isa}: {got:?} {expected:?}");
        }
    }
}
