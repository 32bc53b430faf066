//! A report as tables.

use comfy_table::{Attribute, Cell};
use releq::Report;

use super::tables::{framed, right};

/// What a column of the final table means.
const LOSS: &str = "loss: percentage points of test accuracy below full precision; less is better";

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
    let mut layers = framed(&["layer", "weights", "MACs", "weight std", "bits"]);
    for layer in &report.layers {
        layers.add_row([
            Cell::new(&layer.name),
            right(layer.weights.to_string()),
            right(layer.macs.to_string()),
            right(format!("{:.4}", layer.weight_std)),
            right(layer.bits.map_or_else(|| "-".into(), |bits| bits.to_string())),
        ]);
    }
    lines.push(format!("{layers}"));

    if !report.rows.is_empty() {
        let mut rows = framed(&[
            "after the long retrain",
            "bits",
            "average",
            "test %",
            "loss",
            "State_Q",
            "size",
            "Stripes over 8 bits",
        ]);
        let chosen = report.chosen_row();
        for row in &report.rows {
            let label = Cell::new(&row.label);
            rows.add_row([
                if Some(row) == chosen { label.add_attribute(Attribute::Bold) } else { label },
                Cell::new(row.bits.to_string()),
                right(format!("{:.2}", row.mean_bits)),
                right(row.failure.as_ref().map_or_else(
                    || format!("{:.2}", 100.0 * row.test_accuracy),
                    |_| "failed".into(),
                )),
                right(format!("{:+.2}", row.loss_points)),
                right(row.quant_state.map_or_else(String::new, |state| format!("{state:.4}"))),
                right(
                    row.cost("size")
                        .map_or_else(String::new, |size| format!("{:.1} kB", size.cost / 1000.0)),
                ),
                right(
                    row.cost("stripes")
                        .map_or_else(String::new, |cost| format!("{:.2}x", cost.saving())),
                ),
            ]);
        }
        lines.push(format!("{rows}"));
        lines.push(LOSS.to_owned());
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
