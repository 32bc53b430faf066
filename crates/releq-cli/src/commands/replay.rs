//! `releq replay`: a search on a table of measured accuracies.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    AgentKind, AgentShape, Budget, Event, Problem, Scored, Search, SearchOutcome, Stage,
    agent::{LocalSearch, RandomSearch},
    core::BitwidthAssignment,
    evaluate::{Cached, Evaluator, Table},
    hw::CostKind,
    pareto_frontier,
    reward::RewardKind,
};
use serde::Serialize;

use crate::{
    args::{AgentArg, Files, NetworkArgs, ProblemArgs, TableArgs, costs, options},
    terminal::{
        interrupt::Interrupt,
        output::{note, print},
        tables,
    },
};

/// Search a table of measured accuracies, in seconds
///
/// The table is any CSV with the columns bits,accuracy_percent and one row per measured assignment, such as
/// 2-2-3-2,93.916667. Since the whole table is known, the output shows how close the agent came to the best entry, and
/// what random search and local search find with as many evaluations.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq replay --table lenet.csv
  releq replay lenet --table lenet.csv --cost stripes-energy=2,size=1
  releq replay lenet --table lenet.csv --limit size=120kB --keep conv1=4
  releq replay --table lenet.csv --agent greedy --evaluations 100
  releq replay --table lenet.csv --max-loss 0.5 --json")]
pub(crate) struct Args {
    /// CSV file with the columns `bits` and `accuracy_percent`, or `accuracy` from 0 to 1
    #[arg(long, value_name = "FILE")]
    table: PathBuf,
    /// Network whose layers the agent observes and that costs other than mean-bits need
    #[command(flatten)]
    network: NetworkArgs,
    /// Number of episodes; each chooses one bitwidth for every layer
    #[arg(
        long,
        value_name = "N",
        default_value = "2000",
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    episodes: NonZeroUsize,
    /// Maximum number of assignments that the search looks up [default: 300 for an agent that plans, else no limit but
    /// the episodes]
    #[arg(
        long,
        value_name = "N",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true
    )]
    evaluations: Option<usize>,
    /// Seed of the agent; the same seed gives the same result
    #[arg(
        long,
        value_name = "SEED",
        default_value_t = 1,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// Agent: one of `releq list agents`, or a JSON or TOML file with hyperparameters of PPO [default: ppo-planned]
    #[arg(long, value_name = "AGENT|FILE")]
    agent: Option<AgentArg>,
    #[command(flatten)]
    read: TableArgs,
    /// Print a JSON object instead of tables
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    problem: ProblemArgs,
}

/// Assignments that a search which plans looks up at most: its model costs more than the table, and the best is found
/// long before.
const PLANNED: usize = 300;

/// What the agent and the simple searches found, beside the best that anyone could find.
struct Outcomes {
    found: SearchOutcome,
    random: SearchOutcome,
    local: SearchOutcome,
    optimal: Scored,
    everything: Vec<Scored>,
}

/// An assignment in the JSON object.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    bits: &'a BitwidthAssignment,
    accuracy_percent: f64,
    quant_state: f64,
    reward: f64,
}

impl<'a> From<&'a Scored> for Entry<'a> {
    fn from(scored: &'a Scored) -> Self {
        Self {
            bits: &scored.bits,
            accuracy_percent: 100.0 * scored.accuracy,
            quant_state: scored.quant_state,
            reward: scored.reward,
        }
    }
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let files = Files::new()
            .reads("--table", Some(&self.table))
            .reads("--agent", self.agent.as_ref().and_then(AgentArg::file));
        self.problem.reads(files).check()?;
        let agent = match &self.agent {
            Some(agent) => agent.load()?,
            None => AgentKind::default(),
        };
        let table = self.read.read(&self.table)?;
        let started = Instant::now();
        let problem = self.read.problem(&table, self.network.layers()?.as_ref(), &self.problem)?;
        let interrupt = Interrupt::new()?;
        // With hundreds of layers, a batch takes an agent long.
        interrupt.leave_after(Duration::from_secs(2));
        let outcomes = self.search(&problem, &agent, &table, &interrupt)?;
        let seconds = started.elapsed().as_secs_f64();
        print(if self.json {
            serde_json::to_string_pretty(&self.object(&agent, &table, &outcomes, seconds)?)?
        } else {
            self.tables(&table, &outcomes, seconds)
        })?;
        if interrupt.cancel.is_cancelled() {
            note("stopped early: this is what the search had found");
            return Ok(interrupt.exit_code().into());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn search(
        &self,
        problem: &Problem,
        agent: &AgentKind,
        table: &Table,
        interrupt: &Interrupt,
    ) -> Result<Outcomes> {
        // The best that anyone could find.
        let everything = table
            .iter()
            .filter(|(bits, _)| problem.admits(bits))
            .map(|(bits, _)| problem.score(bits, table))
            .collect::<Result<Vec<Scored>, _>>()?;
        let optimal = everything
            .iter()
            .filter(|scored| scored.is_candidate())
            .min_by(|a, b| b.reward.total_cmp(&a.reward))
            .cloned()
            .context(
                "no entry of the table is within the limits and has the bitwidths asked for",
            )?;

        let episodes = self.episodes.get();
        let bar = ProgressBar::new(episodes as u64);
        bar.set_style(ProgressStyle::with_template(
            "{elapsed} {bar:20} {pos}/{len} episodes, {eta} left, best {msg}",
        )?);
        let evaluator = Cached::new(table);
        let planning = agent.planning();
        let evaluations = self.evaluations.or(planning.map(|_| PLANNED));
        let mut agent = agent.build(&AgentShape::new(problem, self.seed))?;
        let on_event = |event: &Event| {
            if let Event::Episodes { record, best, .. } = event {
                bar.set_position(record.episodes as u64);
                if let Some(best) = best {
                    bar.set_message(best.bits.to_string());
                }
            }
        };
        let budget = Budget { episodes: Some(episodes), evaluations, ..Budget::default() };
        let search = Search::new(problem, agent.as_mut(), &evaluator, budget);
        let search = search.cancel(&interrupt.cancel).on_event(Stage::Search, &on_event);
        let found = search.planning(planning).run()?;
        bar.finish_and_clear();

        // Two simple searches, which may ask for something new as often as the agent did.
        let budget = Budget { evaluations: Some(found.evaluations), ..Budget::default() };
        let mut random = RandomSearch::new(problem.action_count(), self.seed, 16);
        let random = Search::new(problem, &mut random, &evaluator, budget);
        let random = random.cancel(&interrupt.cancel).run()?;
        let mut local =
            LocalSearch::new(problem.action_count(), problem.episode_len(), self.seed, 1);
        let local = Search::new(problem, &mut local, &evaluator, budget);
        let local = local.cancel(&interrupt.cancel).run()?;
        Ok(Outcomes { found, random, local, optimal, everything })
    }

    fn reward(&self, table: &Table) -> RewardKind {
        let actions = self.problem.actions().unwrap_or_else(|| table.bitwidths());
        self.problem.reward_on_table(&actions)
    }

    /// The least accuracy that `--max-loss` accepts.
    fn least_accuracy(&self, table: &Table) -> Option<f64> {
        // As much as a sum of decimals may be off.
        self.problem.tolerance().map(|tolerance| table.full_precision() - tolerance - 1e-12)
    }

    /// JSON for other programs: what is in the tables, and how the search got there.
    fn object(
        &self,
        agent: &AgentKind,
        table: &Table,
        outcomes: &Outcomes,
        seconds: f64,
    ) -> Result<serde_json::Value> {
        let Outcomes { found, random, local, optimal, everything } = outcomes;
        let greedy = found.greedy.as_ref();
        let best = found.best.as_ref();
        let within = |scored| self.least_accuracy(table).and_then(|least| cheapest(scored, least));
        let seen = seen(found);
        let cost = costs::terms(&self.problem.cost)
            .map(|term| match term.weight {
                Some(weight) => format!("{}={weight}", term.cost),
                None => term.cost.to_string(),
            })
            .collect::<Vec<_>>();
        let cost = if cost.is_empty() { CostKind::default().to_string() } else { cost.join(",") };
        let limits: Vec<String> = self.problem.limit.iter().map(ToString::to_string).collect();
        let keep: serde_json::Map<String, serde_json::Value> = self
            .problem
            .keep
            .iter()
            .map(|keep| Ok((keep.layer.clone(), serde_json::to_value(keep.bits)?)))
            .collect::<Result<_>>()?;
        Ok(serde_json::json!({
            "table": self.table,
            "seed": self.seed,
            "agent": agent,
            "cost": cost,
            "limits": limits,
            "keep": keep,
            "reward": self.reward(table).to_string(),
            "max_loss_points": self.problem.max_loss,
            "on_miss": self.read.on_miss.to_string(),
            "full_precision_percent": 100.0 * table.full_precision(),
            "greedy_bits": greedy.map(|greedy| &greedy.bits),
            "greedy_reward": greedy.map(|greedy| greedy.reward),
            "greedy_accuracy_percent": greedy.map(|greedy| 100.0 * greedy.accuracy),
            "optimal_bits": optimal.bits,
            "optimal_reward": optimal.reward,
            "best_seen_bits": best.map(|best| &best.bits),
            "best_seen_reward": best.map(|best| best.reward),
            "random_best_bits": random.best.as_ref().map(|best| &best.bits),
            "random_best_reward": random.best.as_ref().map(|best| best.reward),
            "local_best_bits": local.best.as_ref().map(|best| &best.bits),
            "local_best_reward": local.best.as_ref().map(|best| best.reward),
            "local_evaluations": local.evaluations,
            "cheapest_within_max_loss": within(everything).map(Entry::from),
            "cheapest_seen_within_max_loss": within(&seen).map(Entry::from),
            "episodes": found.episodes,
            "evaluations": found.evaluations,
            "stop": found.stop,
            "curve": curve(&found.scored),
            "seconds": seconds,
        }))
    }

    fn tables(&self, table: &Table, outcomes: &Outcomes, seconds: f64) -> String {
        let Outcomes { found, random, local, optimal, everything } = outcomes;
        let mut lines = vec![format!(
            "{} measured assignments of {} layers; full precision {:.2} %\nreward {}",
            table.len(),
            table.layers(),
            100.0 * table.full_precision(),
            self.reward(table)
        )];
        let mut text =
            tables::framed(&["", "bits", "mean", "accuracy %", "State_Q", "reward", "of optimum"]);
        let seen = seen(found);
        let within = |scored| self.least_accuracy(table).and_then(|least| cheapest(scored, least));
        let rows = [
            ("optimum of the table", Some(optimal)),
            ("agent, greedy", found.greedy.as_ref()),
            ("agent, best seen", found.best.as_ref()),
            ("random, best seen", random.best.as_ref()),
            ("local search, best seen", local.best.as_ref()),
            ("cheapest within --max-loss", within(everything)),
            ("agent, cheapest within it", within(&seen)),
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
        lines.push(tables::text(&text));
        if self.problem.max_loss.is_some() && within(&seen).is_none() {
            lines.push("the agent saw nothing within --max-loss".to_owned());
        }
        lines.push(format!(
            "{} episodes; {} distinct assignments for the agent, {} for random search,\n{} for local search; {}; \
             {seconds:.1} s",
            found.episodes, found.evaluations, random.evaluations, local.evaluations, found.stop
        ));
        lines.push(
            "\nPareto frontier of the table (State_Quantization, accuracy %, bits):".to_owned(),
        );
        lines.extend(pareto_frontier(everything).into_iter().map(|point| {
            format!("  {:.4}  {:>7.3}  {}", point.quant_state, 100.0 * point.accuracy, point.bits)
        }));
        lines.join("\n")
    }
}

/// Everything that the search looked up, its greedy answer included.
fn seen(found: &SearchOutcome) -> Vec<Scored> {
    found.scored.iter().chain(&found.greedy).cloned().collect()
}

/// The cheapest assignment within all limits of at least this accuracy, the more accurate of equals.
fn cheapest(scored: &[Scored], least_accuracy: f64) -> Option<&Scored> {
    scored
        .iter()
        .filter(|scored| scored.is_candidate() && scored.accuracy >= least_accuracy)
        .min_by(|a, b| {
            let cheaper = a.quant_state.total_cmp(&b.quant_state);
            cheaper.then(b.accuracy.total_cmp(&a.accuracy)).then_with(|| a.bits.cmp(&b.bits))
        })
}

/// The best reward within all limits after so many evaluations, wherever it rose, and at the end.
fn curve(scored: &[Scored]) -> Vec<(usize, f64)> {
    let mut curve: Vec<(usize, f64)> = Vec::new();
    for (index, scored) in scored.iter().enumerate() {
        let rises = curve.last().is_none_or(|(_, best)| scored.reward > *best);
        if scored.is_candidate() && rises {
            curve.push((index + 1, scored.reward));
        }
    }
    if let Some(&(evaluations, best)) = curve.last()
        && evaluations < scored.len()
    {
        curve.push((scored.len(), best));
    }
    curve
}
