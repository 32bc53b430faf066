//! Searches a table of measured accuracies with the agent: no network, no training, done in seconds.
//!
//! ```text
//! cargo run --release --example replay_table -- --table lenet.csv --episodes 2000 --seed 1
//! ```
//!
//! The table is any CSV with the columns `bits,accuracy_percent` and one row per measured assignment, such as
//! `2-2-3-2,93.916667`. Since the whole table is known, the output shows how close the agent came to the best entry,
//! and what random search finds with as many evaluations.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use comfy_table::{Table as TextTable, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    Budget, Event, Problem, Scored, Search, SearchLayer, SearchOutcome, Stage,
    agent::{GreedySearch, PpoConfig, RandomSearch},
    core::LayerProfile,
    evaluate::{Cached, Evaluator, OnMiss, Table},
    hw::CostKind,
    pareto_frontier,
    reward::RewardKind,
};
use releq_example_support::{checkpoint, exit_code, options, output::print};

/// Searches a table of measured accuracies with the ReLeQ agent.
#[derive(Parser, Debug)]
struct Args {
    /// CSV file with the columns `bits` and `accuracy_percent`, or `accuracy` from 0 to 1
    #[arg(long, value_name = "FILE")]
    table: PathBuf,
    /// Number of episodes; each chooses one bitwidth for every layer
    #[arg(
        long,
        default_value = "2000",
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    episodes: NonZeroUsize,
    /// Seed of the agent; the same seed gives the same result
    #[arg(
        long,
        default_value_t = 1,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// Cost to minimize: `mean-bits`, or another cost model such as `cost-weighted` or `stripes-energy`, which
    /// needs --network
    #[arg(long, default_value = "mean-bits")]
    cost: CostKind,
    /// What to do if the table lacks an assignment: `error`, or `nearest` to use the nearest entry, including its
    /// bitwidths
    #[arg(long, default_value = "error")]
    on_miss: OnMiss,
    /// Full-precision accuracy in percent [default: the best accuracy in the table]
    #[arg(
        long,
        value_name = "PERCENT",
        value_parser = options::percent,
        allow_hyphen_values = true
    )]
    full_precision: Option<f64>,
    /// Reward: shaped, division, subtraction or linear-grid
    #[arg(long, default_value = "shaped")]
    reward: RewardKind,
    /// Network whose layer shapes the agent observes and the cost model uses, such as lenet
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// JSON file with hyperparameters of the agent; missing ones keep their defaults
    #[arg(long, value_name = "FILE")]
    agent_config: Option<PathBuf>,
    /// Print a JSON object instead of tables
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    exit_code(|| run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    let mut table = Table::read(&args.table, args.on_miss)?;
    if let Some(percent) = args.full_precision {
        table = table.with_full_precision(percent / 100.0).context("--full-precision")?;
    }
    let started = Instant::now();

    // A table knows nothing of shapes: without a network all layers look alike to the agent.
    let layers = match args.network.as_deref() {
        Some(name) => {
            let network = checkpoint::network(name).context("--network")?;
            shapes(network.profiles(), table.layers())?
        }
        None if args.cost != CostKind::MeanBits => {
            bail!(
                "--cost {} depends on the shapes of the layers; name them with --network",
                args.cost
            )
        }
        None => (1..=table.layers()).map(|index| unknown_layer(format!("layer{index}"))).collect(),
    };
    let episodes = args.episodes.get();
    let budget = Budget { episodes: Some(episodes), ..Budget::default() };
    let problem = Problem::builder()
        .layers(layers)
        .actions(table.bitwidths())
        .cost(args.cost.build()?)
        .reward(args.reward.build())
        .build()?;

    // The best that anyone could find.
    let everything = table
        .iter()
        .map(|(bits, _)| problem.score(bits, &table))
        .collect::<Result<Vec<Scored>, _>>()?;
    let optimal = everything
        .iter()
        .min_by(|a, b| b.reward.total_cmp(&a.reward))
        .context("the table is empty")?;

    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(episodes as u64) };
    bar.set_style(ProgressStyle::with_template(
        "{elapsed_precise} {bar:30} {pos}/{len} episodes, {eta} left, best {msg}",
    )?);
    let evaluator = Cached::new(&table);
    let config = match &args.agent_config {
        Some(path) => options::settings(path).context("--agent-config")?,
        None => PpoConfig::default(),
    };
    let mut agent = config.init(problem.observation_len(), problem.action_count(), args.seed)?;
    let on_event = |event: &Event| {
        bar.set_position(event.progress().0 as u64);
        if let Event::Episodes { best: Some(best), .. } = event {
            bar.set_message(best.bits.to_string());
        }
    };
    let search = Search::new(&problem, &mut agent, &evaluator, budget);
    let found = search.on_event(Stage::Search, &on_event).run()?;
    bar.finish_and_clear();

    // Two simple searches, which may ask for something new as often as the agent did.
    let budget = Budget { evaluations: Some(found.evaluations), ..Budget::default() };
    let mut random = RandomSearch::new(problem.action_count(), args.seed, 16);
    let random = Search::new(&problem, &mut random, &evaluator, budget).run()?;
    let mut layerwise = GreedySearch::new(problem.action_count(), problem.episode_len());
    let layerwise = Search::new(&problem, &mut layerwise, &evaluator, budget).run()?;
    let outcomes = Outcomes { found, random, layerwise };

    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        print(json(args, &table, &outcomes, optimal, seconds)?)
    } else {
        print(tables(&table, &outcomes, optimal, &everything, seconds))
    }
}

/// What the agent and the simple searches found.
struct Outcomes {
    found: SearchOutcome,
    random: SearchOutcome,
    layerwise: SearchOutcome,
}

fn json(
    args: &Args,
    table: &Table,
    outcomes: &Outcomes,
    optimal: &Scored,
    seconds: f64,
) -> Result<serde_json::Value> {
    let found = &outcomes.found;
    let greedy = found.greedy.as_ref().context("the agent gave no greedy answer")?;
    let best = found.best.as_ref().context("no episode was played; use --episodes 1 or more")?;
    let random = outcomes.random.best.as_ref().context("random search played no episode")?;
    let layerwise = outcomes.layerwise.best.as_ref().context("nothing was searched")?;
    Ok(serde_json::json!({
        "table": args.table,
        "seed": args.seed,
        "cost": args.cost.to_string(),
        "on_miss": args.on_miss.to_string(),
        "full_precision_percent": 100.0 * table.full_precision(),
        "greedy_bits": greedy.bits,
        "greedy_reward": greedy.reward,
        "greedy_accuracy_percent": 100.0 * greedy.accuracy,
        "optimal_bits": optimal.bits,
        "optimal_reward": optimal.reward,
        "best_seen_bits": best.bits,
        "best_seen_reward": best.reward,
        "random_best_bits": random.bits,
        "random_best_reward": random.reward,
        "layerwise_best_bits": layerwise.bits,
        "layerwise_best_reward": layerwise.reward,
        "layerwise_evaluations": outcomes.layerwise.evaluations,
        "episodes": found.episodes,
        "evaluations": found.evaluations,
        "seconds": seconds,
    }))
}

fn tables(
    table: &Table,
    outcomes: &Outcomes,
    optimal: &Scored,
    everything: &[Scored],
    seconds: f64,
) -> String {
    let Outcomes { found, random, layerwise } = outcomes;
    let mut lines = vec![format!(
        "{} measured assignments of {} layers; full precision {:.2} %",
        table.len(),
        table.layers(),
        100.0 * table.full_precision()
    )];
    let mut text = TextTable::new();
    text.load_style(UTF8_FULL_CONDENSED).set_header([
        "",
        "bits",
        "mean",
        "accuracy %",
        "State_Q",
        "reward",
        "of optimum",
    ]);
    let rows = [
        ("optimum of the table", Some(optimal)),
        ("agent, greedy", found.greedy.as_ref()),
        ("agent, best seen", found.best.as_ref()),
        ("random, best seen", random.best.as_ref()),
        ("layer by layer, best seen", layerwise.best.as_ref()),
    ];
    for (label, scored) in rows {
        let Some(scored) = scored else { continue };
        text.add_row([
            label.to_owned(),
            scored.bits.to_string(),
            format!("{:.2}", scored.bits.mean()),
            format!("{:.2}", 100.0 * scored.accuracy),
            format!("{:.4}", scored.quant_state),
            format!("{:.6}", scored.reward),
            // Where the optimum is worth nothing, there is nothing to have a share of.
            if optimal.reward > 0.0 {
                format!("{:.3}", scored.reward / optimal.reward)
            } else {
                "-".to_owned()
            },
        ]);
    }
    lines.push(text.to_string());
    lines.push(format!(
        "{} episodes; {} distinct assignments for the agent, {} for random search, {} layer by layer; {seconds:.1} s",
        found.episodes, found.evaluations, random.evaluations, layerwise.evaluations
    ));
    lines.push("\nPareto frontier of the table (State_Quantization, accuracy %, bits):".to_owned());
    lines.extend(pareto_frontier(everything).into_iter().map(|point| {
        format!("  {:.4}  {:>7.3}  {}", point.quant_state, 100.0 * point.accuracy, point.bits)
    }));
    lines.join("\n")
}

fn shapes(profiles: Vec<LayerProfile>, layers: usize) -> Result<Vec<SearchLayer>> {
    if profiles.len() != layers {
        bail!("the network has {} quantizable layers, the table {layers}", profiles.len());
    }
    let search_layer = |profile| SearchLayer { profile, weight_std: 0.0, fixed: None };
    Ok(profiles.into_iter().map(search_layer).collect())
}

fn unknown_layer(name: String) -> SearchLayer {
    let profile = LayerProfile::linear(name, 1, 1);
    SearchLayer { profile, weight_std: 0.0, fixed: None }
}
