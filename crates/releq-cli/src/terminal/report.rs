//! A report as tables.

use comfy_table::{Attribute, Cell, Table};
use releq::{Report, core::BitwidthAssignment};

use unicode_width::UnicodeWidthStr;

use super::tables::{keep_words, plain, right, text, width};
use crate::{
    page,
    plot::{Facts, last_step, number::times},
};

/// What the columns of the final table mean.
const COLUMNS: [(&str, &str); 5] = [
    ("loss", "percentage points of test accuracy below full precision; less is better"),
    ("±", "one standard error of the loss, both networks on the same test images"),
    ("cost", "of the search, over its cost at the highest bitwidth to choose from"),
    ("Stripes", "speed over 8 bits, by the cycle model"),
    ("limit", "cost over the limit, of the limit that the row exceeds most"),
];

/// A report for a person.
pub(crate) fn render(report: &Report) -> String {
    let mut lines = Vec::new();
    let [train, validation, test] = report.images;
    let network = report.config.network.as_ref().and_then(|network| network.build().ok());
    let network = network.as_ref().map_or("network", |network| network.name());
    lines.push(format!("\n{network} on {}", report.data));
    lines.push(format!(
        "{train} images to {} on, {validation} held out for every choice, {test} for this report",
        if report.config.correction.is_some() { "correct" } else { "train" }
    ));
    lines.extend(wrapped(&if report.unlabelled {
        "accuracy unknown: the images have no labels; measured is the agreement with full precision"
            .to_owned()
    } else {
        format!(
            "full precision: {:.2} % on the test images ({:.2} % on the held-out ones), before the {}",
            100.0 * report.full_precision_test,
            100.0 * report.full_precision_validation,
            last_step(report)
        )
    }));
    lines.push(format!(
        "quantizer {}, reward {}, cost {}",
        report.config.quantizer,
        report.config.reward(),
        Facts::new(report, &[]).cost_told()
    ));

    let mut layers = plain();
    layers.set_header(headers(&["layer", "weights", "MACs", "weight std", "bits"]));
    for layer in &report.layers {
        layers.add_row([
            Cell::new(&layer.name),
            right(layer.weights.to_string()),
            right(layer.macs.to_string()),
            right(format!("{:.4}", layer.weight_std)),
            right(layer.bits.map_or_else(|| "-".into(), |bits| bits.to_string())),
        ]);
    }
    lines.push(format!("\n{}", text(&layers)));

    if !report.rows.is_empty() {
        let table = text(&finals(report));
        let head: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        let shown = COLUMNS.iter().filter(|(name, _)| head.contains(name));
        let meanings: Vec<String> =
            shown.map(|(name, meaning)| format!("{name}: {meaning}")).collect();
        lines.push(format!("\n{table}"));
        lines.extend(meanings);
    }
    for sentence in page::sentences(report) {
        lines.push(String::new());
        lines.extend(wrapped(&sentence));
    }
    lines.push(format!("\n{}", time(report)));
    lines.join("\n")
}

/// How long the run worked, and on what.
fn time(report: &Report) -> String {
    let minutes = report.times.values().sum::<f64>() / 60.0;
    let of_search = |name: &str| report.search.times.get(name).copied();
    match (of_search("evaluation_seconds"), of_search("seconds")) {
        (Some(evaluation), Some(all)) if report.search.evaluations > 0 && all > 0.0 => {
            let share = 100.0 * (1.0 - evaluation / all);
            format!("{minutes:.1} minutes; {share:.2} % of the search outside evaluation")
        }
        _ => format!("{minutes:.1} minutes"),
    }
}

/// Words in lines that fit the terminal.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].width() + 1 + word.width() > width().into() {
            lines.push(word.to_owned());
        } else {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}

/// The rows of the report, with those columns that tell them apart.
fn finals(report: &Report) -> Table {
    let limited = report.rows.iter().any(|row| row.over_limit.is_some());
    // Of the mean of the bitwidths there is a column already.
    let priced = report.config.cost.to_string() != "mean-bits";
    let uncertain = report.rows.iter().any(|row| row.loss_standard_error.is_some());
    let seeded = report.rows.iter().any(|row| row.seeds > 1);
    let named = |model: &str| report.rows.iter().any(|row| row.cost(model).is_some());
    let (sized, stripes) = (named("size"), named("stripes"));
    let after = format!("after the {}", last_step(report));
    let mut header = vec![after.as_str(), "bits", "mean", "test %", "loss"];
    header.extend(uncertain.then_some("±"));
    header.extend(seeded.then_some("seeds"));
    header.extend(priced.then_some("cost"));
    header.extend(sized.then_some("kB"));
    header.extend(stripes.then_some("Stripes"));
    header.extend(limited.then_some("limit"));

    let mut table = plain();
    table.set_header(headers(&header));
    let chosen = report.chosen_row();
    for row in &report.rows {
        let label = Cell::new(&row.label);
        let number = |value: Option<String>| right(value.unwrap_or_default());
        let accuracy = match row.failure {
            Some(_) => "failed".to_owned(),
            None => format!("{:.2}", 100.0 * row.test_accuracy),
        };
        let mut cells = vec![
            if Some(row) == chosen { label.add_attribute(Attribute::Bold) } else { label },
            Cell::new(short(&row.bits)),
            right(format!("{:.2}", row.mean_bits)),
            right(accuracy),
            number(row.failure.is_none().then(|| format!("{:+.2}", row.loss_points))),
        ];
        if uncertain {
            cells.push(number(row.loss_standard_error.map(|error| format!("{error:.2}"))));
        }
        if seeded {
            cells.push(right(row.seeds.to_string()));
        }
        if priced {
            cells.push(number(row.quant_state.map(|state| format!("{state:.4}"))));
        }
        if sized {
            cells.push(number(row.cost("size").map(|size| format!("{:.1}", size.cost / 1000.0))));
        }
        if stripes {
            cells.push(number(row.cost("stripes").map(|cost| times(cost.saving()))));
        }
        if limited {
            cells.push(number(row.over_limit.map(|over| format!("{over:.2}x"))));
        }
        table.add_row(cells);
    }
    keep_words(&mut table);
    table
}

/// Bitwidths, or one of them where all layers have it.
fn short(bits: &BitwidthAssignment) -> String {
    match bits.first() {
        Some(first) if bits.len() > 1 && bits.iter().all(|other| other == first) => {
            format!("all {first}")
        }
        _ => bits.to_string(),
    }
}

/// The first column is text, the others are mostly numbers.
fn headers(names: &[&str]) -> Vec<Cell> {
    let left = |name: &str| matches!(name, "layer" | "bits") || name.starts_with("after the ");
    let cell = |&name: &&str| if left(name) { Cell::new(name) } else { right(name.to_owned()) };
    names.iter().map(cell).collect()
}
