//! Networks written for other programs and read again: the models of all exporters, the zoo, and packed files.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]
#![allow(unreachable_pub, reason = "a module is that of another crate as well")]

#[path = "fuzz/src/reseal.rs"]
mod reseal;

use std::{fs, path::PathBuf};

use releq::{
    core::{
        Bitwidth, BitwidthAssignment, Network, Parameter, Weights, parameter_shapes, with_causes,
    },
    data::npz,
    format::{
        QuantizedNetwork,
        onnx::{self, Batch, ExportConfig, Form, Frame},
        packed::{self, Packed},
    },
    quant::{ActivationGrid, ActivationGrids, QuantizerKind, WrpnScaled},
    train::{NativeTrainer, Trainer, initial_weights},
    zoo,
};

/// 1 to 8 bits and full precision in turn.
fn mixed(network: &Network) -> BitwidthAssignment {
    let bits = (1..=8).map(|bits| Bitwidth::new(bits).unwrap()).chain([Bitwidth::FLOAT]);
    let bits = bits.cycle().skip(3).take(network.quantizable_layers());
    BitwidthAssignment::new(bits.collect()).unwrap()
}

fn quantized(network: &Network, weights: &Weights) -> QuantizedNetwork {
    let quantizer = QuantizerKind::WrpnScaledPerChannel.build();
    QuantizedNetwork::new(network.clone(), weights.clone(), &mixed(network), &*quantizer).unwrap()
}

fn models() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/onnx");
    let mut models: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    models.sort();
    assert_eq!(models.len(), 16);
    models
}

fn logits(network: &Network, weights: &Weights, images: &[f32]) -> Vec<f32> {
    let mut trainer = NativeTrainer::new(network, QuantizerKind::Wrpn.build()).unwrap();
    trainer.load(weights).unwrap();
    trainer.logits(images).unwrap()
}

/// The values of all parameters in the order of the layers: names of layers without weights may be others.
fn values<'w>(network: &'w Network, weights: &'w Weights) -> Vec<&'w [f32]> {
    parameter_shapes(network).map(|(name, _)| weights.0[&name].values.as_slice()).collect()
}

#[test]
fn models_of_all_exporters_come_back_with_their_codes_frames_and_outputs() {
    for path in models() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let model = onnx::open(&path).unwrap();
        let images = npz::read(path.with_extension("npz"), "x").unwrap();
        let quantized = quantized(&model.network, &model.weights);
        let dequantized = quantized.dequantized();
        let expected = logits(&model.network, &dequantized, &images.values);
        for &form in Form::ALL {
            let config = ExportConfig { form, ..ExportConfig::default() };
            let exported = onnx::export(&quantized, &model.frame, &config).unwrap();
            let read = onnx::read(exported.bytes, name, &mut |_| unreachable!()).unwrap();
            assert_eq!(
                values(&read.network, &read.weights),
                values(&model.network, &dequantized),
                "{name} {form}"
            );
            let bits = read.quantized().unwrap().bits();
            assert_eq!(bits, mixed(&model.network), "{name} {form}");
            for ((layer, codes), (_, read)) in quantized
                .layers()
                .filter_map(|(layer, _)| Some((layer, quantized.codes(layer)?)))
                .zip(
                    read.network
                        .nodes()
                        .iter()
                        .filter_map(|node| Some((node.name.as_str(), read.codes.get(&node.name)?))),
                )
            {
                assert_eq!(codes, read, "{name} {form} {layer}");
            }
            assert_eq!(logits(&read.network, &read.weights, &images.values), expected);
            let kept = |frame: &Frame| {
                let batch = match (&frame.batch, form) {
                    (_, Form::Qonnx) => Batch::Fixed(1),
                    (Batch::Any(None), _) => Batch::Any(Some("batch".to_owned())),
                    (batch, _) => batch.clone(),
                };
                let (input, output) = (frame.input.clone(), frame.output.clone());
                (input, frame.layout, batch, output, frame.output_rank, frame.end)
            };
            assert_eq!(kept(&read.frame), kept(&model.frame), "{name} {form}");
        }
    }
}

#[test]
fn networks_of_the_zoo_come_back_as_they_are() {
    for name in zoo::NAMES {
        let network = zoo::by_name(name).unwrap();
        // Those with a million weights and more say nothing that the others do not.
        if network.profiles().iter().map(|layer| layer.weights()).sum::<u64>() > 6_000_000 {
            continue;
        }
        let quantized = quantized(&network, &initial_weights(&network, 1));
        let frame = Frame::of(&network);
        let exported = onnx::export(&quantized, &frame, &ExportConfig::default()).unwrap();
        let read = onnx::read(exported.bytes, name, &mut |_| unreachable!()).unwrap();
        let ops =
            |network: &Network| -> Vec<_> { network.nodes().iter().map(|node| node.op).collect() };
        assert_eq!(ops(&read.network), ops(&network), "{name}");
        let layers = |model: &QuantizedNetwork| -> Vec<_> {
            model.layers().map(|(layer, _)| model.codes(layer).cloned()).collect()
        };
        assert_eq!(layers(&read.quantized().unwrap()), layers(&quantized), "{name}");

        let packed = Packed::from(quantized);
        let bytes = packed::encode(&packed).unwrap();
        assert_eq!(packed::parse(&bytes).unwrap(), packed, "{name}");
    }
}

/// Codes at their bits, 4 bytes a float, 400 bytes a layer and 2 kB.
#[test]
fn packed_files_are_as_small_as_they_promise() {
    let mut networks: Vec<(String, Network, Weights)> = models()
        .iter()
        .map(|path| {
            let model = onnx::open(path).unwrap();
            (path.display().to_string(), model.network, model.weights)
        })
        .collect();
    for name in ["lenet", "resnet20", "mobilenet_v1"] {
        let Ok(network) = zoo::by_name(name) else { continue };
        let weights = initial_weights(&network, 1);
        networks.push((name.to_owned(), network, weights));
    }
    for (name, network, weights) in networks {
        for per_channel in [false, true] {
            let bits = mixed(&network);
            let kind = if per_channel {
                QuantizerKind::WrpnScaledPerChannel
            } else {
                QuantizerKind::WrpnScaled
            };
            let model =
                QuantizedNetwork::new(network.clone(), weights.clone(), &bits, &*kind.build())
                    .unwrap();
            let mut most = 2000 + 400 * network.nodes().len();
            for (layer, bits) in model.layers() {
                if let Some(codes) = model.codes(layer) {
                    most += (codes.codes().len() * usize::from(bits.get())).div_ceil(8);
                    most += if codes.scales().len() > 1 { 4 * codes.scales().len() } else { 0 };
                }
            }
            let floats = model.floats().0.values();
            most += floats.map(|parameter| 4 * parameter.values.len()).sum::<usize>();
            let size = packed::encode(&Packed::from(model)).unwrap().len();
            assert!(size <= most, "{name}: {size} bytes, {most} allowed");
        }
    }
}

fn small() -> Packed {
    let network = Network::builder("small", [1, 8, 8])
        .conv2d("conv", 3, 3)
        .flatten("flatten")
        .linear("fc", 4)
        .build()
        .unwrap();
    let weights = initial_weights(&network, 1);
    let bits = "3-2".parse().unwrap();
    QuantizedNetwork::new(network, weights, &bits, &WrpnScaled::default()).unwrap().into()
}

#[test]
fn a_packed_file_with_any_bit_of_its_header_flipped_or_any_end_missing_is_refused() {
    let whole = packed::encode(&small()).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for place in 0..whole.len() {
        assert!(packed::parse(&whole[..place]).is_err(), "cut at {place}");
        let bits = if place < header { 0..8 } else { place % 8..place % 8 + 1 };
        for bit in bits {
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << bit;
            assert!(packed::parse(&flipped).is_err(), "bit {bit} of byte {place}");
        }
    }
}

/// A packed file with its description changed, and the right checksum.
fn described(change: impl Fn(String) -> String) -> Vec<u8> {
    reseal::safetensors(&packed::encode(&small()).unwrap(), change).unwrap()
}

#[test]
fn descriptions_that_are_wrong_are_refused_with_what_is() {
    assert_eq!(packed::parse(&described(|text| text)).unwrap(), small());
    let refused = |from: &str, to: &str, expected: &str| {
        let bytes = described(|text| {
            assert!(text.contains(from), "`{text}` lacks `{from}`");
            text.replacen(from, to, 1)
        });
        let message = with_causes(&packed::parse(&bytes).unwrap_err());
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    };
    refused(
        "releq packed 1",
        "releq packed 4",
        "its format is `releq packed 4`; this version reads",
    );
    refused("releq packed 1", "releq packed 2", "the format is `releq packed 2`");
    refused("releq packed 1", "something", "does not say the format `releq packed 1`");
    refused("\"quantizer\"", "\"quantiser\"", "its description is wrong: unknown field");
    refused(
        "\"bits\":3",
        "\"bits\":4",
        "tensor `conv.weight`: packed bytes holds 11 values, 14 are",
    );
    refused("\"bits\":3", "\"bits\":9", "tensor `conv.weight`: packing takes 1 to 8 bits, got 9");
    refused("\"shape\":[3,1,3,3]", "\"shape\":[3,3,3,1]", "its shape is [3, 3, 3, 1]");
    let huge = "\"shape\":[18446744073709551615,18446744073709551615]";
    refused("\"shape\":[3,1,3,3]", huge, "and its layer's [3, 1, 3, 3]");
    for wide in ["4294967296", "18446744073709551615", "99999999999999999999"] {
        let wide = format!("\"out_channels\":{wide}");
        refused("\"out_channels\":3", &wide, "its description is wrong");
    }
    refused("\"out_channels\":3", "\"out_channels\":1000", "its shape is [3, 1, 3, 3]");
    refused("\"zero_point\":3.0", "\"zero_point\":1e39", "its description is wrong");
    refused("\"scale\":", "\"scale\":-", "scale");
    refused("\"scale\":", "\"scale\":1e300,\"scale\":", "duplicate field");
    refused("\"name\":\"conv.weight\"", "\"name\":\"conv\"", "it is the weight of no layer");
    refused("\"name\":\"conv.weight\"", "\"name\":\"fc.weight\"", "tensor `fc.weight`");

    let weights =
        Weights([("a".to_owned(), Parameter { shape: vec![1], values: vec![1.0] })].into());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    releq::format::safetensors::save(&path, &weights).unwrap();
    let message = with_causes(&packed::load(&path).unwrap_err());
    assert!(message.contains("weights.safetensors: this is no packed network"), "{message}");
    fs::write(&path, "").unwrap();
    assert!(with_causes(&packed::load(&path).unwrap_err()).contains("empty"));
    fs::write(&path, "not a file of this kind").unwrap();
    assert!(with_causes(&packed::load(&path).unwrap_err()).contains("weights.safetensors"));
    fs::remove_file(&path).unwrap();
    assert!(with_causes(&packed::load(&path).unwrap_err()).contains("cannot read"));
}

/// The small network with a grid for its input and one for what the last layer reads.
fn with_activations(layer: &str, scale: f32) -> Packed {
    let bits = Bitwidth::EIGHT;
    let input = ActivationGrid { scale: 0.1, zero_point: 3, bits };
    let layers = [(layer.to_owned(), ActivationGrid { scale, zero_point: 200, bits })].into();
    Packed { activations: Some(ActivationGrids { input, layers }), ..small() }
}

#[test]
fn grids_of_activations_come_back_and_those_that_are_none_are_refused() {
    let packed = with_activations("flatten", 1.0 / 3.0);
    let bytes = packed::encode(&packed).unwrap();
    assert_eq!(packed::parse(&bytes).unwrap(), packed);
    for (grids, expected) in [
        (with_activations("flatten", 0.0), "activations of `flatten`: 0.0 is no scale"),
        (with_activations("flatten", f32::NAN), "is no scale"),
        (with_activations("flatten", -1.0), "is no scale"),
        (with_activations("flat", 1.0), "activations of `flat`: the network has no such layer"),
    ] {
        let message = with_causes(&packed::encode(&grids).unwrap_err());
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    }
    let changed_in = |bytes: &[u8], from: &str, to: &str| {
        let bytes = reseal::safetensors(bytes, |text| {
            assert!(text.contains(from), "`{text}` lacks `{from}`");
            text.replacen(from, to, 1)
        });
        with_causes(&packed::parse(&bytes.unwrap()).unwrap_err())
    };
    let changed = |from: &str, to: &str| changed_in(&bytes, from, to);
    assert!(changed("releq packed 2", "releq packed 1").contains("the format is `releq packed 1`"));
    assert!(
        changed("\"zero_point\":200", "\"zero_point\":256").contains("its description is wrong")
    );
    assert!(changed("{\"flatten\"", "{\"other\"").contains("the network has no such layer"));

    // Fewer bits are of a later format.
    let mut packed = packed;
    let grids = packed.activations.as_mut().unwrap();
    grids.input.bits = Bitwidth::new(2).unwrap();
    let bytes = packed::encode(&packed).unwrap();
    assert_eq!(packed::parse(&bytes).unwrap(), packed);
    let changed = |from: &str, to: &str| changed_in(&bytes, from, to);
    assert!(changed("releq packed 3", "releq packed 2").contains("the format is `releq packed 2`"));
    for (bits, expected) in [
        ("1", "zero point 3 is no code of 1 bits"),
        ("9", "9 bits are more than 8"),
        ("0", "its description is wrong"),
    ] {
        let message =
            changed("\"zero_point\":3,\"bits\":2", &format!("\"zero_point\":3,\"bits\":{bits}"));
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    }
}

#[test]
fn a_packed_file_is_a_checkpoint_of_its_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.safetensors");
    let packed = small();
    packed::save(&path, &packed).unwrap();
    let read = releq::format::load(&path, packed.model.network()).unwrap();
    assert_eq!(read, packed.model.dequantized());
}
