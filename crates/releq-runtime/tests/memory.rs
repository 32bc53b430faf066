//! What a process holds that has loaded a network: its weights as the kernels want them, and little else.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use releq_core::{Bitwidth, Conv2d, Network, Parameter, Weights, parameter_shapes};
use releq_format::{
    QuantizedNetwork,
    packed::{self, Packed},
};
use releq_quant::{ActivationGrid, ActivationGrids, Quantized};
use releq_runtime::{Model, Options};

/// Names the file to load in the process that is measured, which has done nothing before.
const FILE: &str = "RELEQ_MEMORY_TEST_FILE";
/// What loading and a run may take beyond the weights, in bytes: blocks of weights on their way, activations, and code that is
/// touched for the first time. A byte for every weight is 8 MB.
const BESIDE: u64 = 4 << 20;

/// Convolutions, and a fully connected layer with 8,388,608 weights.
fn write(path: &Path, bits: u8) {
    let network = Network::builder("wide", [3, 16, 16])
        .conv("first", Conv2d::new(16, 3).padding(1))
        .relu("first_relu")
        .conv("second", Conv2d::new(32, 3).padding(1))
        .relu("second_relu")
        .flatten("flat")
        .linear("wide", 1024)
        .relu("wide_relu")
        .linear("classes", 10)
        .build()
        .unwrap();
    let bits = Bitwidth::new(bits).unwrap();
    let (mut floats, mut codes) = (Weights(BTreeMap::new()), BTreeMap::new());
    let mut seed = 1_u32;
    for (name, shape) in parameter_shapes(&network) {
        let count: usize = shape.iter().product();
        let Some(layer) = name.strip_suffix(".weight") else {
            floats.0.insert(name, Parameter { values: vec![0.5; count], shape });
            continue;
        };
        let code = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> (32 - bits.get())) as u8
        };
        let zero_point = f32::from(1_u8 << (bits.get() - 1));
        let quantized =
            Quantized::new((0..count).map(code).collect(), vec![0.01], zero_point, bits);
        codes.insert(layer.to_owned(), quantized.unwrap());
    }
    let grid = ActivationGrid::of_range(0.0, 4.0, Bitwidth::EIGHT).unwrap();
    let layers = ["first_relu", "second_relu", "flat", "wide_relu"];
    let layers = layers.map(|name| (name.to_owned(), grid)).into();
    let model = QuantizedNetwork::from_parts(network, floats, codes, None).unwrap();
    let activations = Some(ActivationGrids { input: grid, layers });
    packed::save(path, &Packed { activations, ..Packed::from(model) }).unwrap();
}

/// Bytes of an entry of the status of this process.
fn status(entry: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(entry)).unwrap();
    1024 * line.trim_matches(|char: char| !char.is_ascii_digit()).parse::<u64>().unwrap()
}

/// Loads a network and computes an image, in a process that does nothing else.
fn measure(path: &Path) {
    let before = status("VmRSS:");
    let mut model = Model::load(path, &Options::default()).unwrap();
    let image = vec![1.0; model.input().iter().product()];
    let mut outputs = vec![0.0; model.outputs()];
    model.run(&image, &mut outputs).unwrap();
    assert!(model.layers().all(|layer| !layer.is_float));
    let weights: u64 = model.layers().map(|layer| layer.bytes as u64).sum();
    for entry in ["VmRSS:", "VmHWM:"] {
        let taken = status(entry).saturating_sub(before);
        assert!(taken <= weights + BESIDE, "{entry} {taken} bytes, of which weights {weights}");
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "it reads /proc/self/status")]
fn loading_takes_little_more_than_the_weights() {
    if let Some(path) = env::var_os(FILE) {
        return measure(Path::new(&path));
    }
    let folder = tempfile::tempdir().unwrap();
    for bits in [4, 8] {
        let path = folder.path().join("wide.safetensors");
        write(&path, bits);
        let this = Command::new(env::current_exe().unwrap())
            .args(["--exact", "loading_takes_little_more_than_the_weights", "--nocapture"])
            .env(FILE, &path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&this.stderr);
        assert!(this.status.success(), "{bits} bits: {text}");
    }
}
