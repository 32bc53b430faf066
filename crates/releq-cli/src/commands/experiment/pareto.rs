//! `releq experiment pareto`: the space of a table, its frontier, and where the agent's answers lie in it.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, Result};
use releq::{
    AgentKind, Scored,
    agent::PpoConfig,
    core::{Bitwidth, BitwidthAssignment},
    evaluate::Evaluator,
    pareto_frontier, zoo,
};
use serde::Serialize;
use serde_json::json;

use super::{
    folder::FolderArgs,
    source::{Searched, SourceArgs, Variant},
};
use crate::{
    args::UsageError,
    plot::space::{Space, space},
    terminal::{
        interrupt::Interrupt,
        output::{note, print},
        tables,
    },
};

/// Draw the space of a table with its frontier and the agent's answers
///
/// The space itself is measured by `releq pareto`, which keeps it in the folder of a run; the table is there as
/// tables/measured.csv. The agent then searches the table with every seed.
#[derive(clap::Args, Debug)]
#[command(mut_arg("config", |arg| arg.hide(true)))]
#[command(after_help = "Examples:
  releq experiment pareto lenet --table lenet.csv --full-precision 99.8
  releq experiment pareto --table vgg11.csv --on-miss nearest --agent ppo
  releq experiment pareto --table runs/lenet-mnist-1/tables/measured.csv")]
pub(super) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: FolderArgs,
}

/// An assignment, and where it lies in the space.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    bits: BitwidthAssignment,
    accuracy_percent: f64,
    quant_state: f64,
    reward: f64,
    /// 1 for the highest reward; equal rewards have equal ranks.
    rank: usize,
    /// Assignments that are at least as cheap and as accurate, and better in one of the two.
    dominated_by: usize,
    /// Whether the agent found it.
    found: bool,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        if self.source.table.is_none() {
            let reason = "--config: `releq pareto` measures a space; give its tables/measured.csv as --table";
            return Err(UsageError(reason.to_owned()).into());
        }
        let agent = self.source.agent(AgentKind::Ppo(PpoConfig::default()))?;
        let source = self.source.open()?;
        let reward = source.reward();
        let mut settings = source.settings.clone();
        settings["agent"] = serde_json::to_value(&agent)?;
        let problem = source.table_problem(&reward)?.context("a table poses a problem")?;
        let all = source.scored(&problem)?;

        let interrupt = Interrupt::new()?;
        let folder = self.output.open("pareto")?;
        let variant = Variant { name: "search".to_owned(), agent, reward };
        let searched = source.run(vec![variant], folder.path(), &interrupt);
        let searched = searched.inspect_err(|_| folder.abandon())?;
        let Some(searched) = searched.and_then(|searched| searched.into_iter().next()) else {
            folder.abandon();
            note("stopped: there is nothing to draw yet");
            return Ok(interrupt.exit_code().into());
        };

        let named = self.named(&all, &searched)?;
        let rows: Vec<Row> =
            named.iter().map(|(name, scored, found)| row(name, scored, *found, &all)).collect();
        let full_precision = source.table().context("a table is searched")?.full_precision();
        let cost = settings["cost"].as_str().unwrap_or("cost").to_owned();
        let highest = problem.actions().last().map_or_else(String::new, Bitwidth::to_string);
        let figure = space(&Space {
            scored: &all,
            full_precision,
            cost: format!("State_Quantization: {cost} over that of {highest} bits"),
            named: named
                .iter()
                .map(|(name, scored, found)| (name.clone(), *scored, *found))
                .collect(),
        })
        .context("the table has no such assignment")?;
        let frontier: Vec<_> = pareto_frontier(&all).into_iter().map(|s| &s.bits).collect();
        let text = folder.write(
            &[figure],
            Vec::new(),
            &settings,
            &json!({ "assignments": all.len(), "frontier": frontier, "named": rows }),
        )?;
        print(if self.output.json { text } else { shown(&all, &rows) })?;
        Ok(ExitCode::SUCCESS)
    }

    /// What has a name: the agent's answers, the published bits, the highest reward, and uniform bits.
    ///
    /// # Errors
    /// If the file of the network cannot be read.
    fn named<'a>(
        &self,
        all: &'a [Scored],
        searched: &Searched,
    ) -> Result<Vec<(String, &'a Scored, bool)>> {
        let at = |bits: &BitwidthAssignment| all.iter().find(|scored| scored.bits == *bits);
        let mut found: BTreeMap<&BitwidthAssignment, usize> = BTreeMap::new();
        for greedy in searched.outcomes.iter().filter_map(|(_, outcome)| outcome.greedy.as_ref()) {
            *found.entry(&greedy.bits).or_default() += 1;
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let seeds = searched.outcomes.len();
        let mut named: Vec<(String, &Scored, bool)> = found
            .into_iter()
            .filter_map(|(bits, count)| {
                Some((format!("found, {count} of {seeds}"), at(bits)?, true))
            })
            .collect();
        let network = self.source.network()?;
        let published = network.and_then(|network| zoo::published_bits(network.name()));
        let optimum = searched.optimum.as_ref().map(|optimum| &optimum.bits);
        for (name, bits) in [("published", published.as_ref()), ("highest reward", optimum)] {
            named.extend(bits.and_then(at).map(|scored| (name.to_owned(), scored, false)));
        }
        for bits in (1..=32).filter_map(|bits| Bitwidth::new(bits).ok()) {
            let scored = all.iter().find(|scored| scored.bits.iter().all(|&other| other == bits));
            named.extend(scored.map(|scored| (format!("uniform {bits}"), scored, false)));
        }
        Ok(named)
    }
}

fn row(name: &str, scored: &Scored, found: bool, all: &[Scored]) -> Row {
    let candidates = || all.iter().filter(|scored| scored.is_candidate());
    let dominates = |other: &&Scored| {
        let (cheaper, better) =
            (other.quant_state - scored.quant_state, other.accuracy - scored.accuracy);
        cheaper <= 0.0 && better >= 0.0 && (cheaper < 0.0 || better > 0.0)
    };
    Row {
        name: name.to_owned(),
        bits: scored.bits.clone(),
        accuracy_percent: 100.0 * scored.accuracy,
        quant_state: scored.quant_state,
        reward: scored.reward,
        rank: 1 + candidates().filter(|other| other.reward > scored.reward).count(),
        dominated_by: candidates().filter(dominates).count(),
        found,
    }
}

fn shown(all: &[Scored], rows: &[Row]) -> String {
    let mut table =
        tables::framed(&["", "bits", "accuracy\n%", "State_Q", "rank", "dominated\nby"]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            row.bits.to_string(),
            format!("{:.2}", row.accuracy_percent),
            format!("{:.4}", row.quant_state),
            row.rank.to_string(),
            row.dominated_by.to_string(),
        ]);
    }
    format!(
        "{} assignments, {} of them on the frontier\n{}\nrank: by reward; dominated by: so many are cheaper or \
         more accurate, and in\nneither worse",
        all.len(),
        pareto_frontier(all).len(),
        tables::text(&table)
    )
}
