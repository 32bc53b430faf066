//! Training steps and classification, images per second on one thread: the native trainer beside Burn `flex`.
//!
//! ```text
//! cargo bench --bench retrain                                      # all networks, both trainers
//! cargo bench --bench retrain -- lenet                             # those with this in their name
//! cargo bench --bench retrain -- --peer lenet train native 8 128   # one figure at full precision, for peers/retrain.py; also model.onnx
//! cargo bench --bench retrain -- --peer lenet train,infer wgpu 1 64,512 float,4   # eight figures on a GPU, for peers/gpu.py
//! ```
//!
//! A round runs each variant for a moment, in turn, so that a busy machine hits all alike; the table gives
//! medians over rounds.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark talks and may fail loudly"
)]

use std::time::Instant;

use releq::{
    core::Network,
    format::onnx,
    quant::QuantizerKind,
    train::{Backend, Batch, Sgd, Trainer, TrainerFactory},
    zoo,
};

/// Images in a training step, and in one classification.
const TRAIN_BATCH: usize = 128;
const INFER_BATCH: usize = 256;
/// Images where this runs as a test.
const TEST_BATCH: usize = 2;
const ROUNDS: usize = 7;
/// Seconds that a variant runs in a round.
const MOMENT: f64 = 0.7;

/// One trainer with its batch.
struct Variant {
    trainer: Box<dyn Trainer>,
    images: Vec<f32>,
    labels: Vec<u16>,
    trains: bool,
}

impl Variant {
    fn new(
        network: &Network,
        backend: Backend,
        trains: bool,
        quantizer: Option<QuantizerKind>,
        batch: Option<usize>,
    ) -> Self {
        let mut trainer = backend.trainer(network, quantizer.unwrap_or_default().build()).unwrap();
        if quantizer.is_some() {
            let bits = vec!["4"; network.quantizable_layers()].join("-");
            trainer.set_bits(Some(&bits.parse().unwrap())).unwrap();
        }
        let batch = batch.unwrap_or(if trains { TRAIN_BATCH } else { INFER_BATCH });
        let pixels = batch * network.input().iter().product::<usize>();
        // Any numbers do: the work does not depend on them.
        let images = (0..pixels).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect();
        let labels = (0..batch).map(|i| (i % network.outputs()) as u16).collect();
        Self { trainer, images, labels, trains }
    }

    fn step(&mut self) {
        let sgd = Sgd { learning_rate: 1e-3, momentum: 0.9, weight_decay: 0.0 };
        if self.trains {
            self.trainer.train_step(&Batch::labelled(&self.images, &self.labels), sgd).unwrap();
        } else {
            self.trainer.logits(&self.images).unwrap();
        }
    }

    /// Images per second of every step in so many seconds, at least one.
    fn rates(&mut self, seconds: f64, rates: &mut Vec<f64>) {
        let start = Instant::now();
        loop {
            let step = Instant::now();
            self.step();
            rates.push(self.labels.len() as f64 / step.elapsed().as_secs_f64());
            if start.elapsed().as_secs_f64() > seconds {
                return;
            }
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Peak memory of this process in MB, where the system tells.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok())
        .map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
}

/// Prints figures for `peers/`: images per second, peak memory in MB, and the seconds of the first step, in a line for
/// every combination of the comma-separated modes, batches and bitwidths.
fn peer(arguments: &[String]) {
    let [network, modes, backend, seconds, batches, rest @ ..] = arguments else {
        println!(
            "usage: --peer <network> <train|infer> <backend> <seconds> <batch> [<float|bits>]"
        );
        return;
    };
    // The weights do not matter, except that at random ones a deep network's outputs soon are no numbers.
    let (network, weights) = if network.ends_with(".onnx") {
        let model = onnx::open(network).unwrap();
        (model.network, Some(model.weights))
    } else {
        (zoo::by_name(network).unwrap(), None)
    };
    let backend: Backend = backend.parse().unwrap();
    let precisions = rest.first().map_or("float", String::as_str);
    for mode in modes.split(',') {
        for batch in batches.split(',') {
            for bits in precisions.split(',') {
                let quantizer = (bits != "float").then_some(QuantizerKind::WrpnScaled);
                let (trains, batch) = (mode == "train", Some(batch.parse().unwrap()));
                let mut variant = Variant::new(&network, backend, trains, quantizer, batch);
                weights.iter().for_each(|weights| variant.trainer.load(weights).unwrap());
                if bits != "float" {
                    let bits = vec![bits; network.quantizable_layers()].join("-");
                    variant.trainer.set_bits(Some(&bits.parse().unwrap())).unwrap();
                }
                // A GPU's kernels are compiled in the first step, and perhaps others in the second.
                let start = Instant::now();
                variant.step();
                let first = start.elapsed().as_secs_f64();
                variant.step();
                let mut rates = Vec::new();
                variant.rates(seconds.parse().unwrap(), &mut rates);
                println!("{:.1} {:.1} {first:.3}", median(rates), peak_memory());
            }
        }
    }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench` passes `--bench`, `cargo test --benches` does not: there, as with Criterion, everything runs once,
    // on few images.
    let is_measuring = arguments.iter().any(|a| a == "--bench");
    let (rounds, moment, batch) =
        if is_measuring { (ROUNDS, MOMENT, None) } else { (1, 0.0, Some(TEST_BATCH)) };
    arguments.retain(|a| a != "--bench");
    if arguments.first().is_some_and(|a| a == "--peer") {
        return peer(&arguments[1..]);
    }
    let filter = arguments.iter().find(|a| !a.starts_with('-'));
    println!("images per second on one thread, medians of {rounds} round(s) in turn");
    println!(
        "{:<14} {:<10} {:>10} {:>10} {:>12} {:>8}",
        "network", "work", "flex", "native", "nat., 4 bits", "ratio"
    );
    for name in ["lenet", "simplenet", "svhn10", "vgg11", "resnet20"] {
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let network = zoo::by_name(name).unwrap();
        for trains in [true, false] {
            let scaled = Some(QuantizerKind::WrpnScaled);
            let mut variants = [
                Variant::new(&network, Backend::Flex, trains, None, batch),
                Variant::new(&network, Backend::Native, trains, None, batch),
                Variant::new(&network, Backend::Native, trains, scaled, batch),
            ];
            variants.iter_mut().for_each(Variant::step);
            let mut rates = [(); 3].map(|()| Vec::new());
            for _ in 0..rounds {
                for (variant, rates) in variants.iter_mut().zip(&mut rates) {
                    variant.rates(moment, rates);
                }
            }
            let [flex, native, quantized] = rates.map(median);
            println!(
                "{name:<14} {:<10} {flex:>10.0} {native:>10.0} {quantized:>12.0} {:>7.2}x",
                if trains { "training" } else { "inference" },
                native / flex,
            );
        }
    }
}
