//! A table of layers by bitwidths whose cells are shaded.

use std::collections::BTreeMap;

use releq::core::Bitwidth;
use svg::node::element::Group;

use super::{
    Drawing, Width,
    marks::{Anchor, bar, fitted, text, tip},
    probabilities::SHADES,
};

const ROW: f64 = 22.0;
const HEAD: f64 = 22.0;

/// What one cell shows.
pub(super) struct Cell {
    /// From 0, the darkest, to 1.
    pub(super) share: f64,
    /// Written in it where there is room.
    pub(super) label: String,
    /// Told under the pointer.
    pub(super) told: String,
}

/// One row for each of `layers`, by name, and one column for each of `bits`.
pub(super) fn draw(
    layers: &[&str],
    bits: &[Bitwidth],
    cells: &BTreeMap<(usize, Bitwidth), Cell>,
    width: Width,
) -> Drawing {
    let names = width.pick(190.0, 122.0);
    let column = ((width.px() - names) / bits.len() as f64).min(width.pick(72.0, 60.0));
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
        let name = fitted(layer, names - 10.0);
        group = group.add(Group::new().add(tip(layer)).add(text(
            names - 8.0,
            top + 15.0,
            Anchor::End,
            "",
            &name,
        )));
        for (index, bits) in bits.iter().enumerate() {
            let Some(cell) = cells.get(&(row, *bits)) else { continue };
            let left = names + index as f64 * column;
            let shade = (cell.share.clamp(0.0, 1.0) * (SHADES - 1) as f64).round() as usize;
            let mut mark = Group::new().add(tip(&cell.told)).add(bar(
                left + 1.0,
                top + 1.0,
                column - 2.0,
                ROW - 2.0,
                &format!("shade{shade}"),
            ));
            if column >= 34.0 {
                let ink = if shade < SHADES / 2 { "on-dark" } else { "on-light" };
                let (x, y) = (left + column / 2.0, top + 15.0);
                mark = mark.add(text(x, y, Anchor::Middle, ink, &cell.label));
            }
            group = group.add(mark);
        }
    }
    Drawing::new(width, HEAD + layers.len() as f64 * ROW + 4.0, group)
}
