//! The zoo's networks against the shapes read off the authors' models; needs `RELEQ_DATA_DIR`.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::BTreeMap;

use releq::{core::LayerKind, train::initial_weights, zoo};
use releq_test_support::data_dir;

fn rows(file: &str) -> Option<Vec<BTreeMap<String, String>>> {
    let path = data_dir()?.join("hw-reference").join(file);
    Some(csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect())
}

#[test]
fn every_layer_has_the_reference_shape() {
    let Some(rows) = rows("layer_shapes.csv") else { return };
    let mut seen = 0;
    for name in zoo::NAMES {
        let expected: Vec<_> = rows.iter().filter(|row| row["network"] == name).collect();
        // The first is ours, the second is `resnet20` less two layers, the third `mobilenet_v1` with other padding.
        if ["svhn10", "resnet20_option_a", "mobilenet_v1_tf"].contains(&name) {
            assert!(expected.is_empty(), "{name} has a reference now: compare with it");
            continue;
        }
        let layers = zoo::by_name(name).unwrap().profiles();
        assert_eq!(layers.len(), expected.len(), "{name}");
        for (layer, row) in layers.iter().zip(expected) {
            let kind = match layer.kind {
                LayerKind::Conv2d if layer.groups > 1 => "dw",
                LayerKind::Conv2d => "conv",
                LayerKind::Linear => "fc",
                _ => "dw",
            };
            assert_eq!((layer.name.as_str(), kind), (row["layer"].as_str(), row["type"].as_str()));
            for (column, value) in [
                ("in_ch", layer.in_channels as u64),
                ("in_h", layer.in_height as u64),
                ("in_w", layer.in_width as u64),
                ("out_ch", layer.out_channels as u64),
                ("kernel", layer.kernel.equal().unwrap() as u64),
                ("stride", layer.stride.equal().unwrap() as u64),
                ("pad", layer.padding.equal().unwrap() as u64),
                ("groups", layer.groups as u64),
                ("out_h", layer.out_height as u64),
                ("out_w", layer.out_width as u64),
                ("weights", layer.weights()),
                ("macs", layer.macs()),
            ] {
                assert_eq!(row[column], value.to_string(), "{name} {} {column}", layer.name);
            }
            seen += 1;
        }
    }
    assert_eq!(seen, rows.len());
}

#[test]
fn every_network_has_the_reference_number_of_parameters() {
    let Some(rows) = rows("network_totals.csv") else { return };
    for row in rows {
        // 246 MB of random numbers for the two largest would only slow the test down.
        let network = zoo::by_name(&row["network"]).unwrap();
        let total: u64 = row["total_params"].parse().unwrap();
        if total < 20_000_000 {
            let state = initial_weights(&network, 0);
            assert_eq!(state.trainable_values() as u64, total, "{}", network.name());
        }
        let weights: u64 = network.profiles().iter().map(|layer| layer.weights()).sum();
        assert_eq!(row["weights"], weights.to_string(), "{}", network.name());
    }
}
