//! Tables of the page.

use releq::{FinalRow, Report, core::Bitwidth};

use super::{Named, view::network};
use crate::plot::{
    amount_of, forbidden, last_step,
    number::{amount, duration, thousands, times},
    uniform,
};

/// A cell of a table: its text, and what it is sorted by.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) key: String,
    pub(super) number: bool,
    /// Whether it stays on one line.
    pub(super) whole: bool,
}

/// A table.
#[derive(Debug)]
pub(super) struct Grid {
    pub(super) header: Vec<(String, bool)>,
    pub(super) rows: Vec<(bool, Vec<Cell>)>,
}

/// Characters of a cell that are kept on one line.
const WHOLE: usize = 24;

impl Cell {
    fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { key: text.clone(), whole: text.chars().count() <= WHOLE, text, number: false }
    }

    fn number(key: impl Into<Option<f64>>, text: impl Into<String>) -> Self {
        let key = key.into().filter(|key| key.is_finite());
        let key = key.map_or_else(String::new, |key| key.to_string());
        Self { text: text.into(), key, number: true, whole: true }
    }

    /// A number that need not be there.
    fn optional(key: Option<f64>, text: impl FnOnce(f64) -> String) -> Self {
        Self::number(key, key.map_or_else(String::new, text))
    }
}

fn header(columns: &[(&str, bool)]) -> Vec<(String, bool)> {
    columns.iter().map(|&(name, number)| (name.to_owned(), number)).collect()
}

/// All rows of the finals.
pub(super) fn finals(report: &Report) -> Option<Grid> {
    if report.rows.is_empty() {
        return None;
    }
    let models = crate::plot::models(&report.rows);
    let after = format!("after the {}", last_step(report));
    let mut columns = header(&[
        (after.as_str(), false),
        ("bits", false),
        ("mean bits", true),
        ("validation %", true),
        ("test %", true),
        ("loss (points)", true),
        ("± (points)", true),
        ("State_Quantization", true),
    ]);
    for (model, _) in &models {
        columns.push(((*model).to_owned(), true));
        columns.push((format!("{model} over 8 bits"), true));
    }
    columns.push(("note".to_owned(), false));
    let rows = report.rows.iter().map(|row| {
        let is_answer = report.answer.as_ref().is_some_and(|answer| answer.bits == row.bits);
        (is_answer, finals_row(report, row, &models, is_answer))
    });
    Some(Grid { header: columns, rows: rows.collect() })
}

fn finals_row(
    report: &Report,
    row: &FinalRow,
    models: &[(&str, &str)],
    is_answer: bool,
) -> Vec<Cell> {
    let failed = row.failure.is_some();
    let share = |accuracy: f64| {
        if failed {
            Cell::number(None, "failed")
        } else {
            Cell::number(accuracy, format!("{:.2}", 100.0 * accuracy))
        }
    };
    let mut cells = vec![
        Cell::text(&row.label),
        Cell::text(bits(&row.bits)),
        Cell::number(row.mean_bits, format!("{:.2}", row.mean_bits)),
        share(row.validation_accuracy),
        share(row.test_accuracy),
        if failed {
            Cell::number(None, "")
        } else {
            Cell::number(row.loss_points, format!("{:+.2}", row.loss_points))
        },
        Cell::optional(row.loss_standard_error, |error| format!("{error:.2}")),
        Cell::optional(row.quant_state, |state| format!("{state:.4}")),
    ];
    for (model, unit) in models {
        let cost = row.costs.iter().find(|cost| cost.model == *model && cost.unit == *unit);
        let of_model = |cost| amount_of(model, cost, unit);
        cells.push(Cell::optional(cost.map(|cost| cost.cost), of_model));
        let saving = cost.map(releq::RowCost::saving).filter(|saving| !saving.is_nan());
        cells.push(Cell::optional(saving, times));
    }
    let mut notes = Vec::new();
    if is_answer {
        let within = report.answer.as_ref().is_some_and(|answer| answer.within_tolerance);
        notes.push(if within { "the answer" } else { "nearest" }.to_owned());
    }
    if row.seeds > 1 {
        notes.push(format!("mean of {} seeds", row.seeds));
    }
    notes.extend(row.over_limit.map(|over| format!("{over:.2} times a limit")));
    // That full precision is no answer needs no word.
    if !uniform(&row.bits).is_some_and(Bitwidth::is_float) {
        notes.extend(forbidden(report, &row.bits).map(str::to_owned));
    }
    notes.extend(row.failure.clone());
    cells.push(Cell::text(notes.join("; ")));
    cells
}

/// All bits of a short assignment, or of one that has several.
fn bits(bits: &[Bitwidth]) -> String {
    match bits {
        [first, rest @ ..] if rest.len() >= 8 && rest.iter().all(|other| other == first) => {
            format!("{first} in all layers")
        }
        _ => bits.iter().map(ToString::to_string).collect::<Vec<_>>().join("-"),
    }
}

/// A row for each run.
pub(super) fn summary(runs: &[Named]) -> Grid {
    let columns = header(&[
        ("run", false),
        ("network", false),
        ("answer of", false),
        ("mean bits", true),
        ("loss (points)", true),
        ("within tolerance", false),
        ("size", true),
        ("evaluations", true),
        ("time", true),
    ]);
    Grid { header: columns, rows: runs.iter().map(|run| (false, summary_row(run))).collect() }
}

fn summary_row(run: &Named) -> Vec<Cell> {
    let report = &run.report;
    let row = report.chosen_row();
    let size = row.and_then(|row| row.cost("size"));
    let seconds: f64 = report.times.values().sum();
    let within = match &report.answer {
        Some(answer) if answer.within_tolerance => "yes",
        Some(_) => "no",
        None => "no answer",
    };
    vec![
        Cell::text(&run.name),
        Cell::text(network(&report.config)),
        Cell::text(report.answer.as_ref().map_or("", |answer| &answer.label)),
        Cell::optional(row.map(|row| row.mean_bits), |bits| format!("{bits:.2}")),
        Cell::optional(row.map(|row| row.loss_points), |points| format!("{points:+.2}")),
        Cell::text(within),
        Cell::number(
            size.map(|size| size.cost),
            size.map_or_else(String::new, |size| amount(size.cost, &size.unit)),
        ),
        Cell::number(report.search.evaluations as f64, thousands(report.search.evaluations as u64)),
        Cell::number(seconds, duration(seconds)),
    ]
}

/// The bitwidths of all runs layer by layer; only for networks with the same layers.
pub(super) fn beside(runs: &[Named]) -> Option<Grid> {
    let names = |run: &Named| -> Vec<String> {
        run.report.layers.iter().map(|layer| layer.name.clone()).collect()
    };
    let first = runs.first()?;
    if runs.len() < 2 || runs.iter().any(|run| names(run) != names(first)) {
        return None;
    }
    let mut columns = header(&[("layer", false)]);
    columns.extend(runs.iter().map(|run| (run.name.clone(), true)));
    let rows = first.report.layers.iter().enumerate().map(|(index, layer)| {
        let mut cells = vec![Cell::text(&layer.name)];
        cells.extend(runs.iter().map(|run| {
            let bits = run.report.layers[index].bits;
            let key = bits.and_then(Bitwidth::integer).map(f64::from);
            Cell::number(key, bits.map_or_else(String::new, |bits| bits.to_string()))
        }));
        (false, cells)
    });
    Some(Grid { header: columns, rows: rows.collect() })
}
