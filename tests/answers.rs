//! Recorded answers: a change that is not meant to move them must leave them equal to the last bit.
//!
//! Floating-point sums differ between instruction sets, so a recording holds for the kind of processor
//! that it names and is skipped on others. After a change that is meant to move answers, record them
//! anew with `RELEQ_RECORD=1 cargo test -p releq-tests --test answers` and say why in the commit.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail loudly")]

use std::{fs, num::NonZeroUsize, path::PathBuf};

use releq::{
    Budget, Cancel, Experiment, ExperimentConfig, Problem, Report, RowCost, Scored, Search,
    SearchLayer, SearchOutcome,
    agent::PpoConfig,
    data::{
        ImageSet, Splits,
        digits::{self, DigitsConfig},
    },
    evaluate::{OnMiss, Table},
    train::Length,
    zoo,
};
use releq_test_support::{data_dir, processor};
use serde_json::{Value, json};

/// Compares `got` with the recording of this name.
fn check(name: &str, got: &Value) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/answers_{name}.json"));
    let got = json!({ "processor": processor(), "answers": got });
    if std::env::var_os("RELEQ_RECORD").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&got).unwrap() + "\n").unwrap();
        return;
    }
    let recorded: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    if recorded["processor"] != got["processor"] {
        eprintln!("skipped: {name} was recorded on {}", recorded["processor"]);
        return;
    }
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let (expected, got) = (text(&recorded), text(&got));
    for (line, (expected, got)) in expected.lines().zip(got.lines()).enumerate() {
        assert_eq!(got, expected, "answers_{name}.json, line {}", line + 1);
    }
    assert_eq!(got.lines().count(), expected.lines().count(), "answers_{name}.json");
}

fn scored(scored: &Scored) -> Value {
    json!([
        scored.bits.to_string(),
        scored.accuracy,
        scored.acc_state,
        scored.quant_state,
        scored.reward
    ])
}

fn outcome(outcome: &SearchOutcome) -> Value {
    let history: Vec<Value> = outcome
        .history
        .iter()
        .map(|batch| json!([batch.episodes, batch.mean_reward, batch.update.policy_loss]))
        .collect();
    json!({
        "agent": outcome.agent,
        "stop": outcome.stop,
        "episodes": outcome.episodes,
        "greedy": outcome.greedy.as_ref().map(scored),
        "best": outcome.best.as_ref().map(scored),
        "scored": outcome.scored.iter().map(scored).collect::<Vec<_>>(),
        "last_updates": &history[history.len().saturating_sub(3)..],
    })
}

fn report(report: &Report) -> Value {
    let rows: Vec<Value> = report
        .rows
        .iter()
        .map(|row| {
            json!([
                row.label,
                row.bits.to_string(),
                row.validation_accuracy,
                row.test_accuracy,
                row.quant_state,
                row.cost("stripes").map(RowCost::saving),
            ])
        })
        .collect();
    json!({
        "images": report.images,
        "full_precision": [report.full_precision_validation, report.full_precision_test],
        "reference": report.reference,
        "answer": report.answer,
        "chosen": report.chosen.as_ref().map(ToString::to_string),
        "weight_stds": report.layers.iter().map(|layer| layer.weight_std).collect::<Vec<_>>(),
        "rows": rows,
        "search": outcome(&report.search),
        "comparisons": report.comparisons.iter().map(outcome).collect::<Vec<_>>(),
    })
}

/// The live agent on the authors' measurements of LeNet.
#[test]
fn lenet_table_ten_seeds() {
    let Some(folder) = data_dir() else { return };
    let path = folder.join("releq-accuracy-tables/lenet.csv");
    let table = Table::read(path, OnMiss::Error).unwrap().with_full_precision(0.998).unwrap();
    let layer = |profile| SearchLayer { profile, weight_std: 0.0, fixed: None };
    let search = Problem::builder()
        .layers(zoo::lenet().profiles().into_iter().map(layer).collect())
        .actions(table.bitwidths())
        .build()
        .unwrap();
    let answer = |seed: u64| {
        let (inputs, actions) = (search.observation_len(), search.action_count());
        let mut agent = PpoConfig::default().init(inputs, actions, seed).unwrap();
        let budget = Budget { episodes: Some(400), ..Budget::default() };
        let found = Search::new(&search, &mut agent, &table, budget).run().unwrap();
        let mut answer = outcome(&found);
        answer["scored"] = json!(found.scored.len());
        answer["seed"] = json!(seed);
        answer
    };
    let (odd, even): (Vec<Value>, Vec<Value>) = std::thread::scope(|scope| {
        let odd = scope.spawn(|| (1..=9).step_by(2).map(answer).collect());
        let even = (2..=10).step_by(2).map(answer).collect();
        (odd.join().unwrap(), even)
    });
    check("lenet_table", &json!([odd, even]));
}

fn short(mut config: ExperimentConfig) -> ExperimentConfig {
    config.threads = NonZeroUsize::new(2).unwrap();
    config.validation = 200;
    config.search_validation = 200;
    config.short_retrain.length = Length::Steps(6);
    config.short_retrain.batch_size = 32;
    config.long_retrain.length = Length::Steps(12);
    config.long_retrain.batch_size = 32;
    config
}

fn digits(train: usize) -> Splits {
    digits::generate(&DigitsConfig { train, test: 200, ..DigitsConfig::default() }).unwrap()
}

/// The whole path with LeNet on drawn digits.
#[test]
fn lenet_digits() {
    let mut config = short(ExperimentConfig::lenet(1));
    config.pretrain.length = Length::Steps(60);
    config.budget = Budget { evaluations: Some(24), ..Budget::default() };
    let experiment = Experiment::new(zoo::lenet(), digits(1200), config);
    check("lenet_digits", &report(&experiment.run(&Cancel::new(), &|_| {}).unwrap()));
}

/// The whole path with the preset of SimpleNet, on digits in the middle of its larger images.
#[test]
fn simplenet_digits() {
    let drawn = digits(800);
    let wide = |set: &ImageSet| {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for index in 0..set.len() {
            let mut plane = vec![0; 32 * 32];
            for (row, line) in set.image(index).chunks(28).enumerate() {
                plane[(row + 2) * 32 + 2..][..28].copy_from_slice(line);
            }
            (0..3).for_each(|_| pixels.extend_from_slice(&plane));
            labels.push(set.label(index));
        }
        ImageSet::new("wide digits", [3, 32, 32], 10, pixels, labels).unwrap()
    };
    let data = Splits { train: wide(&drawn.train), test: wide(&drawn.test), source: drawn.source };
    let mut config = short(ExperimentConfig::preset("simplenet", 1).unwrap());
    config.pretrain.length = Length::Steps(60);
    config.budget = Budget { evaluations: Some(16), ..Budget::default() };
    let experiment = Experiment::new(zoo::simplenet(), data, config);
    check("simplenet_digits", &report(&experiment.run(&Cancel::new(), &|_| {}).unwrap()));
}
