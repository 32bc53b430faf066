//! Reports of any size, made up without training: a policy that settles on what the layers need, and an accuracy
//! that follows a formula.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every program that includes this uses a part of it"
)]

use std::sync::Arc;

use releq::{
    Choice, ExperimentConfig, NetworkConfig, Report,
    core::{
        Bitwidth, BitwidthAssignment, CostModel, LayerBits, LayerProfile, Network,
        checked_network_cost,
    },
    hw::{CostKind, Machine},
};
use serde_json::{Value, json};

/// SplitMix64: the same numbers for the same seed everywhere.
struct Random(u64);

impl Random {
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A chain of convolutions and a linear layer: `layers` quantizable layers with names as frameworks give them.
pub(crate) fn chain(layers: usize) -> Network {
    let mut builder = Network::builder(format!("chain{layers}"), [3, 32, 32]);
    for layer in 0..layers.saturating_sub(1) {
        let channels = 16 << (3 * layer / layers.max(1));
        let name = format!("features.stage{}.block{}.conv", 3 * layer / layers, layer);
        builder = builder
            .conv(name, releq::core::Conv2d::new(channels, 3).padding(1))
            .relu(format!("relu{layer}"));
    }
    builder.global_avg_pool("pool").flatten("flatten").linear("classifier", 10).build().unwrap()
}

const ACTIONS: [u8; 7] = [2, 3, 4, 5, 6, 7, 8];
const FULL_PRECISION: f64 = 0.9132;

/// What the network is like at certain bits.
struct World {
    profiles: Vec<LayerProfile>,
    needs: Vec<u8>,
    noise: Random,
}

impl World {
    fn accuracy(&mut self, bits: &[u8], noise: f64) -> f64 {
        let missing: f64 = bits
            .iter()
            .zip(&self.needs)
            .map(|(&b, &need)| 4_f64.powi(i32::from(need.saturating_sub(b))) - 1.0)
            .sum();
        let lost = 1.0 - (-0.05 * missing * 8.0 / bits.len() as f64).exp();
        let noise = noise * (self.noise.share() - 0.5);
        (FULL_PRECISION * (1.0 - 0.85 * lost) + noise).clamp(0.1, 0.999)
    }

    fn cost(&self, model: &dyn CostModel, bits: &[Bitwidth]) -> Option<f64> {
        let bits: Vec<LayerBits> = bits.iter().map(|&b| LayerBits::weights_only(b)).collect();
        checked_network_cost(model, &self.profiles, &bits).ok().map(|cost| cost.0)
    }

    fn scored(&mut self, bits: &[u8]) -> Value {
        let accuracy = self.accuracy(bits, 0.006);
        let acc_state = accuracy / FULL_PRECISION;
        let quant_state = bits.iter().map(|&b| f64::from(b)).sum::<f64>() / 8.0 / bits.len() as f64;
        json!({
            "bits": text(bits),
            "accuracy": accuracy,
            "standard_error": (accuracy * (1.0 - accuracy) / 2000.0).sqrt(),
            "acc_state": acc_state,
            "quant_state": quant_state,
            "reward": (1.0 - quant_state.powf(0.2)) * acc_state.powf(4.0) + acc_state - 1.0,
        })
    }
}

fn text(bits: &[u8]) -> Value {
    serde_json::to_value(BitwidthAssignment::from_bits(bits.iter().copied()).unwrap()).unwrap()
}

/// A search of so many evaluations, eight episodes to a batch; with a policy, one that settles.
fn search(world: &mut World, agent: &str, evaluations: usize, seed: u64, learns: bool) -> Value {
    let mut random = Random(seed);
    let layers = world.needs.len();
    let (mut scored, mut history) = (Vec::new(), Vec::new());
    let mut seen = std::collections::BTreeSet::new();
    let mut episodes = 0;
    while scored.len() < evaluations {
        let progress = if learns { scored.len() as f64 / evaluations as f64 } else { 0.0 };
        let distributions: Vec<Vec<f64>> = (0..layers)
            .map(|layer| {
                let weights: Vec<f64> = ACTIONS
                    .iter()
                    .map(|&action| {
                        let distance = (f64::from(action) - f64::from(world.needs[layer])).abs();
                        (-5.0 * progress * (1.0 + layer as f64 / layers as f64) * distance).exp()
                    })
                    .collect();
                let sum: f64 = weights.iter().sum();
                weights.iter().map(|weight| weight / sum).collect()
            })
            .collect();
        let mut batch: Vec<Value> = Vec::new();
        for _ in 0..8 {
            let mut bits: Vec<u8> = distributions
                .iter()
                .map(|distribution| {
                    let mut rest = random.share();
                    let chosen = distribution.iter().position(|p| {
                        rest -= p;
                        rest < 0.0
                    });
                    ACTIONS[chosen.unwrap_or(ACTIONS.len() - 1)]
                })
                .collect();
            // A settled policy repeats itself; a repetition is measured at a neighbour, to have enough.
            while !seen.insert(bits.clone()) && layers > 3 {
                let layer = (random.share() * layers as f64) as usize;
                bits[layer] = ACTIONS[(random.share() * 7.0) as usize];
            }
            batch.push(world.scored(&bits));
        }
        episodes += 8;
        let room = evaluations - scored.len();
        scored.extend(batch.iter().take(room).cloned());
        let mean = |key: &str| batch.iter().map(|s| s[key].as_f64().unwrap()).sum::<f64>() / 8.0;
        let rounded = |p: &f64| (p * 1e4).round() / 1e4;
        let probabilities: Vec<Vec<f64>> =
            distributions.iter().map(|d| d.iter().map(rounded).collect()).collect();
        let entropy = distributions[0].iter().map(|p| -p * p.max(1e-12).ln()).sum::<f64>();
        let mut record = json!({
            "episodes": episodes,
            "evaluations": scored.len(),
            "mean_reward": mean("reward"),
            "mean_acc_state": mean("acc_state"),
            "mean_quant_state": mean("quant_state"),
            "update": {
                "mean_return": mean("reward"),
                "policy_loss": if learns { -0.02 * random.share() } else { 0.0 },
                "value_loss": if learns { 0.3 * (-3.0 * progress).exp() * random.share() } else { 0.0 },
                "entropy": if learns { entropy } else { 0.0 },
                "approx_kl": if learns { 0.01 * random.share() } else { 0.0 },
                "clip_fraction": if learns { 0.2 * random.share() } else { 0.0 },
                "explained_variance": if learns { progress * random.share() } else { 0.0 },
            },
        });
        if learns {
            record["action_probabilities"] = json!(probabilities);
        }
        history.push(record);
    }
    let best = scored
        .iter()
        .max_by(|a, b| a["reward"].as_f64().unwrap().total_cmp(&b["reward"].as_f64().unwrap()));
    json!({
        "agent": agent,
        "stop": "evaluations",
        "episodes": episodes,
        "evaluations": scored.len(),
        "failures": 0,
        "greedy": null,
        "best": best,
        "scored": scored,
        "history": history,
        "times": { "seconds": 3120.0, "evaluation_seconds": 3101.5 },
    })
}

/// A report of a search of so many evaluations on `network`.
pub(crate) fn report(network: &Network, evaluations: usize, seed: u64) -> Report {
    serde_json::from_value(value(network, evaluations, seed)).unwrap()
}

/// The same as JSON, for changes that the library does not allow.
pub(crate) fn value(network: &Network, evaluations: usize, seed: u64) -> Value {
    let profiles = network.profiles();
    let layers = profiles.len();
    let mut random = Random(seed);
    let needs: Vec<u8> = (0..layers)
        .map(|layer| match layer {
            _ if layer == 0 || layer + 1 == layers => 5,
            _ => 2 + (random.share() * 2.6) as u8,
        })
        .collect();
    let mut world = World { profiles, needs, noise: random };

    let mut config = ExperimentConfig::preset(network.name(), seed)
        .unwrap_or_else(|| ExperimentConfig::lenet(seed));
    config.network = Some(NetworkConfig::from(network));
    config.fixed_layers.clear();
    config.report_costs = ["size", "stripes", "stripes-energy", "bitserial-cpu"]
        .map(|name| Choice::Ours(name.parse::<CostKind>().unwrap()))
        .to_vec();
    let models: Vec<Arc<dyn CostModel>> = config
        .report_costs
        .iter()
        .map(|kind| match kind {
            Choice::Ours(kind) => kind.build().unwrap(),
            Choice::Own(_) => unreachable!(),
        })
        .collect();

    let found = search(&mut world, "ppo", evaluations, seed, true);
    let comparisons = [
        search(&mut world, "random", evaluations, seed + 1, false),
        search(&mut world, "greedy", (evaluations / 2).min(7 * layers), seed + 2, false),
    ];
    let answer = world.needs.clone();
    let off = |by: u8| -> Vec<u8> { answer.iter().map(|b| (b + by).min(8)).collect() };
    let mut rows = Vec::new();
    let assignments = [
        ("releq", answer.clone()),
        ("random search", off(2)),
        ("greedy search", off(1)),
        ("full precision", Vec::new()),
        ("published", off(1).into_iter().rev().collect()),
        ("uniform 8", vec![8; layers]),
        ("uniform 4", vec![4; layers]),
        ("uniform 3", vec![3; layers]),
        ("uniform 2", vec![2; layers]),
    ];
    for (label, bits) in assignments {
        let float = bits.is_empty();
        let assignment = if float {
            BitwidthAssignment::uniform(Bitwidth::FLOAT, layers).unwrap()
        } else {
            BitwidthAssignment::from_bits(bits.iter().copied()).unwrap()
        };
        let mut accuracy = || if float { FULL_PRECISION } else { world.accuracy(&bits, 0.003) };
        let (validation, test) = (accuracy(), accuracy());
        let quant_state = (!float).then(|| assignment.mean() / 8.0);
        let eight = vec![Bitwidth::EIGHT; layers];
        let costs: Vec<Value> = models
            .iter()
            .filter_map(|model| {
                Some(json!({
                    "model": model.name(),
                    "unit": model.unit(),
                    "cost": world.cost(&**model, &assignment)?,
                    "at_eight_bits": world.cost(&**model, &eight)?,
                }))
            })
            .collect();
        rows.push(json!({
            "label": label,
            "bits": assignment,
            "mean_bits": assignment.mean(),
            "validation_accuracy": validation,
            "test_accuracy": test,
            "loss_points": 100.0 * (FULL_PRECISION - test),
            "loss_standard_error": if float { 0.0 } else { 0.31 },
            "quant_state": quant_state,
            "costs": costs,
        }));
    }
    let layers: Vec<Value> = world
        .profiles
        .iter()
        .zip(&answer)
        .map(|(layer, bits)| {
            json!({
                "name": layer.name,
                "weights": layer.weights(),
                "macs": layer.macs(),
                "weight_std": 0.05,
                "bits": bits,
            })
        })
        .collect();
    json!({
        "config": config,
        "data": "CIFAR-10, made up",
        "images": [45_000, 5_000, 10_000],
        "full_precision_validation": FULL_PRECISION - 0.002,
        "full_precision_test": FULL_PRECISION - 0.003,
        "reference": {
            "validation_accuracy": FULL_PRECISION,
            "test_accuracy": FULL_PRECISION,
            "retrained": true,
        },
        "layers": layers,
        "answer": { "label": "releq", "bits": text(&answer), "within_tolerance": true },
        "rounded": { "weights_only": 0.8731, "with_activations": 0.8719, "calibration_images": 300 },
        "chosen": text(&answer),
        "rows": rows,
        "search": found,
        "comparisons": comparisons,
        "cancelled": false,
        "version": "0.1.0",
        "machine": Machine::this(),
        "times": { "pretrain": 913.4, "search": 3120.0, "comparisons": 2804.0, "final": 1530.2 },
    })
}
