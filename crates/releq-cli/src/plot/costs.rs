//! What every cost model says of the rows, over 8 bits.

use releq::{FinalRow, RowCost, hw::CostKind};
use svg::node::element::Group;

use super::{
    Drawing, Facts, Figure, RowKind, Width,
    marks::{Anchor, bar, fitted, line, text, text_width, tip},
    number::{amount, times},
    table::{Table, number},
};

const ROW: f64 = 20.0;
const HEAD: f64 = 30.0;

/// Name and unit of every model, in the order in which they first appear.
pub(crate) fn models(rows: &[FinalRow]) -> Vec<(&str, &str)> {
    let mut models: Vec<(&str, &str)> = Vec::new();
    for RowCost { model, unit, .. } in rows.iter().flat_map(|row| &row.costs) {
        if !models.contains(&(model, unit)) {
            models.push((model, unit));
        }
    }
    models
}

/// What a model says, with its unit: that of mean bits is the sum over the layers.
pub(crate) fn amount_of(model: &str, number: f64, unit: &str) -> String {
    let amount = amount(number, unit);
    if model == CostKind::MeanBits.name() { format!("{amount} in all layers") } else { amount }
}

/// How many times cheaper than 8 bits; an infinity where it is free, `None` where 8 bits are free too.
fn saving(cost: &RowCost) -> Option<f64> {
    let saving = cost.saving();
    (!saving.is_nan()).then_some(saving)
}

pub(super) fn figure(facts: &Facts<'_>) -> Option<Figure> {
    let rows = &facts.report.rows;
    let models = models(rows);
    if models.is_empty() {
        return None;
    }
    let mut table =
        Table::new(["label", "bits", "model", "unit", "cost", "at_eight_bits", "saving"]);
    for row in rows {
        for cost in &row.costs {
            table.row([
                row.label.clone(),
                row.bits.to_string(),
                cost.model.clone(),
                cost.unit.clone(),
                number(cost.cost),
                number(cost.at_eight_bits),
                number(saving(cost)),
            ]);
        }
    }
    let bold = match facts.report.answer {
        Some(_) => " Bold rows have the bitwidths of the answer.",
        None => "",
    };
    let description = format!(
        "How many times cheaper than 8 bits in every layer each assignment is, by every cost model of the run; \
         longer is better, and the line is 8 bits. Activations have 8 bits.{bold}"
    );
    Some(Figure::new("costs", "Costs over 8 bits", description, table, |width| {
        draw(facts, &models, width)
    }))
}

fn draw(facts: &Facts<'_>, models: &[(&str, &str)], width: Width) -> Drawing {
    let columns = if width == Width::Wide && models.len() > 1 { 2 } else { 1 };
    let gap = 28.0;
    let block = (width.px() - gap * (columns as f64 - 1.0)) / columns as f64;
    let mut group = Group::new();
    let mut top = 0.0;
    for pair in models.chunks(columns) {
        let mut tallest: f64 = 0.0;
        for (index, (model, unit)) in pair.iter().enumerate() {
            let left = index as f64 * (block + gap);
            let (drawn, height) = bars(facts, model, unit, left, top, block);
            group = group.add(drawn);
            tallest = tallest.max(height);
        }
        top += tallest + 14.0;
    }
    Drawing::new(width, (top - 8.0).max(1.0), group)
}

/// The bars of one model, and how high they are.
fn bars(
    facts: &Facts<'_>,
    model: &str,
    unit: &str,
    left: f64,
    top: f64,
    width: f64,
) -> (Group, f64) {
    let priced: Vec<(&FinalRow, &RowCost)> = facts
        .report
        .rows
        .iter()
        .filter_map(|row| {
            let cost = row.costs.iter().find(|cost| cost.model == model && cost.unit == unit)?;
            Some((row, cost))
        })
        .collect();
    let longest = priced.iter().map(|(row, _)| text_width(&row.label)).fold(40.0, f64::max);
    let names = longest.min(0.36 * width) + 8.0;
    let told: Vec<String> = priced
        .iter()
        .map(|(_, cost)| {
            // The title has the unit; bytes are short enough to have a prefix of their own.
            let amount = amount_of(model, cost.cost, if unit == "bytes" { unit } else { "" });
            saving(cost)
                .map_or_else(|| amount.clone(), |saving| format!("{}  {amount}", times(saving)))
        })
        .collect();
    let behind = told.iter().map(|told| text_width(told)).fold(0.0, f64::max) + 8.0;
    let room = (width - names - behind).max(20.0);
    let finite = priced.iter().filter_map(|(_, cost)| saving(cost)).filter(|s| s.is_finite());
    let most = finite.fold(1.0, f64::max);
    let bottom = top + HEAD + ROW * priced.len() as f64;

    let title = if unit.is_empty() || model == unit {
        model.to_owned()
    } else {
        format!("{model} ({unit})")
    };
    let mut group =
        Group::new().add(text(left, top + 14.0, Anchor::Start, "strong", &fitted(&title, width)));
    let zero = left + names;
    let eight = zero + room / most;
    group = group.add(line((eight, top + HEAD - 4.0), (eight, bottom), "dashed ink4"));
    for (index, ((row, cost), told)) in priced.iter().zip(&told).enumerate() {
        let y = top + HEAD + ROW * index as f64;
        let is_answer = facts.report.answer.as_ref().is_some_and(|answer| answer.bits == row.bits);
        let class = if is_answer { "strong" } else { "" };
        let halo = format!("halo {class}");
        let colour = match facts.row_kind(row) {
            RowKind::Agent => 0,
            RowKind::Rival => 1,
            RowKind::Uniform => 2,
            RowKind::Named => 3,
            RowKind::Float => 4,
        };
        let share = saving(cost).unwrap_or(0.0).min(most) / most;
        let name = fitted(&row.label, names - 8.0);
        let long = format!(
            "{} ({}), {model}: {}; {} at 8 bits",
            row.label,
            row.bits,
            amount_of(model, cost.cost, unit),
            amount_of(model, cost.at_eight_bits, unit)
        );
        group = group.add(
            Group::new()
                .add(tip(&long))
                .add(text(zero - 8.0, y + 14.0, Anchor::End, class, &name))
                .add(bar(zero, y + 3.0, share * room, ROW - 7.0, &format!("fill{colour}")))
                .add(text(zero + share * room + 6.0, y + 14.0, Anchor::Start, &halo, told)),
        );
    }
    group = group.add(line((zero, top + HEAD - 4.0), (zero, bottom), "rule"));
    (group, bottom - top)
}
