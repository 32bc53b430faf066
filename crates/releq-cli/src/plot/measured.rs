//! Everything that the searches measured: accuracy against cost, with the frontier.

use std::collections::BTreeSet;

use releq::Scored;
use svg::node::element::Group;

use super::{
    Drawing, Facts, Figure, Width,
    facts::first_step,
    frame::{BELOW_TITLED, Frame, Rect, whisker_values},
    frontier::frontier,
    labels::{Labelled, place},
    marks::{Key, Shape, dots, legend, line, polyline, tip},
    number::{percent, thousands},
    panel::thinned,
    scale::Scale,
    table::{Table, number},
};

/// So many points of one search have a mark each; of more, only the frontier has, and the rest are dots.
const MARKED: usize = 300;

/// So many points are kept clear of labels; among more there is no clear place.
const OBSTACLES: usize = 1000;

pub(super) fn figure(facts: &Facts<'_>) -> Option<Figure> {
    let searches: Vec<_> = facts.searches().collect();
    let count: usize = searches.iter().map(|(_, outcome)| outcome.scored.len()).sum();
    if count == 0 {
        return None;
    }
    let mut table = Table::new([
        "search",
        "evaluation",
        "bits",
        "accuracy",
        "standard_error",
        "acc_state",
        "quant_state",
        "reward",
        "over_limit",
        "on_frontier",
        "stopped_after",
        "failure",
    ]);
    for (name, outcome) in &searches {
        let frontier: BTreeSet<_> =
            self::frontier(&outcome.scored).into_iter().map(|scored| &scored.bits).collect();
        for (index, scored) in outcome.scored.iter().enumerate() {
            table.row([
                name.clone(),
                (index + 1).to_string(),
                scored.bits.to_string(),
                number(scored.accuracy),
                number(scored.standard_error),
                number(scored.acc_state),
                number(scored.quant_state),
                number(scored.reward),
                number(scored.over_limit),
                frontier.contains(&scored.bits).to_string(),
                scored.stopped_after.map_or_else(String::new, |step| step.to_string()),
                scored.failure.clone().unwrap_or_default(),
            ]);
        }
    }
    let mut more = String::new();
    if facts.search_reference().is_none()
        && searches.iter().any(|(_, o)| o.scored.iter().any(measured))
    {
        more.push_str(
            " The searches rank by State_Accuracy, which is here an estimate from how far the outputs are from those in \
             full precision; the numbers have it.",
        );
    }
    // Of the rows after the long retrain there is a figure of its own.
    if facts.report.config.correction.is_none() && !facts.report.rows.is_empty() {
        more.push_str(
            " The long retrain wins accuracy back, so heights are not those of the figure above.",
        );
    }
    let is_chosen = |scored: &Scored| {
        scored.failure.is_none() && facts.report.chosen.as_ref() == Some(&scored.bits)
    };
    let ringed = searches.iter().any(|(_, outcome)| outcome.scored.iter().any(is_chosen));
    let ring = match (ringed, &facts.report.answer) {
        (true, Some(_)) => " The ring marks the answer.",
        (true, None) => " There is no answer; the ring marks the best so far.",
        (false, _) => "",
    };
    let after = first_step(facts.report);
    // Several searches measure the uniform bitwidths, and other assignments by chance.
    let distinct: BTreeSet<_> = searches
        .iter()
        .flat_map(|(_, outcome)| outcome.scored.iter().map(|scored| &scored.bits))
        .collect();
    let description = format!(
        "Accuracy after the {after} of all {} assignments that the searches measured, against cost, with one \
         standard error on the frontier. The line joins the agent's frontier: none of its other assignments is both \
         cheaper and more accurate.{ring}{more}",
        thousands(distinct.len() as u64)
    );
    Some(Figure::new("measured", "What the searches measured", description, table, |width| {
        draw(facts, width)
    }))
}

fn measured(scored: &Scored) -> bool {
    scored.failure.is_none() && scored.accuracy > 0.0
}

fn told(name: &str, scored: &Scored) -> String {
    let mut told = match &scored.failure {
        Some(failure) => return format!("{name}: {}, failed: {failure}", scored.bits),
        None => format!("{name}: {}, {}", scored.bits, percent(scored.accuracy)),
    };
    if let Some(error) = scored.standard_error {
        told.push_str(&format!(" ± {:.2}", 100.0 * error));
    }
    told.push_str(&format!(", State_Quantization {:.4}", scored.quant_state));
    if let Some(over) = scored.over_limit {
        told.push_str(&format!(", {over:.2} times a limit"));
    }
    told
}

fn draw(facts: &Facts<'_>, width: Width) -> Drawing {
    let searches: Vec<_> = facts.searches().collect();
    let all = || searches.iter().flat_map(|(_, outcome)| &outcome.scored);
    let classes: Vec<[String; 3]> = (0..searches.len())
        .map(|i| [format!("fill{i} pale"), format!("hollow ink{i} pale"), format!("dots ink{i}")])
        .collect();
    let mut entries: Vec<(Key, &str, &str)> = searches
        .iter()
        .zip(&classes)
        .enumerate()
        .filter(|(_, ((_, outcome), _))| !outcome.scored.is_empty())
        .map(|(i, ((name, _), class))| (Key::Mark(Shape::of(i)), class[0].as_str(), name.as_str()))
        .collect();
    entries.push((Key::Line, "line ink0", "frontier"));
    if all().any(|scored| scored.over_limit.is_some()) {
        entries.push((Key::Mark(Shape::Circle), "hollow ink5", "hollow: over a limit"));
    }
    if all().any(|scored| scored.failure.is_some()) {
        entries.push((Key::Mark(Shape::Cross), "line ink5", "failed"));
    }
    let reference = facts.search_reference();
    let full_precision = reference.map(|accuracy| format!("full precision, {}", percent(accuracy)));
    if let Some(told) = &full_precision {
        entries.push((Key::Line, "dashed ink4", told));
    }
    let (legend, height) = legend(&entries, 0.0, 0.0, width.px());
    let top = height + 26.0;
    let bottom = top + width.pick(340.0, 300.0);
    let rect = Rect { left: 46.0, top, right: width.px() - 8.0, bottom };

    let frontiers: Vec<Vec<&Scored>> =
        searches.iter().map(|(_, outcome)| frontier(&outcome.scored)).collect();
    let whiskers = frontiers
        .iter()
        .flatten()
        .filter_map(|scored| Some(whisker_values(scored.accuracy, scored.standard_error?)));
    let accuracies: Vec<f64> = all()
        .filter(|scored| scored.failure.is_none())
        .map(|scored| scored.accuracy)
        .chain(whiskers.flatten())
        .chain(reference)
        .collect();
    let frame = Frame {
        rect,
        x: Scale::even(all().map(|s| s.quant_state), rect.left + 6.0, rect.right - 6.0),
        y: Scale::accuracy(&accuracies, rect.bottom, rect.top),
    };
    let axis = match width {
        Width::Wide => facts.cost_axis(),
        Width::Narrow => "State_Quantization".to_owned(),
    };
    let mut group = Group::new()
        .add(legend)
        .add(frame.axes(&axis, "accuracy on the search's validation images (%)"));
    if let (Some(reference), Some(told)) = (reference, &full_precision) {
        let y = frame.y.place(reference);
        group = group.add(line((rect.left, y), (rect.right, y), "dashed ink4").add(tip(told)));
    }
    // The agent's points last, above the others.
    for (index, (name, outcome)) in searches.iter().enumerate().rev() {
        let frontier = &frontiers[index];
        let on_frontier: BTreeSet<_> = frontier.iter().map(|scored| &scored.bits).collect();
        let marked = outcome.scored.len() <= MARKED;
        let mut faint = Vec::new();
        for scored in &outcome.scored {
            let (x, y) = frame.place(scored.quant_state, scored.accuracy);
            if scored.failure.is_some() {
                let mark = Shape::Cross.mark(x, rect.bottom - 5.0, 4.0, "line ink5");
                group = group.add(mark.add(tip(&told(name, scored))));
            } else if marked && !on_frontier.contains(&scored.bits) {
                let class = usize::from(scored.over_limit.is_some());
                let mark = Shape::of(index).mark(x, y, 3.4, &classes[index][class]);
                group = group.add(mark.add(tip(&told(name, scored))));
            } else if !on_frontier.contains(&scored.bits) {
                faint.push((x, y));
            }
        }
        if !faint.is_empty() {
            let dots = dots(&super::panel::distinct(&faint), &classes[index][2]);
            group = group.add(dots.add(tip(name)));
        }
        let corners: Vec<_> =
            frontier.iter().map(|s| frame.place(s.quant_state, s.accuracy)).collect();
        if index == 0 && corners.len() > 1 {
            group = group.add(polyline(&thinned(&corners), "line ink0").add(tip("frontier")));
        }
        for (scored, &(x, y)) in frontier.iter().zip(&corners) {
            let mut mark = Group::new().add(tip(&told(name, scored)));
            if let Some(error) = scored.standard_error {
                let [low, high] = frame.whisker(scored.accuracy, error);
                mark = mark.add(line((x, low), (x, high), &format!("whisker ink{index}")));
            }
            let mark = mark.add(Shape::of(index).mark(x, y, 4.2, &format!("fill{index}")));
            group = group.add(mark);
        }
    }
    group = group.add(named(facts, &frame));
    Drawing::new(width, bottom + BELOW_TITLED + 4.0, group)
}

/// The answer ringed, or else the best so far, and uniform bits, as far as a search measured them.
fn named(facts: &Facts<'_>, frame: &Frame) -> Group {
    let mut group = Group::new();
    let mut labels: Vec<Labelled> = Vec::new();
    let chosen = facts.report.chosen.as_ref();
    let title = if facts.report.answer.is_some() { "answer" } else { "best so far" };
    let mut seen = BTreeSet::new();
    for (_, outcome) in facts.searches() {
        for scored in outcome.scored.iter().filter(|scored| scored.failure.is_none()) {
            let is_chosen = chosen == Some(&scored.bits);
            let uniform = facts.uniform(&scored.bits);
            if !(is_chosen || uniform.is_some()) || !seen.insert(&scored.bits) {
                continue;
            }
            let at = frame.place(scored.quant_state, scored.accuracy);
            let name = match (is_chosen, uniform) {
                (true, _) if scored.bits.len() <= 8 => format!("{title}: {}", scored.bits),
                (true, _) => title.to_owned(),
                (_, Some(bits)) => format!("uniform {bits}"),
                _ => continue,
            };
            if is_chosen {
                group = group.add(Shape::Circle.mark(at.0, at.1, 9.0, "ring").add(tip(&name)));
            }
            labels.push(Labelled { at, name, strong: is_chosen });
        }
    }
    labels.sort_by_key(|label| !label.strong);
    let points = facts.searches().flat_map(|(_, outcome)| &outcome.scored).take(OBSTACLES);
    let points: Vec<_> = points.map(|s| frame.place(s.quant_state, s.accuracy)).collect();
    group.add(place(&labels, &points, frame.rect))
}
