//! Curves of learning: the agent's, and those of the training in full precision.

use releq::BatchRecord;
use svg::node::element::Group;

use super::{
    Drawing, Facts, Figure, Width,
    frame::{BELOW_TITLED, Rect},
    panel::{Look, Panel, Series},
    table::{Table, number},
};

/// A figure of an update: its column, its title and what it is.
type Curve = (&'static str, &'static str, fn(&BatchRecord) -> f64);

const CURVES: [Curve; 7] = [
    ("mean_return", "mean return", |batch| batch.update.mean_return),
    ("entropy", "entropy of the policy (nats)", |batch| batch.update.entropy),
    ("approx_kl", "approximate KL divergence", |batch| batch.update.approx_kl),
    ("clip_fraction", "clip fraction", |batch| batch.update.clip_fraction),
    ("policy_loss", "policy loss", |batch| batch.update.policy_loss),
    ("value_loss", "value loss", |batch| batch.update.value_loss),
    ("explained_variance", "explained variance", |batch| batch.update.explained_variance),
];

pub(super) fn learning(facts: &Facts<'_>) -> Option<Figure> {
    let history = &facts.report.search.history;
    // Agents without a policy fill in the mean return alone.
    let learns = |batch: &BatchRecord| CURVES[1..].iter().any(|(.., of)| of(batch) != 0.0);
    if !history.iter().any(learns) {
        return None;
    }
    let header = ["episodes", "evaluations"].into_iter().chain(CURVES.map(|(column, ..)| column));
    let mut table = Table::new(header);
    for batch in history {
        let counts = [batch.episodes.to_string(), batch.evaluations.to_string()];
        table.row(counts.into_iter().chain(CURVES.map(|(.., of)| number(of(batch)))));
    }
    let panels: Vec<Panel> = CURVES
        .into_iter()
        .map(|(_, title, of)| {
            let points = history.iter().map(|batch| (batch.episodes as f64, of(batch))).collect();
            curve(title, "episodes", points, false)
        })
        .collect();
    let description = "What the agent learned from each batch of episodes. The entropy falls as the policy makes up \
                       its mind; the KL divergence and the clip fraction say how far an update moves it.";
    Some(Figure::new("learning", "Learning of the agent", description, table, |width| {
        grid(&panels, width)
    }))
}

pub(super) fn training(facts: &Facts<'_>) -> Option<Figure> {
    if facts.training.is_empty() {
        return None;
    }
    let mut table = Table::new(["step", "loss", "learning_rate"]);
    for step in facts.training {
        table.row([step.step.to_string(), number(step.loss), number(step.learning_rate)]);
    }
    let points = |of: fn(&super::TrainingStep) -> f64| {
        facts.training.iter().map(|step| (step.step as f64, of(step))).collect()
    };
    let panels = [
        curve("loss of a batch", "steps", points(|step| step.loss), true),
        curve("learning rate", "steps", points(|step| step.learning_rate), false),
    ];
    let description = format!(
        "Loss and learning rate of {} steps of training in full precision, before the search.",
        super::number::thousands(facts.training.len() as u64)
    );
    Some(Figure::new("training", "Training in full precision", description, table, |width| {
        grid(&panels, width)
    }))
}

fn curve(name: &str, x_title: &str, points: Vec<(f64, f64)>, log: bool) -> Panel {
    let series = Series { name: name.to_owned(), colour: 0, look: Look::Line, points };
    Panel {
        title: name.to_owned(),
        x_title: x_title.to_owned(),
        series: vec![series],
        from_zero: false,
        log,
    }
}

/// Panels in one or two columns.
fn grid(panels: &[Panel], width: Width) -> Drawing {
    let columns = if width == Width::Wide { 2 } else { 1 };
    let (left, gap) = (46.0, 30.0);
    let full = width.px() / columns as f64 - left - gap / 2.0;
    let height = 120.0;
    let row = height + BELOW_TITLED + 30.0;
    let mut group = Group::new();
    for (index, panel) in panels.iter().enumerate() {
        let x = (index % columns) as f64 * (width.px() / columns as f64) + left;
        let top = 22.0 + (index / columns) as f64 * row;
        let rect = Rect { left: x, top, right: x + full, bottom: top + height };
        let (from, to) = panel.x_extent().unwrap_or((0.0, 1.0));
        group = group.add(panel.draw(rect, (from.min(0.0), to)));
    }
    let rows = panels.len().div_ceil(columns) as f64;
    Drawing::new(width, rows * row, group)
}
