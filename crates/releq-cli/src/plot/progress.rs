//! Reward, State_Accuracy and State_Quantization in the course of the search.

use releq::{BatchRecord, Scored, SearchOutcome};
use svg::node::element::Group;

use super::{
    Drawing, Facts, Figure, Width,
    frame::{BELOW, BELOW_TITLED, Rect},
    marks::{Key, Shape, legend},
    panel::{Look, Panel, Series},
    table::{Table, number},
};

/// One of the three quantities: its name, and where it stands.
struct Quantity {
    title: &'static str,
    of: fn(&Scored) -> f64,
    mean: fn(&BatchRecord) -> f64,
}

const QUANTITIES: [Quantity; 3] = [
    Quantity { title: "reward", of: |scored| scored.reward, mean: |batch| batch.mean_reward },
    Quantity {
        title: "State_Accuracy",
        of: |scored| scored.acc_state,
        mean: |batch| batch.mean_acc_state,
    },
    Quantity {
        title: "State_Quantization",
        of: |scored| scored.quant_state,
        mean: |batch| batch.mean_quant_state,
    },
];

/// After each evaluation the assignment of highest reward so far, within all limits.
pub(super) fn best_so_far(scored: &[Scored]) -> Vec<Option<&Scored>> {
    let better = |best: &mut Option<_>, scored| {
        let scored: &Scored = scored;
        if scored.over_limit.is_none()
            && best.is_none_or(|best: &Scored| scored.reward > best.reward)
        {
            *best = Some(scored);
        }
        Some(*best)
    };
    scored.iter().scan(None, better).collect()
}

/// Best so far as a series over evaluations.
pub(super) fn best_series(outcome: &SearchOutcome, of: fn(&Scored) -> f64) -> Vec<(f64, f64)> {
    let best = best_so_far(&outcome.scored).into_iter().enumerate();
    best.filter_map(|(index, best)| Some((index as f64 + 1.0, of(best?)))).collect()
}

pub(super) fn figure(facts: &Facts<'_>) -> Option<Figure> {
    let search = &facts.report.search;
    if search.scored.is_empty() {
        return None;
    }
    let mut table = Table::new([
        "series",
        "evaluations",
        "episodes",
        "bits",
        "reward",
        "acc_state",
        "quant_state",
    ]);
    for (name, outcome) in facts.searches() {
        let best = best_so_far(&outcome.scored);
        for (index, (scored, best)) in outcome.scored.iter().zip(best).enumerate() {
            for (series, scored) in [("evaluation", Some(scored)), ("best so far", best)] {
                let Some(scored) = scored else { continue };
                table.row([
                    format!("{name}: {series}"),
                    (index + 1).to_string(),
                    String::new(),
                    scored.bits.to_string(),
                    number(scored.reward),
                    number(scored.acc_state),
                    number(scored.quant_state),
                ]);
            }
        }
        for batch in &outcome.history {
            table.row([
                format!("{name}: mean of a batch"),
                batch.evaluations.to_string(),
                batch.episodes.to_string(),
                String::new(),
                number(batch.mean_reward),
                number(batch.mean_acc_state),
                number(batch.mean_quant_state),
            ]);
        }
    }
    let description = format!(
        "Reward, State_Accuracy (accuracy over that of full precision, measured or estimated) and \
         State_Quantization (cost over that of {} bits) in the course of the agent's search: each evaluation as \
         a dot, the mean of each batch of episodes, and the values of the assignment of highest reward so far. \
         Batches without a new evaluation are drawn as one mean.",
        facts.highest()
    );
    Some(Figure::new("search", "The course of the search", description, table, |width| {
        draw(facts, width)
    }))
}

/// Means over the batches with equal evaluations.
fn batch_means(history: &[BatchRecord], mean: fn(&BatchRecord) -> f64) -> Vec<(f64, f64)> {
    history
        .chunk_by(|a, b| a.evaluations == b.evaluations)
        .map(|batches| {
            let sum: f64 = batches.iter().map(mean).sum();
            (batches[0].evaluations as f64, sum / batches.len() as f64)
        })
        .collect()
}

/// The first two colours are the agent's, and there are six: a run has four rivals.
const fn rival_colour(search: usize) -> usize {
    2 + (search - 1) % 4
}

fn panel(facts: &Facts<'_>, quantity: &Quantity, last: bool) -> Panel {
    let search = &facts.report.search;
    let points = |scored: &[Scored]| {
        let points = scored.iter().enumerate();
        points.map(|(index, scored)| (index as f64 + 1.0, (quantity.of)(scored))).collect()
    };
    let mut series = vec![Series {
        name: "evaluation".to_owned(),
        colour: 0,
        look: Look::Dots,
        points: points(&search.scored),
    }];
    if quantity.title == "reward" {
        for (index, (name, outcome)) in facts.searches().enumerate().skip(1) {
            series.push(Series {
                name: format!("{name}, best so far"),
                colour: rival_colour(index),
                look: Look::Steps,
                points: best_series(outcome, quantity.of),
            });
        }
    }
    series.push(Series {
        name: "best so far".to_owned(),
        colour: 1,
        look: Look::Steps,
        points: best_series(search, quantity.of),
    });
    series.push(Series {
        name: "mean of a batch".to_owned(),
        colour: 0,
        look: Look::Line,
        points: batch_means(&search.history, quantity.mean),
    });
    Panel {
        title: quantity.title.to_owned(),
        x_title: if last { "evaluations".to_owned() } else { String::new() },
        series,
        from_zero: false,
        log: false,
    }
}

fn draw(facts: &Facts<'_>, width: Width) -> Drawing {
    let rivals: Vec<(String, String)> = facts
        .searches()
        .enumerate()
        .skip(1)
        .filter(|(_, (_, outcome))| !outcome.scored.is_empty())
        .map(|(index, (name, _))| {
            (format!("line ink{}", rival_colour(index)), format!("{name}, best so far"))
        })
        .collect();
    let mut entries: Vec<(Key, &str, &str)> = vec![
        (Key::Mark(Shape::Circle), "fill0 pale", "evaluation"),
        (Key::Line, "line ink0", "mean of a batch"),
        (Key::Line, "line ink1", "best so far"),
    ];
    entries.extend(rivals.iter().map(|(class, name)| (Key::Line, class.as_str(), name.as_str())));
    let (legend, mut top) = legend(&entries, 0.0, 0.0, width.px());
    let height = width.pick(150.0, 130.0);
    let longest = facts.searches().map(|(_, outcome)| outcome.scored.len()).max().unwrap_or(1);
    let mut group = Group::new().add(legend);
    for (index, quantity) in QUANTITIES.iter().enumerate() {
        let last = index + 1 == QUANTITIES.len();
        top += 28.0;
        let rect = Rect { left: 46.0, top, right: width.px() - 12.0, bottom: top + height };
        group = group.add(panel(facts, quantity, last).draw(rect, (0.0, longest as f64)));
        top += height + if last { BELOW_TITLED } else { BELOW };
    }
    Drawing::new(width, top + 2.0, group)
}
