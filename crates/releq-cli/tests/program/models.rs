//! ONNX models and networks in JSON, wherever a network is named.

use std::{fs, path::Path};

use releq::data::npz;

use crate::support::{MODELS, command, refused, said};

#[test]
fn import_says_what_a_model_is_and_writes_it_for_other_commands() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let shown = said("import MODELS/keras_channels_last.onnx --explain --output DIR/net.json", dir);
    for part in [
        "x [batch, 8, 8, 3]",
        "probabilities",
        "tf2onnx",
        "padding of the next layer",
        "net.safetensors",
    ] {
        assert!(shown.contains(part), "`{shown}` lacks `{part}`");
    }
    let json = command(&format!("import {MODELS}/plain_legacy.onnx --json"), dir).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["network"]["name"], "plain_legacy");
    assert_eq!(json["nodes"][0]["became"], "layer conv1");
    assert!(json["remarks"][0].as_str().unwrap().contains("no batch norm"));

    // The same outputs from the model and from what was written.
    let run = "--input MODELS/keras_channels_last.npz --output";
    said(&format!("run MODELS/keras_channels_last.onnx {run} DIR/a.npz"), dir);
    said(&format!("run DIR/net.json --weights DIR/net.safetensors {run} DIR/b.npz"), dir);
    let logits = |file: &str| npz::read(dir.join(file), "logits").unwrap();
    let (got, written) = (logits("a.npz"), logits("b.npz"));
    assert_eq!(got, written);
    let expected = npz::read(Path::new(MODELS).join("keras_channels_last.npz"), "logits").unwrap();
    assert_eq!(got.shape, expected.shape);
    let pairs = expected.values.iter().zip(&got.values).map(|(a, b)| (a - b).abs());
    assert!(pairs.fold(0.0, f32::max) < 1e-5);
}

#[test]
fn a_model_is_trained_evaluated_searched_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let model = "MODELS/plain_legacy.onnx";
    said(&format!("cost {model} --bits 4"), dir);
    let pixels = "--mean 0.1307 --std 0.3081";
    let train = format!("train {model} --data DATA {pixels} --epochs 12 --batch-size 32");
    let trained = said(&format!("{train} --output DIR/w.safetensors"), dir);
    assert!(trained.contains("no batch norm found"), "{trained}");
    refused(&format!("evaluate {model} --data DATA"), dir, 2, "--preprocess: say how images");
    let before = said(&format!("evaluate {model} --data DATA {pixels} --json"), dir);
    let after = said(
        &format!("evaluate {model} --weights DIR/w.safetensors --data DATA {pixels} --json"),
        dir,
    );
    let accuracy = |said: &str| -> f64 {
        let json = &said[said.find('{').unwrap()..=said.rfind('}').unwrap()];
        serde_json::from_str::<serde_json::Value>(json).unwrap()["accuracy"].as_f64().unwrap()
    };
    assert!(accuracy(&after) > accuracy(&before) + 0.2, "{before}\n{after}");

    let search = format!(
        "search {model} --data DATA {pixels} --evaluations 1 --short-epochs 0.2 --long-epochs 0.2 --learning-rate 0.001 \
         --no-comparison --run DIR/run"
    );
    said(&search, dir);
    let config = fs::read_to_string(dir.join("run/config.json")).unwrap();
    assert!(config.contains("plain_legacy.onnx"), "{config}");
    // The configuration has layers and weights, so that the run can go on.
    let resumed = said("resume DIR/run", dir);
    assert!(resumed.contains("full precision"), "{resumed}");
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("text.onnx"), "not a model\n").unwrap();
    fs::write(dir.join("net.json"), "{\"name\": \"net\", \"input\": [1, 4, 4], \"layers\": []}")
        .unwrap();
    refused("import DIR/text.onnx", dir, 1, "text.onnx: this is no ONNX model");
    refused("import DIR/absent.onnx", dir, 1, "cannot read");
    refused(
        "cost DIR/net.json --bits 4",
        dir,
        1,
        "network `net` has no layer with quantizable weights",
    );
    refused("cost lenett --bits 4", dir, 2, "lenet");
    let images = "--input MODELS/mlp_softmax_dynamo.npz --output DIR/o.npz";
    refused(
        &format!("run MODELS/plain_legacy.onnx {images}"),
        dir,
        1,
        "array `x` has shape [3, 3, 4, 4], but `plain_legacy` takes [images, 1, 28, 28]",
    );
    refused(&format!("run lenet {images}"), dir, 2, "--weights: name the file");
    refused(
        "run MODELS/plain_legacy.onnx --input DIR/net.json --output DIR/o.npz",
        dir,
        1,
        "no archive of NumPy",
    );
    refused(
        "run MODELS/plain_legacy.onnx --input DIR/o.npz --output DIR/o.npz",
        dir,
        2,
        "--input and --output name the same file",
    );
}
