//! What it costs to keep a search in a folder: wall time per evaluation with and without one, with an evaluator that
//! answers at once.
//!
//! ```text
//! cargo bench --bench run_folder
//! ```
//!
//! The shortest retrain of a preset, LeNet's, takes a quarter of a second on one core of a desktop processor.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark talks and may fail loudly"
)]

use std::time::{Duration, Instant};

use releq::{
    Budget, Cancel, Experiment, ExperimentConfig, ReleqError, RunFolder,
    core::BitwidthAssignment,
    data::digits::{self, DigitsConfig},
    evaluate::{Evaluation, Evaluator},
    train::Length,
    zoo::lenet,
};

/// Measurements of each kind, in turn.
const ROUNDS: usize = 5;

/// The more bits, the better.
struct AtOnce;

impl Evaluator for AtOnce {
    fn full_precision(&self) -> f64 {
        0.99
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        Ok(Evaluation::new(0.9 + 0.09 * bits.mean() / 8.0))
    }
}

fn experiment(evaluations: usize) -> Experiment {
    let data = DigitsConfig { train: 200, test: 40, ..DigitsConfig::default() };
    let mut config = ExperimentConfig::lenet(1);
    (config.validation, config.search_validation) = (40, 20);
    for schedule in [&mut config.pretrain, &mut config.short_retrain, &mut config.long_retrain] {
        (schedule.length, schedule.batch_size) = (Length::Steps(1), 20);
    }
    config.budget = Budget { evaluations: Some(evaluations), ..Budget::default() };
    config.compare = false;
    Experiment::new(lenet(), digits::generate(&data).unwrap(), config)
        .agent("random", |shape| {
            let actions = shape.actions.clone();
            Ok(Box::new(releq::agent::RandomSearch::with_actions(actions, shape.seed, 8)))
        })
        .evaluator("at once", |_| Ok(Box::new(AtOnce)))
}

/// Wall time of the search alone, and of everything.
fn times(evaluations: usize, kept: bool) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let begun = Instant::now();
    let report = if kept {
        let folder = RunFolder::open(folder.path()).unwrap().save_every(Duration::from_secs(10));
        experiment(evaluations).run_in(&folder, &cancel, &|_| {})
    } else {
        experiment(evaluations).run(&cancel, &|_| {})
    };
    (report.unwrap().times["search"], begun.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo test --benches` runs everything once, on little.
    let is_measuring = std::env::args().any(|argument| argument == "--bench");
    let (rounds, evaluations) = if is_measuring { (ROUNDS, 1000) } else { (1, 20) };
    let mut all = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (place, kept) in [(0, false), (1, true)] {
            let (search, whole) = times(evaluations, kept);
            all[place].push(search);
            all[place + 2].push(whole);
        }
    }
    let [without, with, whole_without, whole_with] = all.map(median);
    let each = 1e6 * (with - without) / evaluations as f64;
    println!("{evaluations} evaluations, medians of {rounds} round(s) in turn");
    println!(
        "search without a folder {without:.3} s, in one {with:.3} s: {each:.0} us per evaluation"
    );
    println!("the whole run {whole_without:.3} s, in a folder {whole_with:.3} s");
}
