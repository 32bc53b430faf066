//! Packed networks on the runtime, beside the networks in single precision that they come from.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{num::NonZeroUsize, path::Path};

use releq::{
    core::BitwidthAssignment,
    data::{Dataset, Normalization},
    format::{QuantizedNetwork, packed::Packed},
    quant::QuantizerKind,
    train::{RoundedActivations, Trainer, initial_weights},
    zoo,
};
use releq_kernels::Isa;
use releq_runtime::{Activation, Mode, Model, Options, reference};
use releq_test_support::deployed::{packed, packed_lenet, trainer};

fn class(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

/// Networks of the zoo with their own kinds of layers, on drawn digits or noise: the runtime gives the codes of its plain twin
/// on every instruction set, and nearly the logits of the network in single precision with rounded activations.
#[test]
fn networks_of_the_zoo_are_computed_code_for_code() {
    for (name, bits) in
        [("lenet", "2-3-4-8"), ("simplenet", "8-4-2-1-8"), ("resnet20", "4"), ("svhn10", "5")]
    {
        let network = zoo::by_name(name).unwrap();
        let [channels, height, width] = network.input();
        let layers = network.quantizable_layers();
        let bits = match bits.contains('-') {
            true => bits.to_owned(),
            false => vec![bits; layers].join("-"),
        };
        let pixels = |at: usize| (at * at % 251 + at % 5) as u8;
        let count = 8;
        let images = releq::data::ImageSet::new(
            "noise",
            [channels, height, width],
            network.outputs(),
            (0..count * channels * height * width).map(pixels).collect(),
            vec![0; count],
        )
        .unwrap();
        let normalization = Normalization::new(vec![0.5; channels], vec![0.25; channels]).unwrap();
        let packed = packed(&network, initial_weights(&network, 3), &bits, &images, &normalization);
        let (mut x, mut labels) = (Vec::new(), Vec::new());
        images.gather(&[0, 1], &normalization, &mut x, &mut labels).unwrap();
        let sample = channels * height * width;

        let grids = packed.activations.as_ref().unwrap();
        let mut rounded = RoundedActivations::new(trainer(&packed.model), grids);
        let near = rounded.logits(&x).unwrap();
        let reach = near.iter().fold(0.0_f32, |reach, logit| reach.max(logit.abs()));
        for (image, near) in x.chunks(sample).zip(near.chunks(network.outputs())) {
            let mut expected = Vec::new();
            let codes = |activation: Activation<'_>| match activation {
                Activation::Codes { codes, .. } => codes.to_vec(),
                Activation::Values(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                _ => unreachable!(),
            };
            let logits =
                reference::run(&packed, image, &mut |_, tensor| expected.push(codes(tensor)))
                    .unwrap();
            for (a, b) in logits.iter().zip(near) {
                assert!((a - b).abs() < 0.1 * reach, "{name}: {a} {b}, of {reach}");
            }
            for (isa, threads) in Isa::available().flat_map(|isa| [(isa, 1), (isa, 2)]) {
                let threads = NonZeroUsize::new(threads).unwrap();
                let options = Options { isa, threads, mode: Mode::Best };
                let mut model = Model::compile(&packed, &options).unwrap();
                assert!(model.layers().all(|layer| !layer.is_float), "{name}");
                let (mut got, mut at) = (vec![0.0; network.outputs()], 0);
                model
                    .run_observed(image, &mut got, &mut |layer, tensor| {
                        assert_eq!(codes(tensor), expected[at], "{name} {isa} {layer}");
                        at += 1;
                    })
                    .unwrap();
                assert_eq!((at, &got), (expected.len(), &logits), "{name} {isa}");
            }
        }
    }
}

/// LeNet, trained for a moment on drawn digits, classifies as well as with activations in full precision.
#[test]
fn a_trained_network_keeps_its_accuracy() {
    let (packed, test) = packed_lenet();
    accuracies(&packed, &test, &zoo::preset("lenet").unwrap().normalization, 0.5);
}

/// The accuracy of the runtime is that of fake-quantized weights to within some points.
fn accuracies(packed: &Packed, test: &dyn Dataset, normalization: &Normalization, points: f64) {
    let mut exact = trainer(&packed.model);
    let mut model = Model::compile(packed, &Options::default()).unwrap();
    let (mut x, mut labels) = (Vec::new(), Vec::new());
    let (mut right, mut expected) = (0, 0);
    let indices: Vec<usize> = (0..test.len()).collect();
    let outputs = model.outputs();
    let mut logits = vec![0.0; outputs];
    for batch in indices.chunks(100) {
        test.gather(batch, normalization, &mut x, &mut labels).unwrap();
        let all = exact.logits(&x).unwrap();
        let images = x.chunks(x.len() / batch.len()).zip(all.chunks(outputs));
        for ((image, exact), &label) in images.zip(&labels) {
            model.run(image, &mut logits).unwrap();
            right += usize::from(class(&logits) == label as usize);
            expected += usize::from(class(exact) == label as usize);
        }
    }
    let percent = |count: usize| 100.0 * count as f64 / test.len() as f64;
    let (right, expected) = (percent(right), percent(expected));
    assert!(expected > 50.0, "{expected} %");
    assert!(
        (right - expected).abs() <= points,
        "{right} %, and {expected} % with activations in full precision"
    );
}

/// Files that cannot be run say why.
#[test]
fn what_does_not_fit_is_refused() {
    let missing = Model::load(Path::new("no such file"), &Options::default()).unwrap_err();
    assert!(missing.to_string().contains("no such file"), "{missing}");
    let network = zoo::by_name("lenet").unwrap();
    let bits: BitwidthAssignment = "4-4-4-4".parse().unwrap();
    let quantizer = QuantizerKind::WrpnScaled.build();
    let model =
        QuantizedNetwork::new(network.clone(), initial_weights(&network, 1), &bits, &*quantizer)
            .unwrap();
    let packed = Packed::from(model);
    let mut model = Model::compile(&packed, &Options::default()).unwrap();
    assert!(model.layers().any(|layer| layer.reason.contains("--activation-bits 8")));
    let mut run = |image: usize, outputs: usize| {
        model.run(&vec![0.0; image], &mut vec![0.0; outputs]).map_err(|error| error.to_string())
    };
    run(784, 10).unwrap();
    assert!(
        run(783, 10).unwrap_err().contains("images of 1 x 28 x 28, which are 784 values; got 783")
    );
    assert!(run(784, 9).unwrap_err().contains("gives 10 outputs; there is room for 9"));
}
