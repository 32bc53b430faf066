//! Accuracy against cost after the long retrain.

use releq::FinalRow;
use svg::node::element::Group;

use super::{
    Drawing, Facts, Figure, RowKind, Width,
    facts::standard_error,
    frame::{BELOW_TITLED, Frame, Rect, whisker_values},
    labels::{Labelled, all_names, place},
    marks::{Key, Shape, legend, line, tip},
    number::percent,
    scale::Scale,
    table::{Table, number},
};

/// Rows with the same bitwidths: one point.
struct Point<'a> {
    row: &'a FinalRow,
    kind: RowKind,
    names: Vec<&'a str>,
    cost: f64,
    error: f64,
    is_answer: bool,
}

const fn look(kind: RowKind) -> (usize, Shape) {
    match kind {
        RowKind::Agent => (0, Shape::Circle),
        RowKind::Rival => (1, Shape::Triangle),
        RowKind::Uniform => (2, Shape::Square),
        RowKind::Named => (3, Shape::Diamond),
        RowKind::Float => (4, Shape::Down),
    }
}

pub(super) fn figure(facts: &Facts<'_>) -> Option<Figure> {
    let report = facts.report;
    if report.rows.is_empty() {
        return None;
    }
    let mut table = Table::new([
        "label",
        "kind",
        "bits",
        "mean_bits",
        "quant_state",
        "test_accuracy",
        "standard_error",
        "validation_accuracy",
        "over_limit",
        "is_answer",
        "failure",
    ]);
    let answer = report.answer.as_ref();
    for row in &report.rows {
        let measured = |value: f64| row.failure.is_none().then_some(value);
        let error = standard_error(row.test_accuracy, report.images[2]);
        table.row([
            row.label.clone(),
            facts.row_kind(row).name().to_owned(),
            row.bits.to_string(),
            number(row.mean_bits),
            number(row.quant_state),
            number(measured(row.test_accuracy)),
            number(measured(error)),
            number(measured(row.validation_accuracy)),
            number(row.over_limit),
            answer.is_some_and(|answer| answer.bits == row.bits).to_string(),
            row.failure.clone().unwrap_or_default(),
        ]);
    }
    let step = super::last_step(report);
    let ring = if answer.is_some() { " The ring marks the answer." } else { "" };
    let dashed = match report.reference {
        Some(_) => " The dashed line is full precision.",
        None => "",
    };
    let description = format!(
        "Accuracy on {} test images of what the report compares after the {step}, with one standard error, against \
         its cost. Higher and further left is better.{ring}{dashed}",
        super::number::thousands(report.images[2] as u64)
    );
    Some(Figure::new(
        "accuracy-against-cost",
        format!("Accuracy against cost after the {step}"),
        description,
        table,
        |width| draw(facts, width),
    ))
}

fn points<'a>(facts: &Facts<'a>) -> Vec<Point<'a>> {
    let report = facts.report;
    let mut points: Vec<Point<'a>> = Vec::new();
    for row in &report.rows {
        let kind = facts.row_kind(row);
        let (Some(cost), false) = (row.quant_state, kind == RowKind::Float) else { continue };
        if let Some(same) = points.iter_mut().find(|point| point.row.bits == row.bits) {
            same.names.push(&row.label);
            continue;
        }
        points.push(Point {
            row,
            kind,
            names: vec![&row.label],
            cost,
            error: standard_error(row.test_accuracy, report.images[2]),
            is_answer: report.answer.as_ref().is_some_and(|answer| answer.bits == row.bits),
        });
    }
    points
}

fn draw(facts: &Facts<'_>, width: Width) -> Drawing {
    let report = facts.report;
    let points = points(facts);
    let kinds: Vec<RowKind> = RowKind::ALL
        .into_iter()
        .filter(|kind| points.iter().any(|point| point.kind == *kind))
        .collect();
    let classes: Vec<String> = kinds.iter().map(|kind| format!("fill{}", look(*kind).0)).collect();
    let mut entries: Vec<(Key, &str, &str)> = kinds
        .iter()
        .zip(&classes)
        .map(|(kind, class)| (Key::Mark(look(*kind).1), class.as_str(), kind.name()))
        .collect();
    if points.iter().any(|point| point.row.over_limit.is_some()) {
        entries.push((Key::Mark(Shape::Circle), "hollow ink5", "hollow: over a limit"));
    }
    if points.iter().any(|point| point.is_answer) {
        entries.push((Key::Mark(Shape::Circle), "ring", "the answer"));
    }
    if points.iter().any(|point| point.row.failure.is_some()) {
        entries.push((Key::Mark(Shape::Cross), "line ink5", "failed"));
    }
    let reference = report.reference.map(|reference| reference.test_accuracy);
    let full_precision = reference.map(|accuracy| format!("full precision, {}", percent(accuracy)));
    if let Some(told) = &full_precision {
        entries.push((Key::Line, "dashed ink4", told));
    }
    let (legend, height) = legend(&entries, 0.0, 0.0, width.px());
    let top = height + 26.0;
    let bottom = top + width.pick(330.0, 300.0);
    let rect = Rect { left: 46.0, top, right: width.px() - 8.0, bottom };

    let measured = points.iter().filter(|point| point.row.failure.is_none());
    let accuracies: Vec<f64> = measured
        .clone()
        .flat_map(|point| whisker_values(point.row.test_accuracy, point.error))
        .chain(reference)
        .collect();
    let costs = points.iter().map(|point| point.cost);
    let frame = Frame {
        rect,
        x: Scale::even(costs, rect.left + 6.0, rect.right - 6.0),
        y: Scale::accuracy(&accuracies, rect.bottom, rect.top),
    };
    let axis = match width {
        Width::Wide => facts.cost_axis(),
        Width::Narrow => "State_Quantization".to_owned(),
    };
    let mut group = Group::new().add(legend).add(frame.axes(&axis, "test accuracy (%)"));
    if let (Some(reference), Some(told)) = (reference, &full_precision) {
        let y = frame.y.place(reference);
        let rule = line((rect.left, y), (rect.right, y), "dashed ink4").add(tip(told));
        group = group.add(rule);
    }
    let (mut labels, mut whiskers) = (Vec::new(), Vec::new());
    for point in &points {
        let row = point.row;
        let (x, y) = frame.place(point.cost, row.test_accuracy);
        let (colour, shape) = look(point.kind);
        let names = point.names.join(" = ");
        let name = all_names(&point.names, " = ", width);
        let told = match &row.failure {
            Some(failure) => format!("{names} ({}): failed, {failure}", row.bits),
            None => format!(
                "{names}: {}, {} ± {:.2}, State_Quantization {:.4}{}",
                row.bits,
                percent(row.test_accuracy),
                100.0 * point.error,
                point.cost,
                row.over_limit
                    .map_or_else(String::new, |over| format!(", {over:.2} times a limit")),
            ),
        };
        let mut mark = Group::new().add(tip(&told));
        if row.failure.is_some() {
            mark = mark.add(Shape::Cross.mark(x, rect.bottom - 5.0, 5.0, "line ink5"));
            labels.push(Labelled { at: (x, rect.bottom - 5.0), name, strong: false });
            group = group.add(mark);
            continue;
        }
        let [low, high] = frame.whisker(row.test_accuracy, point.error);
        mark = mark.add(line((x, low), (x, high), &format!("whisker ink{colour}")));
        whiskers.extend((0..=8).map(|part| (x, low + (high - low) * f64::from(part) / 8.0)));
        let class = match row.over_limit {
            Some(_) => format!("hollow ink{colour}"),
            None => format!("fill{colour}"),
        };
        mark = mark.add(shape.mark(x, y, 5.0, &class));
        if point.is_answer {
            mark = mark.add(Shape::Circle.mark(x, y, 10.0, "ring"));
        }
        group = group.add(mark);
        labels.push(Labelled { at: (x, y), name, strong: point.is_answer });
    }
    labels.sort_by_key(|label| !label.strong);
    group = group.add(place(&labels, &whiskers, rect));
    Drawing::new(width, bottom + BELOW_TITLED + 4.0, group)
}
