//! What several figures and the page need to know of a run.

use releq::{
    Choice, FinalRow, Report, Scored, SearchOutcome,
    core::{Bitwidth, CostModel, LayerBits, LayerProfile},
    hw::CostKind,
};

/// A step of the training in full precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingStep {
    /// Number of the step, from 1.
    pub step: usize,
    /// Mean loss of its batch.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f64,
}

/// The label of the row with the best of the agent's own search.
pub(crate) const AGENTS_OWN: &str = "releq";

/// Where a row of the finals comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    /// The agent's search.
    Agent,
    /// A search that it is compared with.
    Rival,
    /// The same bitwidth in every layer.
    Uniform,
    /// Every layer in float.
    Float,
    /// Named by the configuration.
    Named,
}

impl RowKind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Agent, Self::Rival, Self::Uniform, Self::Named, Self::Float];

    /// For legends.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Agent => "the agent's search",
            Self::Rival => "rival searches",
            Self::Uniform => "uniform bits",
            Self::Float => "full precision",
            Self::Named => "named in the settings",
        }
    }
}

/// A report with what follows from it.
pub(crate) struct Facts<'a> {
    pub(crate) report: &'a Report,
    pub(crate) training: &'a [TrainingStep],
    /// Names of the searched layers, which are the steps of an episode.
    pub(crate) searched: Vec<&'a str>,
    /// Layers with their costs, where the network stands in the configuration.
    pub(crate) profiles: Vec<LayerProfile>,
}

/// Standard error of an accuracy on so many images.
pub(crate) fn standard_error(accuracy: f64, images: usize) -> f64 {
    let accuracy = accuracy.clamp(0.0, 1.0);
    if images == 0 { 0.0 } else { (accuracy * (1.0 - accuracy) / images as f64).sqrt() }
}

/// What everything in the finals got.
pub(crate) const fn last_step(report: &Report) -> &'static str {
    match report.config.correction {
        Some(_) => "correction",
        None => "long retrain",
    }
}

/// What everything in the search got, as far as it was measured by us.
pub(crate) const fn first_step(report: &Report) -> &'static str {
    match report.config.correction {
        Some(_) => "correction",
        None => "short retrain",
    }
}

/// The only bitwidth of an assignment, if there is only one.
pub(crate) fn uniform(bits: &[Bitwidth]) -> Option<Bitwidth> {
    let first = *bits.first()?;
    bits.iter().all(|&bits| bits == first).then_some(first)
}

impl<'a> Facts<'a> {
    pub(crate) fn new(report: &'a Report, training: &'a [TrainingStep]) -> Self {
        let fixed = |name: &str| report.config.fixed_layers.iter().any(|(layer, _)| layer == name);
        let names = report.layers.iter().map(|layer| layer.name.as_str());
        let network = report.config.network.as_ref().and_then(|network| network.build().ok());
        let profiles = network.map_or_else(Vec::new, |network| network.profiles());
        Self {
            report,
            training,
            searched: names.filter(|name| !fixed(name)).collect(),
            profiles: if profiles.len() == report.layers.len() { profiles } else { Vec::new() },
        }
    }

    /// Whether the search could not choose this layer's bitwidth.
    pub(crate) fn is_fixed(&self, layer: &str) -> bool {
        !self.searched.contains(&layer)
    }

    /// Name of the cost that the search makes low.
    pub(crate) fn cost_name(&self) -> String {
        cost_text(&self.report.config.cost)
    }

    /// The highest bitwidth to choose from.
    pub(crate) fn highest(&self) -> String {
        self.report.config.actions.iter().max().map_or_else(String::new, ToString::to_string)
    }

    /// Title of an axis of State_Quantization.
    pub(crate) fn cost_axis(&self) -> String {
        format!("State_Quantization: {} over that of {} bits", self.cost_name(), self.highest())
    }

    /// What each action of the agent stands for.
    pub(crate) fn action_names(&self, actions: usize) -> Vec<String> {
        let mut bits = self.report.config.actions.clone();
        bits.sort_unstable();
        if bits.len() == actions {
            bits.iter().map(|bits| format!("{bits} bits")).collect()
        } else {
            (1..=actions).map(|action| format!("action {action}")).collect()
        }
    }

    /// All searches of the run, the agent's first, with their names.
    pub(crate) fn searches(&self) -> impl Iterator<Item = (String, &'a SearchOutcome)> {
        let name = |outcome: &SearchOutcome| match outcome.agent.as_str() {
            agent @ ("ppo" | "ppo-planned") => format!("ReLeQ ({agent})"),
            agent => format!("{agent} search"),
        };
        let report = self.report;
        [&report.search].into_iter().chain(&report.comparisons).map(move |o| (name(o), o))
    }

    pub(crate) fn row_kind(&self, row: &FinalRow) -> RowKind {
        let is_rival = |outcome: &SearchOutcome| row.label == format!("{} search", outcome.agent);
        if uniform(&row.bits).is_some_and(Bitwidth::is_float) {
            RowKind::Float
        } else if row.label == AGENTS_OWN {
            RowKind::Agent
        } else if self.report.comparisons.iter().any(is_rival) {
            RowKind::Rival
        } else if row.label.starts_with("uniform ") && uniform(&row.bits).is_some() {
            RowKind::Uniform
        } else {
            RowKind::Named
        }
    }

    /// Full-precision accuracy that State_Accuracy is relative to; `None` where State_Accuracy follows from a divergence, and
    /// not from the accuracies that were measured.
    pub(crate) fn search_reference(&self) -> Option<f64> {
        let measured = |scored: &&Scored| scored.acc_state > 0.0 && scored.accuracy > 0.0;
        let scored = self.report.search.scored.iter().filter(measured);
        let mut references = scored.map(|scored| scored.accuracy / scored.acc_state);
        let first = references.next().filter(|accuracy| accuracy.is_finite())?;
        references.all(|other| (other - first).abs() <= 1e-6 * first).then_some(first)
    }

    /// Name and unit of a cost with the share that each layer has in it at the chosen bitwidths: the cost that
    /// the search makes low; the first of the report's where that one counts every layer alike.
    pub(crate) fn cost_shares(&self) -> Option<(String, Vec<f64>)> {
        let config = &self.report.config;
        let mut kinds: Vec<_> = [&config.cost].into_iter().chain(&config.report_costs).collect();
        if kinds.len() > 1 && config.cost.to_string() == "mean-bits" {
            kinds.rotate_left(1);
        }
        let bits = self.report.chosen.as_ref()?;
        kinds.into_iter().find_map(|kind| {
            let Choice::Ours(kind) = kind else { return None };
            let shares = shares(&*kind.build().ok()?, &self.profiles, bits)?;
            Some((kind.to_string(), shares))
        })
    }
}

/// The share of each layer in the sum of all; `None` without a price or a sum.
fn shares(model: &dyn CostModel, profiles: &[LayerProfile], bits: &[Bitwidth]) -> Option<Vec<f64>> {
    if profiles.is_empty() || profiles.len() != bits.len() {
        return None;
    }
    let costs: Option<Vec<f64>> = profiles
        .iter()
        .zip(bits)
        .map(|(layer, &bits)| {
            let cost = model.layer_cost(layer, LayerBits::weights_only(bits)).ok()?;
            Some(cost.0)
        })
        .collect();
    let costs = costs?;
    let total: f64 = costs.iter().sum();
    (total.is_finite() && total > 0.0).then(|| costs.iter().map(|cost| cost / total).collect())
}

/// A cost as people write it: a weighted sum as one, `2.24e-4 x stripes-energy + 2.31e-6 x size`.
pub(crate) fn cost_text(cost: &Choice<CostKind>) -> String {
    let Choice::Ours(CostKind::WeightedSum(terms)) = cost else { return cost.to_string() };
    let terms: Vec<String> =
        terms.iter().map(|term| format!("{:.2e} x {}", term.weight, term.cost)).collect();
    terms.join(" + ")
}
