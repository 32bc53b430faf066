//! What is in a file beside the weights and would change them: layers that the network lacks, and second values.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod support;

use std::path::Path;

use releq_core::Parameter;
use releq_format::{CheckpointError, NameMap};
use support::*;
use tempfile::TempDir;

#[test]
fn layers_behind_the_network_and_beside_it_make_another_network() {
    // One after the last layer, a batch norm, a factor for each channel, a bias that the network does not have (its
    // layers do), a head of another task, and adapters.
    let shape: &[usize] = &[3, 3];
    for (name, shape) in [
        ("fc3.weight", shape),
        ("bn1.running_var", &[2]),
        ("prelu.weight", &[1]),
        ("flatten.bias", &[8]),
        ("head.0.weight", &[5, 3]),
        ("fc.lora_A.weight", &[1, 8]),
        ("fc.lora_B.default.weight", &[3, 1]),
        ("fc.lora_A", &[1, 8]),
    ] {
        let message =
            refused(&renamed(str::to_owned, &[(name, shape)]), &NameMap::new()).to_string();
        assert!(message.contains(&format!("(unexpected: {name})")), "{message}");
        let remedy = if name.contains("lora") { "merge_and_unload" } else { "NameMap::ignore" };
        assert!(message.contains(remedy), "{message}");
        let layer = name.split('.').next().unwrap();
        if layer != "fc" {
            refused(&renamed(str::to_owned, &[(name, shape)]), &NameMap::new().ignore("other"));
            let folder = TempDir::new().unwrap();
            for path in both(&folder, &renamed(str::to_owned, &[(name, shape)])) {
                let (found, state) = read(&path, &NameMap::new().ignore(layer)).unwrap();
                assert_eq!((found.ignored, state), (vec![name.to_owned()], weights()));
            }
        }
    }
    // Beside the place of the weights, anything may be.
    let other: [(&str, &[usize]); 2] = [("teacher.fc9.weight", &[3, 3]), ("ema.fc3.bias", &[3])];
    let found = found(&renamed(|name| format!("model.{name}"), &other));
    assert_eq!((found.key.as_str(), found.ignored.len()), ("model", 2));
}

/// The message of the error that a parameter is there twice, or `None` if the weights are found.
fn twice(path: &Path, names: &NameMap) -> Option<String> {
    match read(path, names) {
        Ok((_, state)) => {
            assert_eq!(state, weights());
            None
        }
        Err(error @ CheckpointError::Twice { .. }) => Some(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn one_parameter_under_two_names_has_one_value() {
    let folder = TempDir::new().unwrap();
    let fc = NameMap::new().layer("linear", "fc");
    for (second, names) in [
        ("module.conv1.weight", NameMap::new()),
        ("conv1.module.weight", NameMap::new()),
        ("_orig_mod.conv1._fsdp_wrapped_module.weight", NameMap::new()),
        ("linear.weight", fc),
    ] {
        let mut tensors = renamed(str::to_owned, &[]);
        let first = if second.contains("linear") { "fc.weight" } else { "conv1.weight" };
        tensors.insert(second.to_owned(), tensors[first].clone());
        for path in both(&folder, &tensors) {
            assert_eq!(twice(&path, &names), None, "{second}");
        }
        tensors.get_mut(second).unwrap().values[3] = 9.0;
        for path in both(&folder, &tensors) {
            let message = twice(&path, &names).unwrap();
            for part in [first, second, "weights.", "remove the one"] {
                assert!(message.contains(part), "`{message}` lacks `{part}`");
            }
        }
    }
    // A key says which of two places is meant.
    let mut tensors = renamed(str::to_owned, &[]);
    let other = Parameter { values: vec![9.0; 2], shape: vec![2] };
    tensors.insert("module.conv1.bias".to_owned(), other);
    for path in both(&folder, &tensors) {
        assert!(twice(&path, &NameMap::new()).is_some());
        assert_eq!(twice(&path, &NameMap::new().key("")), None);
    }
}

#[test]
fn keys_that_are_joined_to_one_name_are_told_apart() {
    let folder = Folder::new();
    for (value, is_same) in [(None, true), (Some(7.0), false)] {
        let mut saved = Saved::default();
        let mut bias = weights().0["fc.bias"].clone();
        bias.values[1] = value.unwrap_or(bias.values[1]);
        let other = dict(&[("bias", saved.tensor(&bias))]);
        let root = saved.state_with("", &[]);
        // Another entry at the end of the dictionary.
        let root = [&root[..root.len() - 1], &text("fc"), &other, b"u"].concat();
        let read = folder.read(&saved.file(&root));
        if is_same {
            assert_eq!(read.unwrap().1, weights());
        } else {
            let message = read.unwrap_err().to_string();
            assert!(message.contains("`[\"fc.bias\"]` and as `[\"fc\"][\"bias\"]`"), "{message}");
        }
    }
    // One key that is set twice has its last value, as in Python.
    let mut saved = Saved::default();
    let zeros = Parameter { shape: vec![3], values: vec![0.0; 3] };
    let first = saved.tensor(&zeros);
    let state = saved.state("");
    let root = [&b"}("[..], &text("fc.bias"), &first, &state[2..]].concat();
    assert_eq!(folder.read(&saved.file(&root)).unwrap().1, weights());
}
