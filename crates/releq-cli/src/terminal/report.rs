//! A report as tables.

use comfy_table::{Attribute, Cell, Table};
use releq::{Report, core::BitwidthAssignment};

use super::tables::{plain, right, text};

/// What the columns of the final table mean.
const COLUMNS: [(&str, &str); 4] = [
    ("loss", "percentage points of test accuracy below full precision; less is better"),
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
        "{train} images to train on, {validation} held out for every choice, {test} for this report"
    ));
    lines.push(format!(
        "full precision: {:.2} % on the test images ({:.2} % on the held-out ones)",
        100.0 * report.full_precision_test,
        100.0 * report.full_precision_validation
    ));
    lines.push(format!(
        "quantizer {}, reward {}, cost {}",
        report.config.quantizer, report.config.reward, report.config.cost
    ));

    if report.cancelled {
        let after = if report.answer.is_some() {
            "of the long retrains that were done"
        } else {
            "after a short retrain only"
        };
        lines.push(format!("\nstopped early; the best so far, {after}:"));
    }
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
        lines.push(format!("\n{}", text(&finals(report))));
        let shown = finals(report).header().map(|row| row.cell_iter().map(Cell::content).collect());
        let shown: Vec<String> = shown.unwrap_or_default();
        lines.extend(
            COLUMNS
                .iter()
                .filter(|(name, _)| shown.iter().any(|s| s == name))
                .map(|(name, meaning)| format!("{name}: {meaning}")),
        );
        if let Some(reference) = report.reference.filter(|reference| !reference.retrained) {
            lines.push(format!(
                "the long retrain made full precision worse; losses are against the {:.2} % before it",
                100.0 * reference.test_accuracy
            ));
        }
        lines.push(verdict(report));
    }
    if let Some(error) = &report.error {
        lines.push(format!("the long retrains ended early: {error}"));
    }
    let seconds: f64 = report.times.values().sum();
    let search = &report.search;
    let minutes = seconds / 60.0;
    if search.evaluations == 0 {
        lines.push(format!("no search; {minutes:.1} minutes"));
        return lines.join("\n");
    }
    let share = 1.0 - search.times["evaluation_seconds"] / search.times["seconds"].max(1e-9);
    let given_up = search.scored.iter().filter(|scored| scored.stopped_after.is_some()).count();
    lines.push(format!(
        "{} evaluations in {} episodes ({} failed, {given_up} given up early), {}; {minutes:.1} minutes, {:.2} % of the search outside evaluation",
        search.evaluations,
        search.episodes,
        search.failures,
        search.stop,
        100.0 * share
    ));
    lines.join("\n")
}

/// The rows of the report, with those columns that tell them apart.
fn finals(report: &Report) -> Table {
    let limited = report.rows.iter().any(|row| row.over_limit.is_some());
    // Of the mean of the bitwidths there is a column already.
    let priced = report.config.cost.to_string() != "mean-bits";
    let named = |model: &str| report.rows.iter().any(|row| row.cost(model).is_some());
    let (sized, stripes) = (named("size"), named("stripes"));
    let mut header = vec!["after the long retrain", "bits", "mean", "test %", "loss"];
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
            right(format!("{:+.2}", row.loss_points)),
        ];
        if priced {
            cells.push(number(row.quant_state.map(|state| format!("{state:.4}"))));
        }
        if sized {
            cells.push(number(row.cost("size").map(|size| format!("{:.1}", size.cost / 1000.0))));
        }
        if stripes {
            cells.push(number(row.cost("stripes").map(|cost| format!("{:.2}x", cost.saving()))));
        }
        if limited {
            cells.push(number(row.over_limit.map(|over| format!("{over:.2}x"))));
        }
        table.add_row(cells);
    }
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
    let left = |name: &str| matches!(name, "layer" | "bits" | "after the long retrain");
    let cell = |&name: &&str| if left(name) { Cell::new(name) } else { right(name.to_owned()) };
    names.iter().map(cell).collect()
}

/// What the report settles on, in words.
fn verdict(report: &Report) -> String {
    let points = 100.0 * report.config.tolerance;
    let Some(answer) = &report.answer else {
        return "no answer: no long retrain of an assignment that the search may choose came to its end"
            .to_owned();
    };
    let same: Vec<&str> = report
        .rows
        .iter()
        .filter(|row| row.bits == answer.bits)
        .map(|row| row.label.as_str())
        .collect();
    let (bits, labels) = (&answer.bits, same.join(", "));
    if answer.within_tolerance {
        format!(
            "answer: {bits} ({labels}), the cheapest of these within {points} points of full precision on \
             the held-out images"
        )
    } else {
        format!(
            "none was good enough: no row is within {points} points of full precision on the held-out \
             images; {bits} ({labels}) came nearest"
        )
    }
}
