//! Forward passes and published checkpoints against PyTorch's own logits.
//!
//! The rows in `golden/` come from `golden/make_forward.py`, which builds every network again in PyTorch and
//! fills it by the formula of `releq_test_support::formula`, too.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{collections::BTreeMap, path::PathBuf};

use releq::{
    core::{Conv2d, Network, Parameter, Weights},
    format,
    quant::QuantizerKind,
    train::{BurnTrainer, NativeTrainer, Trainer},
    zoo,
};
use releq_test_support::{
    data_dir,
    formula::{by_formula, images},
};

/// Both sides sum in single precision, each in its own order: measured, the worst is 2e-6.
const TOLERANCE: f32 = 1e-4;

fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(file)
}

/// For every network, the first ten logits of two images.
fn rows(file: &str) -> BTreeMap<String, Vec<[f32; 10]>> {
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_path(golden(file)).unwrap();
    let mut rows: BTreeMap<String, Vec<[f32; 10]>> = BTreeMap::new();
    for row in reader.deserialize() {
        let (network, image, class, logit): (String, usize, usize, f32) = row.unwrap();
        let images = rows.entry(network).or_default();
        images.resize(images.len().max(image + 1), [f32::NAN; 10]);
        images[image][class] = logit;
    }
    rows
}

/// Fails where a trainer gives other logits for the images.
fn check(network: &Network, state: &Weights, expected: &[[f32; 10]]) {
    let scale = expected.as_flattened().iter().fold(0f32, |max, logit| max.max(logit.abs()));
    for kind in ["burn", "native"] {
        let quantizer = QuantizerKind::Wrpn.build();
        let mut trainer: Box<dyn Trainer> = match kind {
            "burn" => Box::new(BurnTrainer::flex(network, quantizer).unwrap()),
            _ => Box::new(NativeTrainer::new(network, quantizer).unwrap()),
        };
        trainer.load(state).unwrap();
        let got = trainer.logits(&images(network)).unwrap();
        for (image, (got, expected)) in
            got.chunks_exact(network.outputs()).zip(expected).enumerate()
        {
            for (class, (got, expected)) in got.iter().zip(expected).enumerate() {
                assert!(
                    (got - expected).abs() <= TOLERANCE * scale,
                    "{} on {kind}, image {image}, class {class}: {got}, PyTorch {expected}",
                    network.name()
                );
            }
        }
    }
}

#[test]
fn every_network_gives_the_logits_of_pytorch() {
    let rows = rows("forward.csv");
    for name in zoo::NAMES {
        let network = zoo::by_name(name).unwrap();
        check(&network, &by_formula(&network), &rows[name]);
    }
    assert_eq!(rows.len(), zoo::NAMES.len());
}

#[test]
fn published_checkpoints_give_the_logits_of_pytorch() {
    let Some(folder) = data_dir().map(|dir| dir.join("weights")) else { return };
    let rows = rows("checkpoints.csv");
    let files =
        [("simplenet", "simplenet_cifar.pth.tar"), ("resnet20_option_a", "resnet20-12fca82f.th")];
    for (name, file) in files {
        let network = zoo::by_name(name).unwrap();
        let state = format::load(folder.join(file), &network).unwrap();
        check(&network, &state, &rows[name]);

        // Ours in between: what we save loads as the same bits.
        let own = tempfile::tempdir().unwrap();
        let path = own.path().join("saved.safetensors");
        format::safetensors::save(&path, &state).unwrap();
        assert_eq!(format::load(&path, &network).unwrap(), state);

        // The other network of the pair cannot take it, and the error says all that is wrong.
        let (other, _) = files[usize::from(name == "simplenet")];
        let other = zoo::by_name(other).unwrap();
        let message = format::load(folder.join(file), &other).unwrap_err().to_string();
        for part in [file, other.name(), "missing: ", "unexpected: ", "of another shape: conv1."] {
            assert!(message.contains(part), "`{message}` lacks `{part}`");
        }
    }
    let projections = zoo::resnet20();
    let file = folder.join("resnet20-12fca82f.th");
    let message = format::load(file, &projections).unwrap_err().to_string();
    assert!(message.contains("missing: layer2.0.downsample.0.weight"), "{message}");
    assert!(!message.contains("unexpected"), "`linear` is `fc` here: {message}");
}

#[test]
fn both_formats_of_torch_save_are_read() {
    let network = Network::builder("tiny", [1, 4, 4])
        .conv("0", Conv2d::new(2, 3).without_bias())
        .batch_norm("1")
        .flatten("2")
        .linear("3", 3)
        .build()
        .unwrap();
    let expected = by_formula(&network);
    // Under `model_state_dict`, beside an optimizer with momentum.
    assert_eq!(format::load(golden("tiny_zip.pt"), &network).unwrap(), expected);
    // Bare, wrapped by `DataParallel`, in half precision: 11 bits, of values up to 1.5.
    let legacy = format::load(golden("tiny_legacy.pth"), &network).unwrap();
    assert_eq!(legacy.trainable_values(), expected.trainable_values());
    for (name, Parameter { values, .. }) in &legacy.0 {
        for (half, full) in values.iter().zip(&expected.0[name].values) {
            assert!((half - full).abs() <= 1.5 / 2048.0, "{name}: {half}, {full}");
        }
    }
}
