//! Searches a table of measured accuracies, stops half-way, and goes on from what was written down.
//!
//! ```text
//! cargo run --release --example replay_table -- lenet.csv
//! ```
//!
//! The table is any CSV with the columns `bits,accuracy_percent`. It stands for whatever measures an assignment: a
//! `Problem`, an agent and an `Evaluator` make a `Search`, which steps and has a state. `releq replay` does this with all
//! options.

use std::process::ExitCode;

use anyhow::{Context, Result};
use releq::{
    Budget, Problem, Search, SearchLayer, SearchState,
    agent::PpoConfig,
    core::LayerProfile,
    evaluate::{Cached, OnMiss, Table},
};
use releq_cli::terminal::{exit_code, output::print};

fn main() -> ExitCode {
    exit_code(run)
}

fn run() -> Result<()> {
    let path = std::env::args_os().nth(1).context("name a table of bits,accuracy_percent")?;
    let table = Table::read(path, OnMiss::Error)?;

    // A table knows nothing of shapes, so all layers are alike.
    let layer = |index| SearchLayer {
        profile: LayerProfile::linear(format!("layer{index}"), 1, 1),
        weight_std: 0.0,
        fixed: None,
    };
    let problem = Problem::builder()
        .layers((1..=table.layers()).map(layer).collect())
        .actions(table.bitwidths())
        .build()?;
    let agent = || PpoConfig::default().init(problem.observation_len(), problem.action_count(), 1);
    let evaluator = Cached::new(&table);
    let budget = Budget { episodes: Some(1000), ..Budget::default() };

    // The first half, as far as its state, which is plain data.
    let mut first = agent()?;
    let mut search = Search::new(&problem, &mut first, &evaluator, budget);
    for _ in 0..60 {
        search.step()?;
    }
    let written = serde_json::to_string(&search.state()?)?;
    print(format_args!("after 60 batches, the state has {} kB", written.len() / 1000))?;

    // The second half, with a new agent. It ends as if nothing had happened.
    let state: SearchState = serde_json::from_str(&written)?;
    let mut second = agent()?;
    let found = Search::resume(&problem, &mut second, &evaluator, state)?.run()?;
    let best = found.best.context("no assignment was measured")?;
    print(format_args!(
        "{} episodes, {} assignments: {} with {:.2} % (full precision {:.2} %)",
        found.episodes,
        found.evaluations,
        best.bits,
        100.0 * best.accuracy,
        100.0 * releq::evaluate::Evaluator::full_precision(&table),
    ))
}
