//! Which layers suffer from few bits.

use std::collections::{BTreeMap, BTreeSet};

use releq::{Sensitivities, core::Bitwidth};

use super::{
    Facts, Figure,
    heat_map::{Cell, draw},
    number::{count, percent},
    scale::extent,
    table::{Table, number},
};

const NAME: &str = "sensitivity";
const TITLE: &str = "Sensitivity of the layers";

/// What was measured of single layers, or else what the assignments tell of them that the searches measured.
pub(super) fn figure(facts: &Facts<'_>) -> Option<Figure> {
    match &facts.report.sensitivities {
        Some(sensitivities) => measured(sensitivities),
        None => from_assignments(facts),
    }
}

/// One layer at a time.
fn measured(sensitivities: &Sensitivities) -> Option<Figure> {
    let mut table = Table::new([
        "layer",
        "bits",
        "divergence_nats",
        "standard_error",
        "accuracy",
        "cross_entropy",
    ]);
    // Divergences span several powers of ten.
    let log = |nats: f64| nats.max(1e-6).log10();
    let mut cells = BTreeMap::new();
    let each = || sensitivities.layers.iter().enumerate();
    let all = each().flat_map(|(_, layer)| &layer.bits);
    let (least, most) = extent(all.map(|known| log(known.compared.divergence.value)))?;
    for (row, layer) in each() {
        for known in &layer.bits {
            let nats = known.compared.divergence.value;
            let labelled = known.compared.labelled.as_ref();
            let accuracy = labelled.map(|labelled| labelled.accuracy.accuracy());
            let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
            table.row([
                layer.name.clone(),
                known.bits.to_string(),
                number(nats),
                number(known.compared.divergence.standard_error),
                optional(accuracy),
                optional(labelled.map(|labelled| labelled.cross_entropy.value)),
            ]);
            let right = accuracy.map(|accuracy| format!(", {} correct", percent(accuracy)));
            let told = format!(
                "{}, {} bits: {nats:.5} nats from full precision{}",
                layer.name,
                known.bits,
                right.unwrap_or_default()
            );
            let share = (most - log(nats)) / (most - least).max(1e-9);
            cells.insert((row, known.bits), Cell { share, label: brief(nats), told });
        }
    }
    let bits = columns(&cells)?;
    let names: Vec<&str> = each().map(|(_, layer)| layer.name.as_str()).collect();
    Some(Figure::new(
        NAME,
        TITLE,
        "How far the outputs are from those in full precision with this layer alone at this bitwidth and without a \
         retrain: Kullback-Leibler divergence in nats, on held-out images; lighter is better.",
        table,
        |width| draw(&names, &bits, &cells, width),
    ))
}

/// `0.0213` as `.021`, `1.25` as `1.3`.
fn brief(nats: f64) -> String {
    match nats {
        nats if nats >= 9.95 => format!("{nats:.0}"),
        nats if nats >= 0.0995 => format!("{nats:.1}"),
        nats if nats >= 0.0005 => format!("{nats:.3}").trim_start_matches('0').to_owned(),
        _ => "0".to_owned(),
    }
}

/// What the assignments came to that have one bitwidth in one layer.
#[derive(Default)]
struct Outcome {
    sum: f64,
    best: f64,
    count: usize,
}

impl Outcome {
    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}

/// Where single layers were not measured.
fn from_assignments(facts: &Facts<'_>) -> Option<Figure> {
    let layers = &facts.report.layers;
    let mut outcomes: BTreeMap<(usize, Bitwidth), Outcome> = BTreeMap::new();
    for (_, search) in facts.searches() {
        for scored in search.scored.iter().filter(|scored| scored.failure.is_none()) {
            if scored.bits.len() != layers.len() || !scored.acc_state.is_finite() {
                continue;
            }
            for (layer, &bits) in scored.bits.iter().enumerate() {
                let outcome = outcomes.entry((layer, bits)).or_default();
                outcome.sum += scored.acc_state;
                outcome.best = outcome.best.max(scored.acc_state);
                outcome.count += 1;
            }
        }
    }
    let mut table =
        Table::new(["layer", "bits", "assignments", "mean_acc_state", "best_acc_state"]);
    let (least, most) = extent(outcomes.values().map(Outcome::mean)).unwrap_or((0.0, 1.0));
    let mut cells = BTreeMap::new();
    for (&(layer, bits), outcome) in &outcomes {
        let name = &layers[layer].name;
        table.row([
            name.clone(),
            bits.to_string(),
            outcome.count.to_string(),
            number(outcome.mean()),
            number(outcome.best),
        ]);
        let told = format!(
            "{name}, {bits} bits: State_Accuracy {} on average over {}, {} at best",
            percent(outcome.mean()),
            count(outcome.count, "assignment"),
            percent(outcome.best)
        );
        let share = (outcome.mean() - least) / (most - least).max(1e-9);
        let label = format!("{:.1}", 100.0 * outcome.mean());
        cells.insert((layer, bits), Cell { share, label, told });
    }
    let bits = columns(&cells)?;
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    Some(Figure::new(
        NAME,
        TITLE,
        "Mean State_Accuracy, in percent, of all measured assignments that have this bitwidth in this layer, after \
         the short retrain; lighter is better. Other layers vary as the searches chose them, so this shows which \
         layers suffer from few bits, and not what one layer alone costs.",
        table,
        |width| draw(&names, &bits, &cells, width),
    ))
}

/// The bitwidths, ascending; `None` where there is nothing to compare.
fn columns(cells: &BTreeMap<(usize, Bitwidth), Cell>) -> Option<Vec<Bitwidth>> {
    let bits: BTreeSet<Bitwidth> = cells.keys().map(|&(_, bits)| bits).collect();
    (bits.len() >= 2).then(|| bits.into_iter().collect())
}
