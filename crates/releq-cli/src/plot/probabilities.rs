//! How the policy settles: the probabilities of all actions, layer by layer, over the episodes.

use releq::BatchRecord;
use svg::node::element::Group;

use super::{
    Drawing, Facts, Figure, Width,
    marks::{Anchor, Key, area, fitted, legend, line, text, tip},
    number::short,
    table::Table,
};

/// The shades of `figure.css` for values in order.
pub(super) const SHADES: usize = 16;

/// The shade of one of `count` values.
pub(super) fn shade(index: usize, count: usize) -> String {
    let last = count.saturating_sub(1).max(1);
    format!("shade{}", (index * (SHADES - 1) + last / 2) / last)
}

/// The policy's probabilities in the course of the episodes.
pub(crate) struct Policies<'a> {
    /// Names of the steps of an episode, which are the searched layers.
    pub(crate) layers: Vec<String>,
    /// Names of the actions.
    pub(crate) actions: Vec<String>,
    /// Episodes played, and then the probability of each action at each step.
    pub(crate) points: Vec<(usize, &'a [Vec<f32>])>,
}

impl Policies<'_> {
    /// The likeliest action of each step in the end, the lowest of equals.
    pub(crate) fn likeliest(&self) -> Vec<Option<&str>> {
        let Some((_, last)) = self.points.last() else { return Vec::new() };
        let likeliest = |distribution: &Vec<f32>| {
            (0..distribution.len())
                .rev()
                .max_by(|&a, &b| distribution[a].total_cmp(&distribution[b]))
                .and_then(|action| self.actions.get(action))
                .map(String::as_str)
        };
        last.iter().map(likeliest).collect()
    }
}

/// The batches that have probabilities of the same shape as the last one.
fn batches<'a>(facts: &Facts<'a>) -> Vec<&'a BatchRecord> {
    let history = &facts.report.search.history;
    let shape = |batch: &BatchRecord| -> Vec<usize> {
        batch.action_probabilities.iter().map(Vec::len).collect()
    };
    let Some(last) = history.iter().rfind(|batch| !batch.action_probabilities.is_empty()) else {
        return Vec::new();
    };
    history.iter().filter(|batch| shape(batch) == shape(last)).collect()
}

fn step_name(facts: &Facts<'_>, step: usize, steps: usize) -> String {
    match facts.searched.get(step) {
        Some(name) if facts.searched.len() == steps => (*name).to_owned(),
        _ => format!("step {}", step + 1),
    }
}

pub(super) fn figure(facts: &Facts<'_>) -> Option<Figure> {
    let batches = batches(facts);
    let last = batches.last()?;
    let steps = last.action_probabilities.len();
    let actions = last.action_probabilities.iter().map(Vec::len).max().unwrap_or(0);
    policies(
        &Policies {
            layers: (0..steps).map(|step| step_name(facts, step, steps)).collect(),
            actions: facts.action_names(actions),
            points: batches
                .iter()
                .map(|&batch| (batch.episodes, &*batch.action_probabilities))
                .collect(),
        },
        "the mean of each batch",
    )
}

/// The figure, of which `each` says what a point is the mean of; `None` without actions.
pub(crate) fn policies(policies: &Policies<'_>, each: &str) -> Option<Figure> {
    let (episodes, _) = policies.points.last()?;
    if policies.actions.is_empty() {
        return None;
    }
    let mut header = vec!["episodes", "layer"];
    header.extend(policies.actions.iter().map(String::as_str));
    let mut table = Table::new(&header);
    for (episodes, distributions) in &policies.points {
        for (layer, distribution) in policies.layers.iter().zip(*distributions) {
            let shares = (0..policies.actions.len())
                .map(|action| distribution.get(action).map_or_else(String::new, f32::to_string));
            table.row([episodes.to_string(), layer.clone()].into_iter().chain(shares));
        }
    }
    let description = format!(
        "Probability that the policy gives each bitwidth, for each of {} layers, in the course of {episodes} \
         episodes; {each}. The higher a band, the likelier the choice. Beside a layer's name \
         stands what was likeliest in the end.",
        policies.layers.len()
    );
    Some(Figure::new("action-probabilities", "Action probabilities", description, table, |width| {
        draw(policies, width)
    }))
}

fn draw(policies: &Policies<'_>, width: Width) -> Drawing {
    let Some((episodes, _)) = policies.points.last() else {
        return Drawing::new(width, 0.0, Group::new());
    };
    let (names, steps) = (&policies.actions, policies.layers.len());
    let likeliest = policies.likeliest();
    let classes: Vec<String> = (0..names.len()).map(|action| shade(action, names.len())).collect();
    let entries: Vec<(Key, &str, &str)> = names
        .iter()
        .zip(&classes)
        .map(|(name, class)| (Key::Patch, class.as_str(), name.as_str()))
        .collect();
    let (legend, top) = legend(&entries, 0.0, 0.0, width.px());
    let mut group = Group::new().add(legend);

    let columns = match width {
        Width::Wide if steps > 12 => 5,
        Width::Wide => 4,
        Width::Narrow => 2,
    }
    .min(steps.max(1));
    let (gap, left) = (14.0, 26.0);
    let full = width.px() - left;
    let panel = (full / columns as f64 - gap).min(width.pick(300.0, 330.0));
    let height = if steps > 12 { 64.0 } else { width.pick(96.0, 80.0) };
    let row = height + 22.0;
    let rows = steps.div_ceil(columns);
    for step in 0..steps {
        let x = left + (step % columns) as f64 * (panel + gap);
        let y = top + 26.0 + (step / columns) as f64 * row;
        let name = &policies.layers[step];
        let outcome = likeliest.get(step).copied().flatten().unwrap_or_default();
        let outcome = outcome.replace(" bits", "");
        let room = panel - super::marks::text_width(&outcome) - 14.0;
        group = group
            .add(Group::new().add(tip(name)).add(text(
                x,
                y - 5.0,
                Anchor::Start,
                "",
                &fitted(name, room),
            )))
            .add(text(x + panel, y - 5.0, Anchor::End, "strong", &outcome))
            .add(bands(policies, step, &classes, [x, y, panel, height]));
        if step % columns == 0 {
            for (label, at) in [("1", y), ("0", y + height)] {
                group = group.add(text(x - 6.0, at + 4.0, Anchor::End, "quiet", label));
            }
        }
        if step + columns >= steps {
            let below = y + height + 15.0;
            let end = short(*episodes as f64);
            group = group.add(text(x, below, Anchor::Start, "quiet", "0"));
            group = group.add(text(x + panel, below, Anchor::End, "quiet", &end));
            if panel > 90.0 {
                let middle = x + panel / 2.0;
                group = group.add(text(middle, below, Anchor::Middle, "quiet", "episodes"));
            }
        }
    }
    Drawing::new(width, top + 26.0 + rows as f64 * row + 6.0, group)
}

/// The probabilities of one step as bands on each other, the lowest action at the bottom.
fn bands(
    policies: &Policies<'_>,
    step: usize,
    classes: &[String],
    [x, y, width, height]: [f64; 4],
) -> Group {
    let (course, names) = (&policies.points, &policies.actions);
    // Two pixels for each sample are as many as one can see.
    let samples = ((width / 2.0) as usize).clamp(2, course.len().max(2));
    let at = |sample: usize| sample * (course.len() - 1) / (samples - 1);
    let mut group = Group::new();
    let actions = course.last().map_or(0, |(_, distributions)| distributions[step].len());
    // From the highest action down, each as an area from the bottom that the next one covers in part.
    for action in (0..actions).rev() {
        let mut points = Vec::with_capacity(samples + 2);
        for sample in 0..samples {
            let distribution = &course[at(sample)].1[step];
            let total: f32 = distribution.iter().sum();
            let below: f32 = distribution[..=action].iter().sum();
            let share = if total > 0.0 { f64::from(below / total) } else { 0.0 };
            let across = sample as f64 / (samples - 1) as f64 * width;
            points.push((x + across, y + height * (1.0 - share.clamp(0.0, 1.0))));
        }
        points.extend([(x + width, y + height), (x, y + height)]);
        let class = classes.get(action).map_or("shade0", String::as_str);
        let name = names.get(action).map_or("", String::as_str);
        group = group.add(area(&points, class).add(tip(name)));
    }
    group.add(line((x, y + height), (x + width, y + height), "rule"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_reach_from_end_to_end() {
        assert_eq!((shade(0, 7), shade(6, 7)), ("shade0".into(), "shade15".into()));
        assert_eq!(shade(0, 1), "shade0");
        let all: Vec<String> = (0..16).map(|index| shade(index, 16)).collect();
        assert_eq!(all.last().map(String::as_str), Some("shade15"));
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
