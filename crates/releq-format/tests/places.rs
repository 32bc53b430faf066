//! Where the weights are in a file, and what may be beside them.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod support;

use releq_core::{Network, Parameter, Weights};
use releq_format::{Checkpoint, CheckpointError, NameMap, safetensors};
use support::*;
use tempfile::TempDir;

#[test]
fn weights_are_found_under_any_key() {
    for key in [
        "state_dict",
        "model",
        "ema",
        "best_state",
        "student",
        "state_dict.model",
        "model.state_dict",
        "state_dict.net.backbone",
        "0",
    ] {
        let found = found(&renamed(|name| format!("{key}.{name}"), &[]));
        assert_eq!((found.key.as_str(), found.ignored.len()), (key, 0));
    }
}

#[test]
fn wrappers_around_any_part_are_dropped() {
    for (wrapped, key) in [
        ("module.{}", "module"),
        ("state_dict.module.{}", "state_dict.module"),
        ("_orig_mod.module.{}", "_orig_mod.module"),
        ("nncf_module.{}", "nncf_module"),
        ("_fsdp_wrapped_module.{}", "_fsdp_wrapped_module"),
    ] {
        assert_eq!(found(&renamed(|name| wrapped.replace("{}", name), &[])).key, key);
    }
    for inner in ["_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_module_to_wrap", "module"]
    {
        let wrap = |name: &str| name.replace('.', &format!(".{inner}."));
        assert_eq!(found(&renamed(wrap, &[])).key, "");
    }
    // The ImageNet example wraps the features only.
    let wrap = |name: &str| match name.strip_prefix("conv1.") {
        Some(rest) => format!("state_dict.module.conv1.{rest}"),
        None => format!("state_dict.{name}"),
    };
    assert_eq!(found(&renamed(wrap, &[])).key, "state_dict");
}

#[test]
fn a_network_may_have_layers_that_are_called_like_wrappers() {
    let network = Network::builder("odd", [1, 1, 2])
        .flatten("flatten")
        .linear("module.fc", 2)
        .build()
        .unwrap();
    let shapes = releq_core::parameter_shapes(&network);
    let zeros = |(name, shape): (String, Vec<usize>)| {
        (name, Parameter { values: vec![1.0; shape.iter().product()], shape })
    };
    let state = Weights(shapes.map(zeros).collect());
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("odd.safetensors");
    safetensors::save(&path, &state).unwrap();
    assert_eq!(releq_format::load(&path, &network).unwrap(), state);
}

#[test]
fn tensors_beside_the_weights_are_ignored_and_listed() {
    let others: [(&str, &[usize]); 9] = [
        ("conv1.input_quantizer._amax", &[1]),
        ("conv1.pre_ops.0.op.scale", &[2, 1, 1, 1]),
        ("conv1.total_ops", &[1]),
        ("conv1.weight_fake_quant.scale", &[2]),
        ("criterion.weight", &[10]),
        ("fc.weight_mask", &[3, 8]),
        ("fc.weight_quantizer._scale", &[3, 1]),
        ("n_averaged", &[1]),
        ("total_params", &[1]),
    ];
    let found = found(&renamed(str::to_owned, &others));
    assert_eq!(found.key, "");
    assert_eq!(found.ignored, others.map(|(name, _)| name));
    assert!(found.computed.is_empty());
}

#[test]
fn counters_of_batch_norm_are_not_even_listed() {
    let others: [(&str, &[usize]); 1] = [("conv1.num_batches_tracked", &[1])];
    assert!(found(&renamed(str::to_owned, &others)).ignored.is_empty());
}

#[test]
fn optimizers_are_no_place_for_weights() {
    let mut tensors = renamed(|name| format!("state_dict.{name}"), &[]);
    let mut momentum = renamed(|name| format!("optimizer.exp_avg.{name}"), &[]);
    momentum.values_mut().for_each(|parameter| parameter.values.fill(0.0));
    tensors.append(&mut momentum);
    let found = found(&tensors);
    assert_eq!(found.key, "state_dict");
    assert_eq!(found.ignored.len(), 4);
    // The best weights are no optimizer's.
    let tensors = tensors.into_iter();
    let tensors = tensors.map(|(name, tensor)| (name.replace("optimizer", "optimal"), tensor));
    let error = refused(&tensors.collect(), &NameMap::new());
    assert!(matches!(error, CheckpointError::Ambiguous { .. }), "{error}");
}

#[test]
fn two_places_with_different_values_are_refused_unless_a_key_is_given() {
    let mut tensors = renamed(|name| format!("state_dict.{name}"), &[]);
    let mut ema = renamed(|name| format!("ema.module.{name}"), &[]);
    ema.get_mut("ema.module.fc.bias").unwrap().values[2] = 7.0;
    tensors.append(&mut ema);
    let error = refused(&tensors, &NameMap::new());
    let CheckpointError::Ambiguous { keys, .. } = &error else { panic!("{error}") };
    assert_eq!(keys, &["ema.module", "state_dict"]);
    let message = error.to_string();
    assert!(message.contains("`ema.module`, `state_dict`; choose one by its key"), "{message}");
    assert!(message.contains("`--key state_dict`"), "{message}");

    let folder = TempDir::new().unwrap();
    for path in both(&folder, &tensors) {
        let checkpoint = Checkpoint::open(path).unwrap();
        let bias = |key| {
            let names = NameMap::new().key(key);
            checkpoint.state(&network(), &names).unwrap().0["fc.bias"].values[2]
        };
        assert_eq!(bias("ema"), 7.0);
        assert_eq!(bias("ema.module"), 7.0);
        assert_eq!(bias("state_dict"), weights().0["fc.bias"].values[2]);
    }
    // The top of the file is a place like any other; its key is empty.
    let mut tensors = renamed(str::to_owned, &[]);
    let mut wrapped = renamed(|name| format!("module.{name}"), &[]);
    wrapped.get_mut("module.fc.bias").unwrap().values[2] = 7.0;
    tensors.append(&mut wrapped);
    let message = refused(&tensors, &NameMap::new()).to_string();
    assert!(message.contains("the top of the file, `module`"), "{message}");
    for path in both(&folder, &tensors) {
        let checkpoint = Checkpoint::open(path).unwrap();
        let state = checkpoint.state(&network(), &NameMap::new().key("")).unwrap();
        assert_eq!(state, weights());
    }
}

#[test]
fn a_copy_with_the_same_values_is_no_second_place() {
    let mut tensors = renamed(|name| format!("model.{name}"), &[]);
    tensors.append(&mut renamed(|name| format!("best.{name}"), &[]));
    let found = found(&tensors);
    assert_eq!((found.key.as_str(), found.ignored.len()), ("best", 4));
}

#[test]
fn the_integers_of_a_quantized_copy_are_no_second_place() {
    let mut saved = Saved::default();
    let copy: Vec<_> = weights()
        .0
        .iter()
        .map(|(name, parameter)| {
            let storage = saved.storage("CharStorage", vec![1; parameter.values.len()]);
            (name.clone(), Saved::view(storage, 0, &parameter.shape, &strides(&parameter.shape)))
        })
        .collect();
    let root = dict(&[("int8", dict(&copy)), ("model", saved.state(""))]);
    let folder = Folder::new();
    assert_eq!(folder.read(&saved.file(&root)).unwrap().0.key, "model");
    // Unless it is asked for.
    let path = folder.write(&saved.file(&root));
    let error = read(&path, &NameMap::new().key("int8")).unwrap_err();
    assert!(error.to_string().contains("has type int8"), "{error}");
}

#[test]
fn a_place_that_is_nearly_right_does_not_hide_the_right_one() {
    let mut tensors = renamed(|name| format!("student.{name}"), &[]);
    // The teacher has the same layers, one of them wider.
    tensors.append(&mut renamed(|name| format!("a_teacher.{name}"), &[]));
    let wide = Parameter { shape: vec![30, 8], values: vec![0.0; 240] };
    tensors.insert("a_teacher.fc.weight".to_owned(), wide);
    assert_eq!(found(&tensors).key, "student");
}

#[test]
fn layers_within_the_networks_blocks_make_another_network() {
    let network = Network::builder("blocks", [1, 1, 2])
        .flatten("flatten")
        .linear("layer1.0.fc", 2)
        .linear("layer1.1.fc", 2)
        .build()
        .unwrap();
    let state = |depth: usize| {
        let layer = |block| {
            let weight = Parameter { shape: vec![2, 2], values: vec![0.5; 4] };
            let bias = Parameter { shape: vec![2], values: vec![0.5; 2] };
            [
                (format!("model.layer1.{block}.fc.weight"), weight),
                (format!("model.layer1.{block}.fc.bias"), bias),
            ]
        };
        Weights((0..depth).flat_map(layer).collect())
    };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("blocks.safetensors");
    safetensors::save(&path, &state(2)).unwrap();
    releq_format::load(&path, &network).unwrap();
    // A deeper network has all parameters of this one, which would be wrong without the rest.
    safetensors::save(&path, &state(3)).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let message = checkpoint.check(&network, &NameMap::new()).unwrap_err().to_string();
    assert!(
        message.contains(
            "(under `model`: unexpected: model.layer1.2.fc.bias, model.layer1.2.fc.weight)"
        ),
        "{message}"
    );
    let found = checkpoint.check(&network, &NameMap::new().ignore("layer1.2")).unwrap();
    assert_eq!(found.ignored, ["model.layer1.2.fc.bias", "model.layer1.2.fc.weight"]);
}

#[test]
fn a_key_without_tensors_is_an_error_that_lists_the_keys() {
    let tensors = renamed(|name| format!("ema.{name}"), &[("best.x", &[1])]);
    let error = refused(&tensors, &NameMap::new().key("em"));
    let message = error.to_string();
    assert!(message.contains("no tensors under the key `em`"), "{message}");
    assert!(message.contains("`best`, `ema`"), "{message}");
}

#[test]
fn what_is_missing_is_listed_for_the_closest_place() {
    let mut tensors = renamed(|name| format!("model.{name}"), &[("other.conv1.bias", &[2])]);
    tensors.remove("model.fc.bias");
    let error = refused(&tensors, &NameMap::new());
    assert!(error.to_string().contains("(under `model`: missing: fc.bias)"), "{error}");
    let CheckpointError::Mismatch { mismatch, .. } = error else { panic!("{error}") };
    assert_eq!(mismatch.missing, ["fc.bias"]);
    assert!(mismatch.unexpected.is_empty() && mismatch.shapes.is_empty());
}

#[test]
fn pruned_weights_are_multiplied_by_their_masks() {
    let mut tensors = renamed(str::to_owned, &[]);
    let whole = tensors.remove("fc.weight").unwrap();
    let mut mask = Parameter { values: vec![1.0; whole.values.len()], ..whole.clone() };
    mask.values[5] = 0.0;
    tensors.insert("fc.weight_orig".to_owned(), whole.clone());
    tensors.insert("fc.weight_mask".to_owned(), mask);
    let folder = TempDir::new().unwrap();
    for path in both(&folder, &tensors) {
        let (found, state) = read(&path, &NameMap::new()).unwrap();
        let mut expected = whole.clone();
        expected.values[5] = 0.0;
        assert_eq!(state.0["fc.weight"], expected);
        assert_eq!(found.computed, ["fc.weight = weight_orig * weight_mask"]);
        assert!(found.ignored.is_empty());
    }
    // Without the mask, it cannot be told what the weight is.
    tensors.remove("fc.weight_mask");
    let message = refused(&tensors, &NameMap::new()).to_string();
    assert!(message.contains("missing: fc.weight; unexpected: fc.weight_orig"), "{message}");
    assert!(message.contains("remove_parametrizations"), "{message}");
    // A mask of another shape is no mask of this weight.
    tensors.insert("fc.weight_mask".to_owned(), Parameter { shape: vec![1], values: vec![1.0] });
    refused(&tensors, &NameMap::new());
}

#[test]
fn normalized_weights_are_given_their_norms() {
    // Rows of norm 5 and 13.
    let direction = Parameter { shape: vec![2, 2], values: vec![3.0, 4.0, 5.0, 12.0] };
    let network =
        Network::builder("two", [1, 1, 2]).flatten("flatten").linear("fc", 2).build().unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("two.safetensors");
    let check = |names: [&str; 2], norm: Parameter, expected: [f32; 4]| {
        let bias = Parameter { shape: vec![2], values: vec![0.0; 2] };
        let tensors = [(names[0], norm), (names[1], direction.clone()), ("fc.bias", bias)];
        let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor));
        safetensors::save(&path, &Weights(tensors.collect())).unwrap();
        let got = releq_format::load(&path, &network).unwrap().0["fc.weight"].values.clone();
        let close = got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6);
        assert!(close, "{got:?} is not {expected:?}");
    };
    let old = ["fc.weight_g", "fc.weight_v"];
    let new = ["fc.parametrizations.weight.original0", "fc.parametrizations.weight.original1"];
    for names in [old, new] {
        // A norm for every row, for every column (of norm sqrt(34) and sqrt(160)), and for all (sqrt(194)).
        let norm = Parameter { shape: vec![2, 1], values: vec![10.0, 26.0] };
        check(names, norm, [6.0, 8.0, 10.0, 24.0]);
        let norm = Parameter { shape: vec![1, 2], values: vec![34.0_f32.sqrt(), 640.0_f32.sqrt()] };
        check(names, norm, [3.0, 8.0, 5.0, 24.0]);
        let norm = Parameter { shape: Vec::new(), values: vec![194.0_f32.sqrt() / 2.0] };
        check(names, norm, [1.5, 2.0, 2.5, 6.0]);
    }
}

#[test]
fn of_distillers_two_copies_the_unquantized_one_is_read() {
    let mut tensors = renamed(|name| format!("state_dict.module.{name}"), &[]);
    let mut float = tensors["state_dict.module.fc.weight"].clone();
    float.values[0] = 7.0;
    tensors.insert("state_dict.module.fc.float_weight".to_owned(), float.clone());
    let folder = TempDir::new().unwrap();
    for path in both(&folder, &tensors) {
        let (found, state) = read(&path, &NameMap::new()).unwrap();
        assert_eq!(state.0["fc.weight"], float);
        assert_eq!(found.computed, ["fc.weight = float_weight"]);
        assert_eq!(found.ignored, ["state_dict.module.fc.weight"]);
    }
}

#[test]
fn one_dictionary_under_two_keys_is_one_place() {
    let mut saved = Saved::default();
    // The second is a reference to the first, remembered when it was still empty.
    let state = saved.state("");
    let first = [&state[..1], b"q\x01", &state[1..]].concat();
    let root = dict(&[("last", first), ("state_dict", b"h\x01".to_vec())]);
    let folder = Folder::new();
    let path = folder.write(&saved.file(&root));
    for key in [None, Some("last"), Some("state_dict")] {
        let names = key.map_or(NameMap::new(), |key| NameMap::new().key(key));
        let (found, state) = read(&path, &names).unwrap();
        assert_eq!(state, weights());
        assert_eq!(found.key, key.unwrap_or("last"));
        assert!(found.ignored.is_empty());
    }
}

#[test]
fn keys_that_have_the_same_name_are_not_one_place() {
    let folder = Folder::new();
    let keyed = |keys: [Vec<u8>; 2], equal: bool| {
        let mut saved = Saved::default();
        let one = saved.state("");
        let (name, mut changed) = weights().0.into_iter().next().unwrap();
        if !equal {
            changed.values[0] += 1.0;
        }
        let changed = saved.tensor(&changed);
        let other = saved.state_with("", &[(&name, changed)]);
        let [first, second] = keys;
        let root = [b"}(".to_vec(), first, one, second, other, b"u".to_vec()].concat();
        saved.file(&root)
    };
    let none = || b"N".to_vec();
    for keys in [
        [float(0.5), float(0.9)],
        [none(), tuple(&[int(1)])],
        [int(1), text("1")],
        [text("?"), none()],
    ] {
        let message = folder.refused(&keyed(keys.clone(), false));
        assert!(message.contains("has two values of parameter"), "{message}");
        assert_eq!(folder.read(&keyed(keys, true)).unwrap().1, weights());
    }
}

#[test]
fn the_root_may_be_a_sequence_or_an_object() {
    let folder = Folder::new();
    let mut saved = Saved::default();
    let state = saved.state("");
    let list = [b"](", &[float(0.99), state.clone()].concat()[..], b"e"].concat();
    assert_eq!(folder.read(&saved.file(&list)).unwrap().0.key, "1");
    let root = tuple(&[state.clone(), float(0.99)]);
    assert_eq!(folder.read(&saved.file(&root)).unwrap().0.key, "0");
    let attributes = dict(&[("net", state.clone())]);
    let namespace =
        [global("argparse", "Namespace"), b")\x81".to_vec(), attributes, b"b".to_vec()].concat();
    assert_eq!(folder.read(&saved.file(&namespace)).unwrap().0.key, "net");
    // Python 2 wrote ordered dictionaries as lists of pairs.
    let pairs: Vec<Vec<u8>> = weights()
        .0
        .iter()
        .map(|(name, parameter)| tuple(&[text(name), saved.tensor(parameter)]))
        .collect();
    let ordered = call("collections", "OrderedDict", &[tuple(&pairs)]);
    assert_eq!(folder.read(&saved.file(&ordered)).unwrap().1, weights());

    assert!(folder.refused(&saved.file(&float(1.0))).contains("holds no tensors"));
}

#[test]
fn both_parts_of_a_packed_quantized_layer_are_found() {
    let mut saved = Saved::default();
    let [weight, bias] = ["fc.weight", "fc.bias"].map(|name| saved.tensor(&weights().0[name]));
    let conv: Vec<_> =
        ["conv1.weight", "conv1.bias"].map(|name| (name, saved.tensor(&weights().0[name]))).into();
    let packed = ("fc._packed_params._packed_params", tuple(&[weight, bias]));
    let root = dict(&[conv, vec![packed]].concat());
    assert_eq!(Folder::new().read(&saved.file(&root)).unwrap().1, weights());
}
