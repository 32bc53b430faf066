//! What the template shows, in words and in the order of the page.

use askama::Template;
use releq::{Choice, ExperimentConfig, Report, core::Bitwidth, data::Normalization};

use super::{
    Named,
    answer::{listed, of_which, verdict},
    grid::{Grid, beside, finals, summary},
};
use crate::plot::{
    Facts, Figure, Width, amount_of, last_step,
    number::{count, duration, percent, short, thousands, times},
};

/// The page.
#[derive(Debug, Template)]
#[template(path = "report.html")]
pub(super) struct Page {
    title: String,
    runs: Vec<Run>,
    all: Option<Drawn>,
    /// A row for each run.
    summary: Grid,
    /// Layer by layer, where all runs are of networks with the same layers.
    beside: Option<Grid>,
}

/// A figure on the page.
#[derive(Debug)]
pub(super) struct Drawn {
    id: String,
    title: String,
    description: String,
    wide: String,
    narrow: String,
    /// Where its files are.
    files: Option<[String; 2]>,
}

/// A number with what it is.
#[derive(Debug)]
pub(super) struct Tile {
    value: String,
    what: String,
}

/// Everything about one run.
#[derive(Debug)]
pub(super) struct Run {
    id: String,
    name: String,
    subject: String,
    bad: bool,
    headline: String,
    warnings: Vec<String>,
    compared: Vec<String>,
    tiles: Vec<Tile>,
    figures: Vec<Drawn>,
    folded: Vec<Drawn>,
    finals: Option<Grid>,
    finals_title: String,
    finals_file: Option<String>,
    about: Vec<(String, String)>,
    times: Vec<(String, String)>,
    config: String,
    command: String,
}

/// Figures that stand in a section that is folded at first.
const FOLDED: [&str; 2] = ["learning", "training"];

impl Page {
    pub(super) fn new(named: &[Named], runs: Vec<Run>, all: Option<Drawn>) -> Self {
        let title = match runs.as_slice() {
            [run] => format!("{}: bitwidths found by ReLeQ", run.name),
            _ => format!("{} runs of ReLeQ", runs.len()),
        };
        Self { title, runs, all, summary: summary(named), beside: beside(named) }
    }
}

impl Drawn {
    /// `place` is the folder of the files below `plots` and `tables`, if they are written.
    pub(super) fn new(figure: &Figure, run: &str, place: Option<&str>) -> Self {
        let id = format!("{run}-{}", figure.name);
        let [wide, narrow] = [(Width::Wide, "w"), (Width::Narrow, "n")].map(|(width, end)| {
            figure.inline(width, &format!("{id}-title"), &format!("{id}-{end}"))
        });
        let files = place.map(|place| {
            let folder = if place.is_empty() { String::new() } else { format!("{place}/") };
            [
                format!("plots/{folder}{}.svg", figure.name),
                format!("tables/{folder}{}.csv", figure.name),
            ]
        });
        let (title, description) = (figure.title.clone(), figure.description.clone());
        Self { id, title, description, wide, narrow, files }
    }
}

impl Run {
    pub(super) fn new(run: &Named, figures: &[Figure], index: usize, place: Option<&str>) -> Self {
        let report = &run.report;
        let facts = Facts::new(report, &run.training);
        let verdict = verdict(&facts);
        let id = format!("run{}", index + 1);
        let drawn = |folded: bool| -> Vec<Drawn> {
            let chosen = figures.iter().filter(|figure| FOLDED.contains(&figure.name) == folded);
            chosen.map(|figure| Drawn::new(figure, &id, place)).collect()
        };
        Self {
            name: run.name.clone(),
            subject: format!("{} on {}", network(&report.config), report.data),
            bad: verdict.bad,
            headline: verdict.headline,
            warnings: verdict.warnings,
            compared: verdict.compared,
            tiles: tiles(report),
            figures: drawn(false),
            folded: drawn(true),
            finals: finals(report),
            finals_title: format!("After the {}", last_step(report)),
            finals_file: place.map(|place| {
                let folder = if place.is_empty() { String::new() } else { format!("{place}/") };
                format!("tables/{folder}finals.csv")
            }),
            about: about(&facts),
            times: stage_times(report),
            // A configuration in memory may hold a number that JSON cannot express.
            config: report.config.to_json().unwrap_or_else(|error| error.to_string()),
            command: run.command.clone(),
            id,
        }
    }
}

pub(super) fn network(config: &ExperimentConfig) -> String {
    let network = config.network.as_ref().and_then(|network| network.build().ok());
    network.map_or_else(|| "a network".to_owned(), |network| network.name().to_owned())
}

/// The three to five numbers that people look for first.
fn tiles(report: &Report) -> Vec<Tile> {
    let tile = |value: String, what: &str| Tile { value, what: what.to_owned() };
    let Some(row) = report.chosen_row() else { return Vec::new() };
    let mut tiles = vec![
        tile(format!("{:.2}", row.mean_bits), &of_which(row)),
        tile(percent(row.test_accuracy), "test accuracy"),
        tile(format!("{:+.2}", row.loss_points), "points of loss against full precision"),
    ];
    for cost in row.costs.iter().take(2) {
        let saving = cost.saving();
        if saving.is_nan() {
            continue;
        }
        let amount = amount_of(&cost.model, cost.cost, &cost.unit);
        tiles.push(tile(
            times(saving),
            &format!("cheaper than 8 bits by {} ({amount})", cost.model),
        ));
    }
    tiles
}

/// What the run was.
fn about(facts: &Facts<'_>) -> Vec<(String, String)> {
    let report = facts.report;
    let config = &report.config;
    let [train, validation, test] = report.images.map(|images| thousands(images as u64));
    let machine = &report.machine;
    let processor = if machine.processor.is_empty() { "unknown" } else { &machine.processor };
    let all =
        |bits: &[Bitwidth]| listed(&bits.iter().map(ToString::to_string).collect::<Vec<String>>());
    let agent = match &config.agent {
        Choice::Ours(_) => report.search.agent.clone(),
        Choice::Own(name) => name.clone(),
    };
    let mut to_choose_from = all(&config.actions);
    if !config.activation_actions.is_empty() {
        to_choose_from += &format!("; of activations {}", all(&config.activation_actions));
    }
    let mut about = vec![
        ("network".to_owned(), network(config)),
        ("layers".to_owned(), layers(facts)),
        ("data".to_owned(), report.data.clone()),
        (
            "images".to_owned(),
            format!("{train} for training, {validation} for validation, {test} for the test"),
        ),
        (
            "full precision".to_owned(),
            format!(
                "{} on the validation images, {} on the test images, before the {}",
                percent(report.full_precision_validation),
                percent(report.full_precision_test),
                last_step(report)
            ),
        ),
        ("bits to choose from".to_owned(), to_choose_from),
        ("quantizer".to_owned(), config.quantizer.to_string()),
        ("cost of the search".to_owned(), facts.cost_told()),
        ("reward".to_owned(), config.reward().to_string()),
        ("agent".to_owned(), agent),
        ("tolerance".to_owned(), format!("{} points", short(100.0 * config.tolerance))),
        ("seed".to_owned(), config.seed.to_string()),
        (
            "trainer".to_owned(),
            format!("{}, {}", config.trainer, count(config.threads.get(), "thread")),
        ),
        ("machine".to_owned(), format!("{processor}, {}, {}", machine.architecture, machine.isa)),
        ("version of releq".to_owned(), report.version.clone()),
    ];
    if !config.fixed_layers.is_empty() {
        let fixed: Vec<String> =
            config.fixed_layers.iter().map(|(name, bits)| format!("{name} at {bits}")).collect();
        about.insert(6, ("layers not searched".to_owned(), listed(&fixed)));
    }
    if !config.limits.is_empty() {
        let limits: Vec<String> = config.limits.iter().map(ToString::to_string).collect();
        about.insert(8, ("limits".to_owned(), listed(&limits)));
    }
    if let Some(Normalization { mean, std }) = &report.normalization {
        let channels = |values: &[f32]| {
            values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(", ")
        };
        let pixels = format!("mean {}, standard deviation {}", channels(mean), channels(std));
        about.insert(4, ("pixels from 0 to 1".to_owned(), pixels));
    }
    about
}

fn layers(facts: &Facts<'_>) -> String {
    let sum = |of: fn(&releq::LayerRow) -> u64| {
        let total: u128 = facts.report.layers.iter().map(|layer| u128::from(of(layer))).sum();
        short(total as f64)
    };
    let (weights, macs) = (sum(|layer| layer.weights), sum(|layer| layer.macs));
    format!("{} with {weights} weights and {macs} MACs", facts.layers_with_weights())
}

/// Wall time of the stages in their order, and of all.
fn stage_times(report: &Report) -> Vec<(String, String)> {
    const ORDER: [&str; 6] =
        ["pretrain", "sensitivities", "search", "comparisons", "final", "activations"];
    let place = |stage: &str| ORDER.iter().position(|known| *known == stage);
    let mut stages: Vec<_> = report.times.iter().collect();
    stages.sort_by_key(|(stage, _)| place(stage).unwrap_or(ORDER.len()));
    let time = |(stage, seconds): (&String, &f64)| (stage.clone(), duration(*seconds));
    let mut times: Vec<(String, String)> = stages.into_iter().map(time).collect();
    if times.len() > 1 {
        times.push(("total".to_owned(), duration(report.times.values().sum())));
    }
    times
}
