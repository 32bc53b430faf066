//! Variants of a search beside each other: how they learn, and what they find, over several seeds.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use releq::{BatchRecord, Scored, SearchOutcome, StopReason, core::BitwidthAssignment};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    folder::FolderArgs,
    seeds::{Spread, text},
    source::{Searched, Source, Variant},
};
use crate::{
    plot::{
        course::{Curve, Point, Quantity, course},
        table::{Table, number},
    },
    terminal::{
        interrupt::Interrupt,
        output::{note, print},
        tables,
    },
};

/// So many points a course has at most.
pub(super) const BLOCKS: usize = 50;

/// The part of the episodes that counts as the end of a search.
const LAST: f64 = 0.1;

/// What is compared.
pub(super) struct Comparison {
    /// Name of the experiment, and of the folder.
    pub(super) name: &'static str,
    /// Title of the figure.
    pub(super) title: &'static str,
    /// What the variants differ in.
    pub(super) subject: &'static str,
    /// Whether they have one reward, so that it can be drawn in one panel.
    pub(super) one_reward: bool,
}

/// An assignment that a search came to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Answer {
    pub(super) bits: BitwidthAssignment,
    accuracy_percent: f64,
    acc_state: f64,
    quant_state: f64,
    reward: f64,
    /// Reward over the highest in the table, where one is above 0.
    of_optimum: Option<f64>,
}

impl Answer {
    pub(super) fn new(scored: &Scored, optimum: Option<&Scored>) -> Self {
        let highest = optimum.map(|optimum| optimum.reward).filter(|&reward| reward > 0.0);
        Self {
            bits: scored.bits.clone(),
            accuracy_percent: 100.0 * scored.accuracy,
            acc_state: scored.acc_state,
            quant_state: scored.quant_state,
            reward: scored.reward,
            of_optimum: highest.map(|highest| scored.reward / highest),
        }
    }

    pub(super) const fn of_optimum(&self) -> Option<f64> {
        self.of_optimum
    }
}

/// One search.
#[derive(Clone, Debug, Serialize)]
struct Row {
    variant: String,
    seed: u64,
    episodes: usize,
    evaluations: usize,
    stop: StopReason,
    /// What the agent would choose in the end.
    greedy: Option<Answer>,
    /// The highest reward that it saw.
    best: Option<Answer>,
    /// Mean reward of all episodes, and of the last tenth.
    mean_reward: f64,
    last_mean_reward: f64,
    /// The highest reward in the table.
    optimum_reward: Option<f64>,
    /// State_Accuracy and State_Quantization of the last tenth.
    last_acc_state: f64,
    last_quant_state: f64,
}

/// What the seeds of a variant have in common.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    variant: String,
    /// The greedy answer of most seeds, the first in order of bits among equals, and how many they are.
    greedy_bits: Option<(BitwidthAssignment, usize)>,
    optimum_bits: Option<BitwidthAssignment>,
    measures: BTreeMap<&'static str, Spread>,
}

/// A number that a search comes to.
type Measure = (&'static str, fn(&Row) -> Option<f64>);

/// Every measure that is summed up over the seeds.
const MEASURES: [Measure; 12] = [
    ("greedy_accuracy_percent", |row| Some(row.greedy.as_ref()?.accuracy_percent)),
    ("greedy_quant_state", |row| Some(row.greedy.as_ref()?.quant_state)),
    ("greedy_of_optimum", |row| row.greedy.as_ref()?.of_optimum),
    ("greedy_reward", |row| Some(row.greedy.as_ref()?.reward)),
    ("best_of_optimum", |row| row.best.as_ref()?.of_optimum),
    ("evaluations", |row| Some(row.evaluations as f64)),
    ("mean_reward", |row| Some(row.mean_reward)),
    ("mean_of_optimum", |row| Some(row.mean_reward / row.optimum_reward?)),
    ("last_mean_reward", |row| Some(row.last_mean_reward)),
    ("last_of_optimum", |row| Some(row.last_mean_reward / row.optimum_reward?)),
    ("last_acc_state", |row| Some(row.last_acc_state)),
    ("last_quant_state", |row| Some(row.last_quant_state)),
];

/// Runs the variants with all seeds, writes the folder, and prints what they came to.
///
/// # Errors
/// If a search fails, or a file cannot be written.
pub(super) fn compare(
    comparison: &Comparison,
    source: &Source,
    variants: Vec<Variant>,
    output: &FolderArgs,
) -> Result<ExitCode> {
    let interrupt = Interrupt::new()?;
    let folder = output.open(comparison.name)?;
    let described: Vec<Value> = variants
        .iter()
        .map(|Variant { name, agent, reward }| json!({ "name": name, "agent": agent, "reward": reward }))
        .collect();
    let searched =
        source.run(variants, folder.path(), &interrupt).inspect_err(|_| folder.abandon())?;
    let Some(searched) = searched else {
        folder.abandon();
        note("stopped: there is nothing to compare yet");
        return Ok(interrupt.exit_code().into());
    };
    let rows: Vec<Row> = searched.iter().flat_map(rows).collect();
    let summaries: Vec<Summary> =
        searched.iter().map(|searched| summary(searched, &rows)).collect();
    let figures: Vec<_> =
        course(comparison.title, &quantities(comparison, &searched)).into_iter().collect();
    let mut settings = source.settings.clone();
    settings["variants"] = described.into();
    let text = folder.write(
        &figures,
        vec![("searches", searches(&rows)), ("summary", summary_table(&summaries))],
        &settings,
        &json!({ "summary": summaries, "searches": rows }),
    )?;
    print(if output.json { text } else { shown(comparison, &summaries) })?;
    Ok(ExitCode::SUCCESS)
}

/// The batches of the last tenth of the episodes.
fn last(outcome: &SearchOutcome) -> &[BatchRecord] {
    let from = (1.0 - LAST) * outcome.episodes as f64;
    let first = outcome.history.partition_point(|batch| (batch.episodes as f64) <= from);
    &outcome.history[first..]
}

/// The mean over episodes of what batches have a mean of; `before` are the episodes before them.
fn mean(batches: &[BatchRecord], before: usize, of: fn(&BatchRecord) -> f64) -> f64 {
    let (mut sum, mut played) = (0.0, before);
    for batch in batches {
        sum += of(batch) * batch.episodes.saturating_sub(played) as f64;
        played = batch.episodes;
    }
    sum / played.saturating_sub(before).max(1) as f64
}

fn rows(searched: &Searched) -> Vec<Row> {
    let optimum = searched.optimum.as_ref();
    let answer =
        |scored: &Option<Scored>| scored.as_ref().map(|scored| Answer::new(scored, optimum));
    let row = |(seed, outcome): &(u64, SearchOutcome)| {
        let last = last(outcome);
        let before = outcome.history.len() - last.len();
        let before = before.checked_sub(1).map_or(0, |index| outcome.history[index].episodes);
        Row {
            variant: searched.variant.name.clone(),
            seed: *seed,
            episodes: outcome.episodes,
            evaluations: outcome.evaluations,
            stop: outcome.stop,
            greedy: answer(&outcome.greedy),
            best: answer(&outcome.best),
            mean_reward: mean(&outcome.history, 0, |batch| batch.mean_reward),
            last_mean_reward: mean(last, before, |batch| batch.mean_reward),
            optimum_reward: optimum.map(|optimum| optimum.reward).filter(|&reward| reward > 0.0),
            last_acc_state: mean(last, before, |batch| batch.mean_acc_state),
            last_quant_state: mean(last, before, |batch| batch.mean_quant_state),
        }
    };
    searched.outcomes.iter().map(row).collect()
}

fn summary(searched: &Searched, rows: &[Row]) -> Summary {
    let variant = searched.variant.name.clone();
    let rows: Vec<&Row> = rows.iter().filter(|row| row.variant == variant).collect();
    let measure =
        |&(name, of): &Measure| Some((name, Spread::of(rows.iter().filter_map(|row| of(row)))?));
    let greedy = rows.iter().filter_map(|row| Some(&row.greedy.as_ref()?.bits));
    Summary {
        greedy_bits: commonest(greedy),
        optimum_bits: searched.optimum.as_ref().map(|optimum| optimum.bits.clone()),
        measures: MEASURES.iter().filter_map(measure).collect(),
        variant,
    }
}

/// The commonest assignment, the first in order among equals, and how often it stands there.
pub(super) fn commonest<'a>(
    all: impl Iterator<Item = &'a BitwidthAssignment>,
) -> Option<(BitwidthAssignment, usize)> {
    let mut counts: BTreeMap<&BitwidthAssignment, usize> = BTreeMap::new();
    all.for_each(|bits| *counts.entry(bits).or_default() += 1);
    let most = counts.into_iter().rev().max_by_key(|&(_, count)| count);
    most.map(|(bits, count)| (bits.clone(), count))
}

/// Blocks of episodes with the mean of each seed's batches that end in them.
pub(super) fn blocks(outcomes: &[(u64, SearchOutcome)]) -> Vec<(usize, Vec<Vec<&BatchRecord>>)> {
    let longest = outcomes.iter().map(|(_, outcome)| outcome.episodes).max().unwrap_or(0);
    let batches = outcomes.iter().map(|(_, outcome)| outcome.history.len()).max().unwrap_or(0);
    let count = BLOCKS.min(batches);
    let mut from = 0;
    (1..=count)
        .map(|block| {
            let to = longest * block / count;
            let within = |batch: &&BatchRecord| batch.episodes > from && batch.episodes <= to;
            let of_each = outcomes
                .iter()
                .map(|(_, outcome)| outcome.history.iter().filter(within).collect())
                .collect();
            from = to;
            (to, of_each)
        })
        .collect()
}

fn quantities(comparison: &Comparison, searched: &[Searched]) -> Vec<Quantity> {
    type Of = fn(&BatchRecord) -> f64;
    let reward: (&str, Of) = ("reward", |batch| batch.mean_reward);
    let states: [(&str, Of); 2] = [
        ("State_Accuracy", |batch| batch.mean_acc_state),
        ("State_Quantization", |batch| batch.mean_quant_state),
    ];
    let quantities = comparison.one_reward.then_some(reward).into_iter().chain(states);
    let curve = |searched: &Searched, of: Of| {
        let points = blocks(&searched.outcomes).into_iter().filter_map(|(episodes, seeds)| {
            let mean = |batches: Vec<&BatchRecord>| {
                let count = batches.len() as f64;
                (count > 0.0).then(|| batches.into_iter().map(of).sum::<f64>() / count)
            };
            let spread = Spread::of(seeds.into_iter().filter_map(mean))?;
            let (mean, deviation) = (spread.mean, spread.standard_deviation);
            Some(Point { episodes, seeds: spread.seeds, mean, deviation })
        });
        Curve { name: searched.variant.name.clone(), points: points.collect() }
    };
    quantities
        .map(|(title, of)| Quantity {
            title: title.to_owned(),
            curves: searched.iter().map(|searched| curve(searched, of)).collect(),
        })
        .collect()
}

fn searches(rows: &[Row]) -> Table {
    let mut header = vec!["variant", "seed", "episodes", "evaluations", "greedy_bits", "best_bits"];
    header.extend(MEASURES.iter().map(|(name, _)| *name).filter(|name| *name != "evaluations"));
    let mut table = Table::new(&header);
    for row in rows {
        let bits = |answer: &Option<Answer>| {
            answer.as_ref().map_or_else(String::new, |answer| answer.bits.to_string())
        };
        let fixed = [
            row.variant.clone(),
            row.seed.to_string(),
            row.episodes.to_string(),
            row.evaluations.to_string(),
            bits(&row.greedy),
            bits(&row.best),
        ];
        let measures = MEASURES.iter().filter(|(name, _)| *name != "evaluations");
        table.row(fixed.into_iter().chain(measures.map(|(_, of)| number(of(row)))));
    }
    table
}

fn summary_table(summaries: &[Summary]) -> Table {
    let mut table =
        Table::new(["variant", "measure", "seeds", "mean", "standard_deviation", "least", "most"]);
    for summary in summaries {
        for (measure, spread) in &summary.measures {
            table.row([
                summary.variant.clone(),
                (*measure).to_owned(),
                spread.seeds.to_string(),
                number(spread.mean),
                number(spread.standard_deviation),
                number(spread.least),
                number(spread.most),
            ]);
        }
    }
    table
}

fn shown(comparison: &Comparison, summaries: &[Summary]) -> String {
    // Rewards of different variants are comparable as shares of the highest, where that is known.
    let known = summaries.iter().any(|summary| summary.measures.contains_key("last_of_optimum"));
    let [of, mean, last] = if known {
        ["of optimum", "mean_of_optimum", "last_of_optimum"]
    } else {
        ["reward", "mean_reward", "last_mean_reward"]
    };
    let mut table = tables::plain();
    table.set_header([
        comparison.subject.to_owned(),
        "greedy".to_owned(),
        "accuracy\n%".to_owned(),
        format!("{of}\ngreedy"),
        "\nall".to_owned(),
        "\nlast".to_owned(),
    ]);
    for Summary { variant, greedy_bits, measures, .. } in summaries {
        let seeds = measures.get("evaluations").map_or(0, |spread| spread.seeds);
        let greedy = greedy_bits.as_ref();
        let greedy = greedy.map(|(bits, count)| format!("{bits}\n{count} of {seeds}"));
        let measure = |name: &str, decimals| text(measures.get(name), decimals);
        table.add_row([
            variant.replace(',', ", "),
            greedy.unwrap_or_else(|| "-".to_owned()),
            measure("greedy_accuracy_percent", 1),
            measure(if known { "greedy_of_optimum" } else { "greedy_reward" }, 2),
            measure(mean, 2),
            measure(last, 2),
        ]);
    }
    format!(
        "{}\n\n±: standard deviation of the seeds\n\
         greedy: what the agent would choose in the end, of most seeds\n\
         of optimum: reward over the highest in the table: of the greedy answer, and the\n\
         mean of all episodes and of the last tenth",
        tables::text(&table)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn the_commonest_is_the_first_of_equals() {
        let all: Vec<BitwidthAssignment> =
            ["3-3", "2-2", "3-3", "2-2", "4-4"].iter().map(|bits| bits.parse().unwrap()).collect();
        let (bits, count) = commonest(all.iter()).unwrap();
        assert_eq!((bits.to_string().as_str(), count), ("2-2", 2));
        assert_eq!(commonest([].iter()), None);
    }
}
