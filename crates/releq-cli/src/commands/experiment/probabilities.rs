//! `releq experiment probabilities`: how the policy settles.

use std::process::ExitCode;

use anyhow::{Context, Result};
use releq::{AgentKind, SearchOutcome, agent::PpoConfig, core::BitwidthAssignment};
use serde::Serialize;
use serde_json::json;

use super::{
    clip::ppo,
    folder::FolderArgs,
    source::{SourceArgs, Variant},
    variants::{Answer, blocks},
};
use crate::{
    plot::{Policies, policies, table::Table},
    terminal::{
        interrupt::Interrupt,
        output::{note, print},
        tables,
    },
};

/// Show the probabilities of all actions over the episodes
///
/// For each layer, the probability that the policy gives to each bitwidth: the mean of the seeds in the figure, those of
/// each seed in a table. The most likely bits in the end are the greedy answer.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq experiment probabilities lenet --table lenet.csv --full-precision 99.8
  releq experiment probabilities --table lenet.csv --agent ppo --seeds 3
  releq experiment probabilities --config search.toml --seeds 1     a live search")]
pub(super) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: FolderArgs,
}

/// How the policy of a seed ended.
#[derive(Debug, Serialize)]
struct Row {
    seed: u64,
    episodes: usize,
    evaluations: usize,
    greedy: Option<Answer>,
    /// The highest probability of each layer in the last block of episodes.
    certainty: Vec<f32>,
    best: Option<BitwidthAssignment>,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let agent = AgentKind::Ppo(ppo(self.source.agent(AgentKind::Ppo(PpoConfig::paper()))?)?);
        let source = self.source.open()?;
        let layers = source.layers()?;
        let actions: Vec<String> =
            source.actions().iter().map(|bits| format!("{bits} bits")).collect();
        let reward = source.reward();
        let mut settings = source.settings.clone();
        settings["agent"] = serde_json::to_value(&agent)?;

        let interrupt = Interrupt::new()?;
        let folder = self.output.open("probabilities")?;
        let variant = Variant { name: "search".to_owned(), agent, reward };
        let searched = source.run(vec![variant], folder.path(), &interrupt);
        let searched = searched.inspect_err(|_| folder.abandon())?;
        let Some(searched) = searched.and_then(|searched| searched.into_iter().next()) else {
            folder.abandon();
            note("stopped: there is nothing to show yet");
            return Ok(interrupt.exit_code().into());
        };

        let blocks = blocks(&searched.outcomes);
        let of_seed = |seed: usize| -> Vec<(usize, Vec<Vec<f32>>)> {
            let mean = |(episodes, seeds): &(usize, Vec<Vec<&releq::BatchRecord>>)| {
                let batches = seeds[seed].iter().map(|batch| &batch.action_probabilities);
                Some((*episodes, mean(batches)?))
            };
            blocks.iter().filter_map(mean).collect()
        };
        let each: Vec<_> = (0..searched.outcomes.len()).map(of_seed).collect();
        let of_all: Vec<(usize, Vec<Vec<f32>>)> = blocks
            .iter()
            .filter_map(|(episodes, _)| {
                let at = |course: &'_ Vec<(usize, Vec<Vec<f32>>)>| {
                    course.iter().position(|(other, _)| other == episodes)
                };
                let seeds = each.iter().filter_map(|course| Some(&course[at(course)?].1));
                Some((*episodes, mean(seeds)?))
            })
            .collect();
        let policy = Policies {
            layers: layers.clone(),
            actions: actions.clone(),
            points: of_all
                .iter()
                .map(|(episodes, shares)| (*episodes, shares.as_slice()))
                .collect(),
        };
        let seeds = searched.outcomes.len();
        let figure =
            policies(&policy, &format!("the mean over blocks of episodes and {seeds} seeds"))
                .context("the search has played no episode")?;

        let mut header = vec!["seed", "episodes", "layer"];
        header.extend(actions.iter().map(String::as_str));
        let mut table = Table::new(&header);
        for ((seed, _), course) in searched.outcomes.iter().zip(&each) {
            for (episodes, distributions) in course {
                for (layer, shares) in layers.iter().zip(distributions) {
                    let fixed = [seed.to_string(), episodes.to_string(), layer.clone()];
                    table.row(fixed.into_iter().chain(shares.iter().map(f32::to_string)));
                }
            }
        }
        let rows: Vec<Row> = searched
            .outcomes
            .iter()
            .zip(&each)
            .map(|((seed, outcome), course)| Row {
                seed: *seed,
                episodes: outcome.episodes,
                evaluations: outcome.evaluations,
                greedy: outcome
                    .greedy
                    .as_ref()
                    .map(|greedy| Answer::new(greedy, searched.optimum.as_ref())),
                certainty: certainty(course),
                best: best(outcome),
            })
            .collect();
        let text = folder.write(
            &[figure],
            vec![("seeds", table)],
            &settings,
            &json!({ "layers": layers, "likeliest": policy.likeliest(), "searches": rows }),
        )?;
        print(if self.output.json { text } else { shown(&layers, &rows) })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn best(outcome: &SearchOutcome) -> Option<BitwidthAssignment> {
    outcome.best.as_ref().map(|best| best.bits.clone())
}

/// The highest probability of each layer in the end.
fn certainty(course: &[(usize, Vec<Vec<f32>>)]) -> Vec<f32> {
    let last = course.last().map_or(&[][..], |(_, distributions)| distributions);
    last.iter().map(|shares| shares.iter().copied().fold(0.0, f32::max)).collect()
}

/// The mean of distributions, layer by layer; `None` without any, or of different shapes.
fn mean<'a>(all: impl Iterator<Item = &'a Vec<Vec<f32>>>) -> Option<Vec<Vec<f32>>> {
    let mut sums: Vec<Vec<f64>> = Vec::new();
    let mut count = 0;
    for distributions in all.filter(|distributions| !distributions.is_empty()) {
        if count == 0 {
            sums = distributions.iter().map(|shares| vec![0.0; shares.len()]).collect();
        }
        if sums.len() != distributions.len() {
            return None;
        }
        for (sums, shares) in sums.iter_mut().zip(distributions) {
            if sums.len() != shares.len() {
                return None;
            }
            sums.iter_mut().zip(shares).for_each(|(sum, &share)| *sum += f64::from(share));
        }
        count += 1;
    }
    let rounded = |sum: f64| ((sum / f64::from(count) * 1e4).round() / 1e4) as f32;
    (count > 0)
        .then(|| sums.into_iter().map(|sums| sums.into_iter().map(rounded).collect()).collect())
}

fn shown(layers: &[String], rows: &[Row]) -> String {
    let mut table = tables::framed(&["seed", "greedy answer", "of optimum", "certainty by layer"]);
    for row in rows {
        let greedy = row.greedy.as_ref();
        let certainty: Vec<String> =
            row.certainty.iter().map(|share| format!("{share:.2}")).collect();
        table.add_row([
            row.seed.to_string(),
            greedy.map_or_else(|| "-".to_owned(), |greedy| greedy.bits.to_string()),
            greedy
                .and_then(Answer::of_optimum)
                .map_or_else(|| "-".to_owned(), |share| format!("{share:.3}")),
            certainty.join(" "),
        ]);
    }
    format!(
        "{}\nlayers: {}\ncertainty: probability of the likeliest bitwidth in the last episodes",
        tables::text(&table),
        layers.join(", ")
    )
}
