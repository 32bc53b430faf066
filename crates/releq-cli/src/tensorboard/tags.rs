//! Which numbers of an event have which tags.

use releq::{BatchRecord, Event, Report, Scored, SearchOutcome, Stage};

use crate::plot::Facts;

/// What layers and actions are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Of all layers, in order.
    pub layers: Vec<String>,
    /// Of the searched layers, which are the steps of an episode.
    pub searched: Vec<String>,
    /// Of the actions, as `3 bits`.
    pub actions: Vec<String>,
}

/// Numbers that belong to one step.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scalars {
    pub(super) step: i64,
    pub(super) values: Vec<(String, f64)>,
}

impl Names {
    /// The names of a run that has a report.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let facts = Facts::new(report, &[]);
        let actions = facts.action_names(report.config.all_actions().len());
        Self {
            layers: report.layers.iter().map(|layer| layer.name.clone()).collect(),
            searched: facts.searched.iter().map(|&name| name.to_owned()).collect(),
            actions,
        }
    }

    /// The numbers of an event; none of those that are not finite.
    pub(super) fn scalars(&self, event: &Event) -> Scalars {
        let mut scalars = match event {
            Event::TrainingStep { step, loss, learning_rate, .. } => Scalars {
                step: *step as i64,
                values: vec![
                    ("training/loss".to_owned(), f64::from(*loss)),
                    ("training/learning_rate".to_owned(), f64::from(*learning_rate)),
                ],
            },
            Event::Episodes { stage, agent, record, failures, best, .. } => {
                let before =
                    if *stage == Stage::Search { String::new() } else { format!("{agent}/") };
                let mut values = self.batch(record);
                values.push(("search/failures".to_owned(), *failures as f64));
                if let Some(best) = best {
                    values.extend(self.best(best));
                }
                for (tag, _) in &mut values {
                    tag.insert_str(0, &before);
                }
                Scalars { step: record.episodes as i64, values }
            }
            Event::Retrained { done, accuracy: Some(accuracy), .. } => Scalars {
                step: *done as i64,
                values: vec![("final/validation_accuracy".to_owned(), *accuracy)],
            },
            _ => Scalars::default(),
        };
        scalars.values.retain(|(_, value)| value.is_finite());
        scalars
    }

    fn batch(&self, record: &BatchRecord) -> Vec<(String, f64)> {
        let update = &record.update;
        let mut values = vec![
            ("search/reward".to_owned(), record.mean_reward),
            ("search/state_accuracy".to_owned(), record.mean_acc_state),
            ("search/state_quantization".to_owned(), record.mean_quant_state),
            ("search/evaluations".to_owned(), record.evaluations as f64),
            ("agent/mean_return".to_owned(), update.mean_return),
        ];
        let learned = [
            ("entropy", update.entropy),
            ("approx_kl", update.approx_kl),
            ("clip_fraction", update.clip_fraction),
            ("policy_loss", update.policy_loss),
            ("value_loss", update.value_loss),
            ("explained_variance", update.explained_variance),
        ];
        // Agents without a policy leave all of these at 0.
        if learned.iter().any(|(_, value)| *value != 0.0) {
            values.extend(learned.map(|(name, value)| (format!("agent/{name}"), value)));
        }
        for (step, distribution) in record.action_probabilities.iter().enumerate() {
            let layer = name(&self.searched, step, "step");
            for (action, &probability) in distribution.iter().enumerate() {
                let action = name(&self.actions, action, "action");
                values.push((format!("probability/{layer}/{action}"), f64::from(probability)));
            }
        }
        values
    }

    fn best(&self, best: &Scored) -> Vec<(String, f64)> {
        let mut values = vec![
            ("best/reward".to_owned(), best.reward),
            ("best/accuracy".to_owned(), best.accuracy),
            ("best/state_accuracy".to_owned(), best.acc_state),
            ("best/state_quantization".to_owned(), best.quant_state),
        ];
        for (layer, bits) in best.bits.iter().enumerate() {
            if let Some(bits) = bits.integer() {
                let layer = name(&self.layers, layer, "layer");
                values.push((format!("bits/{layer}"), f64::from(bits)));
            }
        }
        values
    }
}

fn name(names: &[String], index: usize, kind: &str) -> String {
    names.get(index).cloned().unwrap_or_else(|| format!("{kind} {}", index + 1))
}

/// The events that a report remembers.
pub(super) fn events(report: &Report) -> Vec<Event> {
    let mut events = search_events(report, &report.search, Stage::Search);
    for comparison in &report.comparisons {
        events.extend(search_events(report, comparison, Stage::Comparison));
    }
    let total = report.rows.len();
    for (index, row) in report.rows.iter().enumerate() {
        events.push(Event::Retrained {
            done: index + 1,
            total,
            bits: Some(row.bits.clone()),
            accuracy: row.failure.is_none().then_some(row.validation_accuracy),
            failure: row.failure.clone(),
        });
    }
    events
}

fn search_events(report: &Report, outcome: &SearchOutcome, stage: Stage) -> Vec<Event> {
    let mut scored = outcome.scored.iter().enumerate().peekable();
    let (mut best, mut failures): (Option<&Scored>, usize) = (None, 0);
    let events = outcome.history.iter().map(|record| {
        while let Some((_, next)) = scored.next_if(|(index, _)| *index < record.evaluations) {
            failures += usize::from(next.failure.is_some());
            let better = best.is_none_or(|best| next.reward > best.reward);
            if better && next.over_limit.is_none() {
                best = Some(next);
            }
        }
        Event::Episodes {
            stage,
            agent: outcome.agent.clone(),
            budget: report.config.budget,
            record: Box::new(record.clone()),
            failures,
            best: best.cloned().map(Box::new),
        }
    });
    events.collect()
}
