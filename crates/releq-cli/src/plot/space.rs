//! A space of assignments: the accuracy of each against its cost, the frontier, and where some of them lie.

use std::collections::BTreeSet;

use releq::Scored;
use svg::node::element::Group;

use super::{
    Drawing, Figure, Width,
    frame::{BELOW_TITLED, Frame, Rect},
    frontier::frontier,
    labels::{Labelled, all_names, place},
    marks::{Key, Shape, dots, legend, line, polyline, tip},
    number::{percent, thousands},
    panel::distinct,
    scale::Scale,
    table::{Table, number},
};

/// So few assignments are drawn larger.
const FEW: usize = 1000;

/// Assignments with what they were measured at.
pub(crate) struct Space<'a> {
    /// All of them.
    pub(crate) scored: &'a [Scored],
    /// Full-precision accuracy.
    pub(crate) full_precision: f64,
    /// Title of the axis of State_Quantization.
    pub(crate) cost: String,
    /// Some that have a name, the most important first; those that stand out are ringed.
    pub(crate) named: Vec<(String, &'a Scored, bool)>,
}

/// The figure; `None` without an assignment.
pub(crate) fn space(space: &Space<'_>) -> Option<Figure> {
    if space.scored.is_empty() {
        return None;
    }
    let frontier: BTreeSet<_> =
        self::frontier(space.scored).into_iter().map(|scored| &scored.bits).collect();
    let mut table = Table::new([
        "bits",
        "accuracy",
        "acc_state",
        "quant_state",
        "reward",
        "over_limit",
        "on_frontier",
        "names",
    ]);
    for scored in space.scored {
        let names = space.named.iter().filter(|(_, named, _)| named.bits == scored.bits);
        let names: Vec<&str> = names.map(|(name, ..)| name.as_str()).collect();
        table.row([
            scored.bits.to_string(),
            number(scored.accuracy),
            number(scored.acc_state),
            number(scored.quant_state),
            number(scored.reward),
            number(scored.over_limit),
            frontier.contains(&scored.bits).to_string(),
            names.join("; "),
        ]);
    }
    let description = format!(
        "Accuracy of {} assignments against their cost, with the frontier: no other assignment is both cheaper \
         and more accurate. The rings are what the agent found.",
        thousands(space.scored.len() as u64)
    );
    Some(Figure::new("space", "The space of assignments", description, table, |width| {
        draw(space, width)
    }))
}

fn draw(space: &Space<'_>, width: Width) -> Drawing {
    let told = format!("full precision, {}", percent(space.full_precision));
    let entries = [
        (Key::Mark(Shape::Circle), "fill4 pale", "assignment"),
        (Key::Line, "line ink0", "frontier"),
        (Key::Line, "dashed ink4", told.as_str()),
    ];
    let (legend, height) = legend(&entries, 0.0, 0.0, width.px());
    let top = height + 26.0;
    let bottom = top + width.pick(380.0, 300.0);
    let rect = Rect { left: 46.0, top, right: width.px() - 8.0, bottom };
    let accuracies = space.scored.iter().map(|scored| scored.accuracy);
    let accuracies: Vec<f64> = accuracies.chain([space.full_precision]).collect();
    let costs = space.scored.iter().map(|scored| scored.quant_state);
    let frame = Frame {
        rect,
        x: Scale::even(costs, rect.left + 6.0, rect.right - 6.0),
        y: Scale::accuracy(&accuracies, rect.bottom, rect.top),
    };
    let x_title = match width {
        Width::Wide => space.cost.as_str(),
        Width::Narrow => "State_Quantization",
    };
    let at = |scored: &Scored| frame.place(scored.quant_state, scored.accuracy);
    let full = frame.y.place(space.full_precision);
    let all: Vec<_> = space.scored.iter().map(at).collect();
    let frontier = self::frontier(space.scored);
    let corners: Vec<_> = frontier.iter().map(|scored| at(scored)).collect();
    let size = if all.len() <= FEW { "dots large ink4" } else { "dots ink4" };
    let mut group = Group::new()
        .add(legend)
        .add(frame.axes(x_title, "accuracy (%)"))
        .add(line((rect.left, full), (rect.right, full), "dashed ink4").add(tip(&told)))
        .add(dots(&distinct(&all), size))
        .add(polyline(&corners, "line ink0").add(tip("frontier")));
    for (scored, &(x, y)) in frontier.iter().zip(&corners) {
        let told = format!("{}, {}", scored.bits, percent(scored.accuracy));
        group = group.add(Shape::Circle.mark(x, y, 3.4, "fill0").add(tip(&told)));
    }
    // One label for all names of an assignment.
    let mut named: Vec<(Vec<&str>, &Scored, bool)> = Vec::new();
    for (name, scored, strong) in &space.named {
        match named.iter_mut().find(|(_, other, _)| other.bits == scored.bits) {
            Some((names, _, ringed)) => {
                names.push(name);
                *ringed |= strong;
            }
            None => named.push((vec![name], scored, *strong)),
        }
    }
    let mut labels = Vec::new();
    for (names, scored, strong) in &named {
        let (x, y) = at(scored);
        let told = format!("{}: {}, {}", names.join(", "), scored.bits, percent(scored.accuracy));
        let mark = if *strong {
            Shape::Circle.mark(x, y, 8.0, "ring")
        } else {
            Shape::Square.mark(x, y, 4.2, "fill1")
        };
        group = group.add(mark.add(tip(&told)));
        let name = all_names(names, ", ", width);
        labels.push(Labelled { at: (x, y), name, strong: *strong });
    }
    // Among very many points there is no clear place, and looking for one takes long.
    let obstacles: Vec<_> = corners.iter().copied().chain(all.into_iter().take(500)).collect();
    Drawing::new(width, bottom + BELOW_TITLED + 4.0, group.add(place(&labels, &obstacles, rect)))
}
