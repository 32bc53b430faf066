//! How assignments fared that have a certain bitwidth in a certain layer.

use std::collections::BTreeMap;

use releq::core::Bitwidth;
use svg::node::element::Group;

use super::{
    Drawing, Facts, Figure, Width,
    marks::{Anchor, bar, fitted, text, tip},
    number::count,
    probabilities::SHADES,
    scale::extent,
    table::{Table, number},
};

const ROW: f64 = 22.0;
const HEAD: f64 = 22.0;

/// What the assignments came to that have one bitwidth in one layer.
#[derive(Default)]
struct Cell {
    sum: f64,
    best: f64,
    count: usize,
}

impl Cell {
    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}

pub(super) fn figure(facts: &Facts<'_>) -> Option<Figure> {
    let layers = facts.report.layers.len();
    let mut cells: BTreeMap<(usize, Bitwidth), Cell> = BTreeMap::new();
    for (_, outcome) in facts.searches() {
        for scored in outcome.scored.iter().filter(|scored| scored.failure.is_none()) {
            if scored.bits.len() != layers || !scored.acc_state.is_finite() {
                continue;
            }
            for (layer, &bits) in scored.bits.iter().enumerate() {
                let cell = cells.entry((layer, bits)).or_default();
                cell.sum += scored.acc_state;
                cell.best = cell.best.max(scored.acc_state);
                cell.count += 1;
            }
        }
    }
    let bits: std::collections::BTreeSet<Bitwidth> = cells.keys().map(|&(_, bits)| bits).collect();
    if bits.len() < 2 {
        return None;
    }
    let mut table =
        Table::new(["layer", "bits", "assignments", "mean_acc_state", "best_acc_state"]);
    for ((layer, bits), cell) in &cells {
        table.row([
            facts.report.layers[*layer].name.clone(),
            bits.to_string(),
            cell.count.to_string(),
            number(cell.mean()),
            number(cell.best),
        ]);
    }
    let bits: Vec<Bitwidth> = bits.into_iter().collect();
    Some(Figure::new(
        "sensitivity",
        "Sensitivity of the layers",
        "Mean State_Accuracy, in percent, of all measured assignments that have this bitwidth in this layer, after \
         the short retrain; lighter is better. Other layers vary as the searches chose them, so this shows which \
         layers suffer from few bits, and not what one layer alone costs.",
        table,
        |width| draw(facts, &bits, &cells, width),
    ))
}

fn draw(
    facts: &Facts<'_>,
    bits: &[Bitwidth],
    cells: &BTreeMap<(usize, Bitwidth), Cell>,
    width: Width,
) -> Drawing {
    let layers = &facts.report.layers;
    let names = width.pick(190.0, 122.0);
    let column = ((width.px() - names) / bits.len() as f64).min(width.pick(72.0, 60.0));
    let (least, most) = extent(cells.values().map(Cell::mean)).unwrap_or((0.0, 1.0));
    let range = (most - least).max(1e-9);
    let mut group = Group::new();
    for (index, bits) in bits.iter().enumerate() {
        let middle = names + (index as f64 + 0.5) * column;
        let title = if width == Width::Wide && column > 50.0 && !bits.is_float() {
            format!("{bits} bits")
        } else {
            bits.to_string()
        };
        group = group.add(text(middle, 12.0, Anchor::Middle, "quiet", &title));
    }
    for (row, layer) in layers.iter().enumerate() {
        let top = HEAD + row as f64 * ROW;
        let name = fitted(&layer.name, names - 10.0);
        group = group.add(Group::new().add(tip(&layer.name)).add(text(
            names - 8.0,
            top + 15.0,
            Anchor::End,
            "",
            &name,
        )));
        for (index, bits) in bits.iter().enumerate() {
            let Some(cell) = cells.get(&(row, *bits)) else { continue };
            let left = names + index as f64 * column;
            let share = ((cell.mean() - least) / range).clamp(0.0, 1.0);
            let shade = (share * (SHADES - 1) as f64).round() as usize;
            let told = format!(
                "{}, {bits} bits: State_Accuracy {:.2} % on average over {}, {:.2} % at best",
                layer.name,
                100.0 * cell.mean(),
                count(cell.count, "assignment"),
                100.0 * cell.best
            );
            let mut mark = Group::new().add(tip(&told)).add(bar(
                left + 1.0,
                top + 1.0,
                column - 2.0,
                ROW - 2.0,
                &format!("shade{shade}"),
            ));
            if column >= 34.0 {
                let ink = if shade < SHADES / 2 { "on-dark" } else { "on-light" };
                let label = format!("{:.1}", 100.0 * cell.mean());
                mark = mark.add(text(left + column / 2.0, top + 15.0, Anchor::Middle, ink, &label));
            }
            group = group.add(mark);
        }
    }
    Drawing::new(width, HEAD + layers.len() as f64 * ROW + 4.0, group)
}
