use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use releq_core::{
    Activation, Axes, Bitwidth, BitwidthAssignment, Conv2d, Network, Op, Parameter, Pool2d,
    Weights, parameter_shapes, with_causes,
};
use releq_quant::{
    ActivationGrid, ActivationGrids, PowersOfTwo, Quantized, Quantizer, QuantizerKind,
};

use super::{
    super::{Batch, End, Layout, Model, OnnxError, read},
    *,
};

/// Every operation that a network may have, those without a node of their own under the names that they are read with.
fn everything() -> Network {
    let conv = |channels, kernel: usize| Conv2d::new(channels, kernel).padding(kernel / 2);
    Network::builder("everything", [3, 13, 9])
        .conv("stem", Conv2d::new(8, [3, 5]).stride([2, 1]).padding([0, 2, 1, 2]).without_bias())
        .batch_norm("stem_bn")
        .relu("stem_relu")
        .layer("channel_shuffle", Op::ChannelShuffle { groups: 4 }, &[])
        .conv("depthwise", conv(8, 3).groups(8))
        .activation("relu6", Activation::RELU6)
        .conv("dilated", Conv2d::new(8, 3).dilation([1, 2]).padding([1, 2, 1, 2]).groups(2))
        .activation("silu", Activation::Silu)
        .global_avg_pool("squeeze")
        .linear("down", 4)
        .activation("hard_swish", Activation::HardSwish)
        .linear("up", 8)
        .activation("gate", Activation::HardSigmoid { alpha: 0.2, beta: 0.5 })
        .layer("excite", Op::Mul, &["silu", "gate"])
        .activation("leaky", Activation::LeakyRelu { slope: 0.1 })
        .layer("channel_slice", Op::ChannelSlice { start: 2, channels: 5 }, &[])
        .layer("join", Op::Concat, &["channel_slice", "relu6"])
        .scale_shift("shift")
        .activation("gelu", Activation::Gelu)
        .layer("norm", Op::LocalResponseNorm { size: 3, alpha: 0.1, beta: 0.5, bias: 1.0 }, &[])
        .layer("max", Op::MaxPool(Pool2d::new(2, 2).ceil_mode(true)), &[])
        .layer("mean", Op::AvgPool(Pool2d::new(3, 1).padding(1).count_include_pad(true)), &[])
        .conv("main", conv(20, 3).stride(2))
        .layer("padded_shortcut", Op::PaddedShortcut { out_channels: 20, stride: 2 }, &["mean"])
        .layer("sum", Op::Add, &["main", "padded_shortcut", "main"])
        .activation("tanh", Activation::Tanh)
        .dropout("drop", 0.25)
        .flatten("flatten")
        .linear("fc", 6)
        .activation("sigmoid", Activation::Sigmoid)
        .linear("head", 5)
        .build()
        .unwrap()
}

/// Different numbers in every place, all of variances positive.
fn weights(network: &Network) -> Weights {
    let mut state = 1_u32;
    let mut value = |name: &str| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
        if name.ends_with("running_var") { value.abs() + 0.1 } else { value }
    };
    let parameter = |(name, shape): (String, Vec<usize>)| {
        let values = (0..shape.iter().product()).map(|_| value(&name)).collect();
        (name, Parameter { shape, values })
    };
    Weights(parameter_shapes(network).map(parameter).collect())
}

fn quantized(network: &Network, bits: &[u8], quantizer: &dyn Quantizer) -> QuantizedNetwork {
    let layers = network.quantizable_layers();
    let bits = bits.iter().copied().cycle().take(layers);
    let bits = bits.map(|bits| Bitwidth::new(bits).unwrap().float_at_32()).collect();
    let bits = BitwidthAssignment::new(bits).unwrap();
    QuantizedNetwork::new(network.clone(), weights(network), &bits, quantizer).unwrap()
}

fn export_as(model: &QuantizedNetwork, form: Form) -> Result<Exported, ExportError> {
    let config = ExportConfig { form, ..ExportConfig::default() };
    export(model, &Frame::of(model.network()), &config)
}

fn reread(bytes: Vec<u8>) -> Result<Model, OnnxError> {
    read(bytes, "everything", &mut |_| unreachable!("everything is in the file"))
}

/// Dequantized weights by tensor, from the messages alone, bit by bit.
fn naively_dequantized(bytes: &[u8]) -> BTreeMap<String, Vec<f32>> {
    let graph = proto::Model::decode(bytes).unwrap().graph.unwrap();
    let tensor = |name: &str| graph.initializer.iter().find(|t| t.name == name).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let bytes = tensor(name).raw_data.chunks(4);
        bytes.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    let integers = |name: &str| -> Vec<i64> {
        let tensor = tensor(name);
        let bits = match tensor.data_type {
            3 => 8,
            5 => 16,
            22 => 4,
            26 => 2,
            other => panic!("{other} is no type of an export"),
        };
        let bit = |place: usize| i64::from(tensor.raw_data[place / 8] >> (place % 8) & 1);
        let count = tensor.dims.iter().product::<i64>() as usize;
        let value = |index: usize| {
            let unsigned: i64 = (0..bits).map(|k| bit(index * bits + k) << k).sum();
            if unsigned >> (bits - 1) == 1 { unsigned - (1 << bits) } else { unsigned }
        };
        (0..count).map(value).collect()
    };
    let nodes = graph.node.iter().filter(|node| node.op_type == "DequantizeLinear");
    nodes
        .map(|node| {
            let (levels, scales) = (integers(&node.input[0]), floats(&node.input[1]));
            assert!(integers(&node.input[2]).iter().all(|&zero| zero == 0));
            let row = levels.len() / scales.len();
            let level = |(index, &level): (usize, &i64)| scales[index / row] * level as f32;
            (node.output[0].clone(), levels.iter().enumerate().map(level).collect())
        })
        .collect()
}

fn kinds() -> impl Iterator<Item = QuantizerKind> {
    QuantizerKind::ALL.iter().copied().filter(|&kind| kind != QuantizerKind::PowersOfTwo)
}

#[test]
fn an_export_is_read_as_the_same_network_with_the_same_codes() {
    let network = everything();
    for kind in kinds() {
        for bits in [&[1][..], &[2], &[3], &[4], &[8], &[32], &[1, 2, 3, 4, 5, 6, 7, 8, 32]] {
            for &form in Form::ALL {
                let model = quantized(&network, bits, &*kind.build());
                let exported = match export_as(&model, form) {
                    Ok(exported) => exported,
                    Err(error) => {
                        // DoReFa has levels up to 255 at 8 bits.
                        let expected = form == Form::Qcdq && kind == QuantizerKind::Dorefa;
                        assert!(expected && bits.contains(&8), "{kind} {bits:?} {form}: {error}");
                        continue;
                    }
                };
                let opset = exported.opset;
                let read = reread(exported.bytes).unwrap();
                let context = format!("{kind} {bits:?} {form}");
                assert_eq!(read.network, network, "{context}");
                assert_eq!(read.weights, model.dequantized(), "{context}");
                assert_eq!(read.quantized().is_some(), model.is_quantized(), "{context}");
                if let Some(read) = read.quantized() {
                    assert_eq!(read, model, "{context}");
                }
                let batch = match form {
                    Form::Qonnx => Batch::Fixed(1),
                    _ => Batch::Any(Some("batch".to_owned())),
                };
                assert_eq!((read.frame.batch, read.frame.opset), (batch, opset), "{context}");
                assert_eq!(
                    (read.frame.input.as_str(), read.frame.output.as_str()),
                    ("input", "logits")
                );
            }
        }
    }
}

#[test]
fn the_lowest_operators_and_the_smallest_types_are_asked_for() {
    let network = Network::builder("plain", [1, 6, 6])
        .conv2d("conv", 2, 3)
        .flatten("flatten")
        .linear("fc", 3)
        .build()
        .unwrap();
    let of = |bits: &[u8], most_opset| {
        let model = quantized(&network, bits, &*QuantizerKind::WrpnScaled.build());
        let config = ExportConfig { form: Form::Dq, most_opset };
        export(&model, &Frame::of(&network), &config)
    };
    let stored = |bits: &[u8], most_opset| {
        let exported = of(bits, most_opset).unwrap();
        let stored: Vec<String> =
            exported.layers.iter().map(|(.., stored)| stored.to_string()).collect();
        (exported.opset, stored.join(" "))
    };
    assert_eq!(stored(&[8, 5], 25), (13, "int8 int8".to_owned()));
    assert_eq!(stored(&[4, 3], 25), (21, "int4 int4".to_owned()));
    assert_eq!(stored(&[2, 1], 25), (25, "int2 int2".to_owned()));
    assert_eq!(stored(&[2, 32], 24), (21, "int4 float32".to_owned()));
    assert_eq!(stored(&[2, 4], 20), (13, "int8 int8".to_owned()));
    assert_eq!(stored(&[32], 13), (13, "float32 float32".to_owned()));
    assert!(of(&[8], 12).unwrap_err().to_string().contains("version 13"));
    let dorefa = quantized(&network, &[8], &*QuantizerKind::Dorefa.build());
    let old = ExportConfig { form: Form::Dq, most_opset: 20 };
    let error = export(&dorefa, &Frame::of(&network), &old).unwrap_err().to_string();
    assert_eq!(
        error,
        "layer `conv` needs version 21 of ONNX's operators, and 20 is the most that is allowed"
    );
    let error = export_as(&dorefa, Form::Qcdq).unwrap_err().to_string();
    assert!(
        error.starts_with("layer `conv` cannot be written as qcdq: its levels from -255"),
        "{error}"
    );
}

#[test]
fn names_and_forms_are_those_of_the_frame() {
    let network = Network::builder("framed", [3, 4, 4])
        .flatten("flatten")
        .linear("fc1", 4)
        .relu("relu")
        .linear("fc2", 2)
        .build()
        .unwrap()
        .with_softmax(true);
    let model = quantized(&network, &[4], &*QuantizerKind::WrpnScaledPerChannel.build());
    let origins = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|&(name, origin)| (name.to_owned(), origin.to_owned())).collect()
    };
    for (layout, batch, end, output_rank) in [
        (Layout::ChannelsFirst, Batch::Fixed(5), End::Softmax, 2),
        (Layout::ChannelsLast, Batch::Any(Some("n".to_owned())), End::Softmax, 3),
        (Layout::Features, Batch::Any(None), End::Softmax, 4),
    ] {
        let frame = Frame {
            producer: "somebody".to_owned(),
            opset: 7,
            input: "pixels:0".to_owned(),
            layout,
            batch: batch.clone(),
            output: "fc1.weight".to_owned(),
            output_rank,
            end,
            // One initialiser was read as two parameters, which retraining made different.
            origins: origins(&[
                ("fc1.bias", "shared"),
                ("fc2.bias", "shared"),
                ("fc2.weight", "w2"),
            ]),
        };
        let exported = export(&model, &frame, &ExportConfig::default()).unwrap();
        let read = reread(exported.bytes).unwrap();
        assert_eq!(read.frame.input, "pixels:0");
        assert_eq!(read.frame.output, "fc1.weight");
        assert_eq!(read.frame.layout, layout);
        assert_eq!(read.frame.output_rank, output_rank);
        assert_eq!(read.frame.end, end);
        assert!(read.network.has_softmax());
        match batch {
            Batch::Any(None) => assert_eq!(read.frame.batch, Batch::Any(Some("batch".to_owned()))),
            batch => assert_eq!(read.frame.batch, batch),
        }
        let values: Vec<&[f32]> = read.weights.0.values().map(|p| p.values.as_slice()).collect();
        let dequantized = model.dequantized();
        for parameter in dequantized.0.values() {
            assert!(values.contains(&parameter.values.as_slice()));
        }
        let origins: HashSet<&str> = read.frame.origins.values().map(String::as_str).collect();
        assert!(origins.contains("shared") && origins.contains("w2"), "{origins:?}");
        assert!(read.frame.producer.starts_with("releq "));
    }
}

#[test]
fn what_cannot_be_exported_is_refused_with_its_name() {
    let network = everything();
    let bits =
        |bits, layers| BitwidthAssignment::uniform(Bitwidth::new(bits).unwrap(), layers).unwrap();
    let new = |bits: &BitwidthAssignment, quantizer: &dyn Quantizer| {
        let made = QuantizedNetwork::new(network.clone(), weights(&network), bits, quantizer);
        with_causes(&made.unwrap_err())
    };
    let layers = network.quantizable_layers();
    assert_eq!(
        new(&bits(4, layers), &PowersOfTwo),
        "layer `stem` cannot be quantized: powers-of-two has no integer codes with a scale, only values in floating point"
    );
    let wrpn = QuantizerKind::Wrpn.build();
    assert_eq!(new(&bits(4, 2), &*wrpn), format!("2 bitwidths for {layers} layers"));
    let nine = new(&bits(9, layers), &*wrpn);
    assert!(nine.starts_with("layer `stem` cannot be quantized: wrpn takes 1 to 8 bits"), "{nine}");
    let mut missing = weights(&network);
    missing.0.remove("fc.bias");
    let error =
        QuantizedNetwork::new(network.clone(), missing, &bits(4, layers), &*wrpn).unwrap_err();
    assert_eq!(error.to_string(), "parameter `fc.bias` is missing");

    // Parts that do not fit.
    let model = quantized(&network, &[4], &*wrpn);
    let codes = |layer: &str, count: usize, scales: usize| {
        let codes =
            Quantized::new(vec![1; count], vec![1.0; scales], 7.0, Bitwidth::new(4).unwrap());
        BTreeMap::from([(layer.to_owned(), codes.unwrap())])
    };
    let parts = |codes| {
        let made =
            QuantizedNetwork::from_parts(network.clone(), model.floats().clone(), codes, None);
        made.unwrap_err().to_string()
    };
    assert_eq!(
        parts(codes("gelu", 4, 1)),
        "layer `gelu`: there are codes for it, and it has no weights"
    );
    assert_eq!(parts(codes("head", 29, 1)), "layer `head`: there are 29 codes for 30 weights");
    assert_eq!(parts(codes("head", 30, 2)), "layer `head`: there are 2 scales for 5 channels");
    assert!(parts(codes("head", 30, 5)).contains(".weight` is missing"));
}

#[test]
fn exports_that_were_changed_are_refused() {
    let network = everything();
    let model = quantized(&network, &[4], &*QuantizerKind::WrpnScaled.build());
    let exported = export_as(&model, Form::Dq).unwrap();
    let changed = |change: &dyn Fn(&mut proto::Model)| {
        let mut model = proto::Model::decode(exported.bytes.as_slice()).unwrap();
        change(&mut model);
        reread(model.encode_to_vec()).unwrap_err().to_string()
    };
    let metadata = |from: &'static str, to: &'static str| {
        changed(&|model| {
            let value = &mut model.metadata_props[0].value;
            assert!(value.contains(from), "{value}");
            *value = value.replacen(from, to, 1);
        })
    };
    assert!(changed(&|model| model.metadata_props.clear()).contains("quantized already"));
    assert!(metadata("releq onnx 1", "releq onnx 2").contains("its format is `releq onnx 2`"));
    assert!(metadata("{", "[").contains("its metadata `releq` is damaged"));
    assert!(metadata("\"fc.weight\"", "\"fc.weights\"").contains("is not in the metadata"));
    assert!(metadata("\"bits\":4", "\"bits\":3").contains("layer `"), "code too wide");
    assert!(metadata("\"zero_point\":7.0", "\"zero_point\":6.5").contains("not on the grid"));
    assert!(
        metadata("\"weights\":{", "\"weights\":{\"more\":{\"bits\":4,\"zero_point\":7.0},")
            .contains("its metadata has 9 quantized layers, but there are 8")
    );
    let set = |input: usize, bytes: &'static [u8]| {
        changed(&|model| {
            let graph = model.graph.as_mut().unwrap();
            let node = graph.node.iter().find(|node| node.op_type == "DequantizeLinear").unwrap();
            let name = node.input[input].clone();
            let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == name).unwrap();
            tensor.raw_data = bytes.into();
        })
    };
    assert!(set(0, &[0]).contains("has 1 bytes"));
    assert!(set(1, &[0, 0, 0x80, 0xff]).contains("negative or not finite"));
    assert!(set(2, &[1]).contains("zero point other than 0"));
}

/// A grid for what every layer gives, but for the convolution before a norm, and layers before a rectifier.
fn activations(network: &Network) -> ActivationGrids {
    let nodes = network.nodes();
    let reader = |index: usize| {
        let mut readers =
            (0..nodes.len()).filter(|&reader| network.sources(reader).contains(&Some(index)));
        let reader = readers.next()?;
        readers.next().is_none().then_some(reader)
    };
    let is_part = |index: usize| match (nodes[index].op, reader(index)) {
        (Op::Conv2d(_), Some(reader)) => {
            matches!(nodes[reader].op, Op::BatchNorm { .. } | Op::Relu | Op::ScaleShift)
        }
        (Op::BatchNorm { .. } | Op::Linear { .. }, Some(reader)) => nodes[reader].op == Op::Relu,
        (_, reader) => reader.is_none() && index + 1 == nodes.len(),
    };
    let layers = (0..nodes.len()).filter(|&index| !is_part(index)).map(|index| {
        let grid = ActivationGrid {
            scale: 0.01 + 0.001 * index as f32,
            zero_point: index as u8,
            bits: Bitwidth::EIGHT,
        };
        (nodes[index].name.clone(), grid)
    });
    let input = ActivationGrid { scale: 0.02, zero_point: 128, bits: Bitwidth::EIGHT };
    ActivationGrids { input, layers: layers.collect() }
}

#[test]
fn layers_of_int8_exports_stand_between_codes_and_have_their_norms_in_them() {
    let network = everything();
    let grids = activations(&network);
    for kind in [QuantizerKind::WrpnScaled, QuantizerKind::WrpnScaledPerChannel] {
        for bits in [&[4][..], &[1, 8], &[32]] {
            let mut model = quantized(&network, bits, &*kind.build());
            // One channel that the norm turns round, and one that it makes constant.
            model.floats.0.get_mut("stem_bn.weight").unwrap().values[..2]
                .copy_from_slice(&[-0.7, 0.0]);
            let model = model;
            let exported = export_int8(&model, &Frame::of(&network), &grids, 25).unwrap();
            assert!(reread(exported.bytes.clone()).is_err(), "it is for running alone");
            let graph = proto::Model::decode(exported.bytes.as_slice()).unwrap().graph.unwrap();
            let by: HashMap<&str, &proto::Node> =
                graph.node.iter().map(|node| (node.output[0].as_str(), node)).collect();
            let readers = |name: &str| -> Vec<&str> {
                let reads = |node: &&proto::Node| node.input.iter().any(|input| input == name);
                graph.node.iter().filter(reads).map(|node| node.op_type.as_str()).collect()
            };
            let mut layers = 0;
            for node in &graph.node {
                assert_ne!(node.op_type, "BatchNormalization");
                if !matches!(node.op_type.as_str(), "Conv" | "Gemm") {
                    continue;
                }
                layers += 1;
                assert_eq!(by[node.input[0].as_str()].op_type, "DequantizeLinear", "{}", node.name);
                let output = node.output[0].as_str();
                assert!(
                    matches!(readers(output)[..], ["QuantizeLinear"] | ["Relu"])
                        || output == "logits",
                    "{}: {:?}",
                    node.name,
                    readers(output)
                );
            }
            assert_eq!(layers, network.quantizable_layers());

            // The stem is the convolution followed by the norm.
            let stem = graph.node.iter().find(|node| node.name == "stem").unwrap();
            let weights = model.dequantized();
            let of = |name: &str| weights.0[name].values.as_slice();
            let scale = |channel: usize| {
                let variance = f64::from(of("stem_bn.running_var")[channel]);
                f64::from(of("stem_bn.weight")[channel]) / (variance + 1e-5).sqrt()
            };
            let bias = |channel: usize| {
                let mean = f64::from(of("stem_bn.running_mean")[channel]);
                f64::from(of("stem_bn.bias")[channel]) - mean * scale(channel)
            };
            let written = constants(&graph, &stem.input[1]);
            let row = written.len() / 8;
            for (index, (got, weight)) in written.iter().zip(of("stem.weight")).enumerate() {
                let expected = f64::from(*weight) * scale(index / row);
                assert!((f64::from(*got) - expected).abs() <= 1e-6 * expected.abs(), "{index}");
            }
            for (channel, got) in constants(&graph, &stem.input[2]).iter().enumerate() {
                let expected = bias(channel);
                // Half a step of the products that it is added to, whose weights are at least one level.
                let row = &written[channel * row..][..row];
                let largest = row.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
                let most = 0.51 * 0.02 * f64::from(largest) + 1e-6;
                assert!((f64::from(*got) - expected).abs() <= most, "{channel}: {got} {expected}");
            }
        }
    }
    let dorefa = quantized(&network, &[8], &*QuantizerKind::Dorefa.build());
    let error = export_int8(&dorefa, &Frame::of(&network), &grids, 25).unwrap_err().to_string();
    assert!(error.contains("its levels from -255 to 255 exceed 8 bits"), "{error}");
}

/// The values of an initialiser, or of the `DequantizeLinear` of one.
fn constants(graph: &proto::Graph, name: &str) -> Vec<f32> {
    let tensor = |name: &str| graph.initializer.iter().find(|tensor| tensor.name == name);
    let numbers = |name: &str| -> Vec<f32> {
        let tensor = tensor(name).unwrap();
        let bytes = &tensor.raw_data;
        match tensor.data_type {
            1 => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            3 => bytes.iter().map(|&byte| f32::from(byte as i8)).collect(),
            6 => {
                bytes.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as f32).collect()
            }
            other => panic!("type {other}"),
        }
    };
    if tensor(name).is_some() {
        return numbers(name);
    }
    let node = graph.node.iter().find(|node| node.output[0] == name).unwrap();
    let (levels, scales) = (numbers(&node.input[0]), numbers(&node.input[1]));
    let row = levels.len() / scales.len();
    levels.iter().enumerate().map(|(index, level)| level * scales[index / row]).collect()
}

proptest! {
    #[test]
    fn dequantized_exports_are_the_fake_quantized_weights(
        outputs in 1_usize..6,
        inputs in 1_usize..5,
        kernel in 1_usize..4,
        is_linear: bool,
        bits in 1_u8..=8,
        kind in prop::sample::select(kinds().collect::<Vec<_>>()),
        scale in prop::sample::select(vec![1e-30_f32, 0.05, 1.0, 1e30]),
    ) {
        let network = match is_linear {
            true => Network::builder("everything", [inputs, 1, 1]).flatten("flatten").linear("layer", outputs),
            false => Network::builder("everything", [inputs, 4, 4])
                .conv("layer", Conv2d::new(outputs, Axes::new(kernel, 1)))
                .flatten("flatten"),
        };
        let network = network.build().unwrap();
        let mut weights = weights(&network);
        let weight = weights.0.get_mut("layer.weight").unwrap();
        weight.values.iter_mut().for_each(|value| *value *= scale);
        let (values, channels) = (weight.values.clone(), weight.shape[0]);
        let quantizer = kind.build();
        let bitwidth = Bitwidth::new(bits).unwrap();
        let layer = releq_quant::LayerWeights::new(&values, channels).unwrap();
        let mut fake = vec![0.0; values.len()];
        quantizer.fake_quantize(layer, bitwidth, &mut fake).unwrap();

        let bits = BitwidthAssignment::new(vec![bitwidth]).unwrap();
        let model = QuantizedNetwork::new(network, weights, &bits, &*quantizer).unwrap();
        prop_assert_eq!(&model.dequantized().0["layer.weight"].values, &fake);
        let exported = export_as(&model, Form::Dq).unwrap();
        prop_assert_eq!(&naively_dequantized(&exported.bytes)["layer.weight"], &fake);
        for form in [Form::Qcdq, Form::Qonnx] {
            let Ok(exported) = export_as(&model, form) else {
                prop_assert!(form == Form::Qcdq && kind == QuantizerKind::Dorefa);
                continue;
            };
            let read = reread(exported.bytes).unwrap();
            prop_assert_eq!(&read.weights.0["layer.weight"].values, &fake);
            prop_assert_eq!(read.quantized().unwrap(), model.clone());
        }
    }
}
