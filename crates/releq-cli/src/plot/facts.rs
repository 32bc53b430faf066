//! What several figures and the page need to know of a run.

use releq::{
    Choice, FinalRow, LayerRow, Report, Scored, SearchOutcome, Signal,
    core::{
        Bitwidth, BitwidthAssignment, CostModel, LayerKind, LayerProfile, Operands,
        checked_network_cost,
    },
    hw::{CostKind, WeightedTerm, uniform as uniform_bits},
};

use super::number::trimmed;

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

/// Why the search could not choose an assignment, whatever the limits: `None` where it could.
pub(crate) fn forbidden(report: &Report, bits: &[Bitwidth]) -> Option<&'static str> {
    let config = &report.config;
    let fixed_to = |name: &str| {
        let mut fixed = config.fixed_layers.iter();
        fixed.find(|(layer, _)| layer == name).map(|(_, bits)| *bits)
    };
    let mut layers = report.layers.iter().zip(bits);
    if layers.clone().any(|(layer, &bits)| fixed_to(&layer.name).is_some_and(|fixed| fixed != bits))
    {
        return Some("has other bits in a fixed layer");
    }
    // Only activations compute nothing.
    let choices = |layer: &LayerRow| match layer.macs {
        0 => config.activation_choices(),
        _ => &config.actions,
    };
    if layers.any(|(layer, bits)| fixed_to(&layer.name).is_none() && !choices(layer).contains(bits))
    {
        return Some("has bits that were not to choose from");
    }
    None
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

    /// The only bitwidth of the weights of an assignment, if there is only one, whatever that of activations.
    pub(crate) fn uniform(&self, bits: &[Bitwidth]) -> Option<Bitwidth> {
        uniform(&self.weight_bits(bits))
    }

    /// Mean of the weights' bits of an assignment, which may have those of activations too.
    pub(crate) fn mean_bits(&self, bits: &BitwidthAssignment) -> f64 {
        let weights = BitwidthAssignment::new(self.weight_bits(bits));
        weights.map_or_else(|_| bits.mean(), |weights| weights.mean())
    }

    /// The bitwidths of the weights of an assignment; all of it, where the layers are not known.
    fn weight_bits(&self, bits: &[Bitwidth]) -> Vec<Bitwidth> {
        if self.profiles.len() != bits.len() {
            return bits.to_vec();
        }
        let layers = self.profiles.iter().zip(bits);
        let weights = layers.filter(|(layer, _)| layer.kind != LayerKind::Activations);
        weights.map(|(_, &bits)| bits).collect()
    }

    /// How many layers have weights: rounded activations are layers as well.
    pub(crate) fn layers_with_weights(&self) -> usize {
        self.report.layers.iter().filter(|layer| layer.weights > 0).count()
    }

    /// Whether the search could not choose this layer's bitwidth.
    pub(crate) fn is_fixed(&self, layer: &str) -> bool {
        !self.searched.contains(&layer)
    }

    /// Name of the cost that the search makes low.
    pub(crate) fn cost_name(&self) -> String {
        cost_text(&self.report.config.cost, &self.profiles)
    }

    /// The same, and what its weights are relative to, if they are.
    pub(crate) fn cost_told(&self) -> String {
        let cost = &self.report.config.cost;
        let relative = matches!(cost, Choice::Ours(CostKind::WeightedSum(terms))
            if relative(terms, &self.profiles).is_some());
        let over = if relative { ", each over what it is at 8 bits" } else { "" };
        format!("{}{over}", self.cost_name())
    }

    /// The highest bitwidth to choose from.
    pub(crate) fn highest(&self) -> String {
        let actions = self.report.config.all_actions();
        actions.last().map_or_else(String::new, ToString::to_string)
    }

    /// Title of an axis of State_Quantization.
    pub(crate) fn cost_axis(&self) -> String {
        format!("State_Quantization: {} over that of {} bits", self.cost_name(), self.highest())
    }

    /// What each action of the agent stands for.
    pub(crate) fn action_names(&self, actions: usize) -> Vec<String> {
        let bits = self.report.config.all_actions();
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
        } else if row.label.starts_with("uniform ") && self.uniform(&row.bits).is_some() {
            RowKind::Uniform
        } else {
            RowKind::Named
        }
    }

    /// Full-precision accuracy that State_Accuracy is relative to; `None` where State_Accuracy follows from a divergence, and
    /// not from the accuracies that were measured.
    pub(crate) fn search_reference(&self) -> Option<f64> {
        let measured = |scored: &&Scored| scored.acc_state > 0.0 && scored.accuracy > 0.0;
        let scored = || self.report.search.scored.iter().filter(measured);
        let mut references = scored().map(|scored| scored.accuracy / scored.acc_state);
        let first = references.next().filter(|accuracy| accuracy.is_finite())?;
        // One accuracy alone has a ratio to any estimate.
        let mut accuracies = scored().map(|scored| scored.accuracy);
        let one = accuracies.next().is_some_and(|first| accuracies.all(|other| other == first));
        if one && self.report.config.signal == Signal::Divergence {
            return None;
        }
        references.all(|other| (other - first).abs() <= 1e-6 * first).then_some(first)
    }

    /// Name of a cost with the share that each layer has in it at the chosen bitwidths: the cost that
    /// the search makes low; the first of the report's where that one counts every layer alike.
    pub(crate) fn cost_shares(&self) -> Option<(String, Vec<f64>)> {
        let config = &self.report.config;
        let mut kinds: Vec<_> = [&config.cost].into_iter().chain(&config.report_costs).collect();
        if kinds.len() > 1 && config.cost.to_string() == "mean-bits" {
            kinds.rotate_left(1);
        }
        let bits = self.report.chosen.as_ref()?;
        kinds.into_iter().find_map(|cost| {
            let Choice::Ours(kind) = cost else { return None };
            let shares = shares(&*config.counted(kind).build().ok()?, &self.profiles, bits)?;
            Some((cost_text(cost, &self.profiles), shares))
        })
    }
}

/// The share of each layer in the sum of all, 0 of activations; `None` without a price or a sum.
fn shares(model: &dyn CostModel, profiles: &[LayerProfile], bits: &[Bitwidth]) -> Option<Vec<f64>> {
    if profiles.is_empty() || profiles.len() != bits.len() {
        return None;
    }
    let operands = Operands::new(profiles, |_| true);
    let mut computing = operands.bits(bits).into_iter();
    let costs: Option<Vec<f64>> = profiles
        .iter()
        .map(|layer| match layer.kind {
            LayerKind::Activations => Some(0.0),
            _ => Some(model.layer_cost(layer, computing.next()?).ok()?.0),
        })
        .collect();
    let costs = costs?;
    let total: f64 = costs.iter().sum();
    (total.is_finite() && total > 0.0).then(|| costs.iter().map(|cost| cost / total).collect())
}

/// A cost as people write it: a weighted sum as `stripes-energy=2,size=1`, the weights of what each cost is at 8 bits; where
/// that is not known, by the weights of the costs themselves, `2.24e-4 x stripes-energy + 2.31e-6 x size`.
fn cost_text(cost: &Choice<CostKind>, profiles: &[LayerProfile]) -> String {
    let Choice::Ours(CostKind::WeightedSum(terms)) = cost else { return cost.to_string() };
    let Some(weights) = relative(terms, profiles) else {
        let terms: Vec<String> =
            terms.iter().map(|term| format!("{:.2e} x {}", term.weight, term.cost)).collect();
        return terms.join(" + ");
    };
    let weight = |weight: f64| match weight {
        weight if weight == 0.0 || weight >= 0.001 => trimmed(format!("{weight:.4}")),
        weight => format!("{weight:.2e}"),
    };
    let terms = terms.iter().zip(weights).map(|(term, of)| format!("{}={}", term.cost, weight(of)));
    terms.collect::<Vec<_>>().join(",")
}

/// What each term weighs where all layers have 8 bits.
fn relative(terms: &[WeightedTerm], profiles: &[LayerProfile]) -> Option<Vec<f64>> {
    if profiles.is_empty() {
        return None;
    }
    let computing = Operands::new(profiles, |_| true).of(profiles);
    let eight = uniform_bits(8, computing.len()).ok()?;
    let weight = |term: &WeightedTerm| {
        let model = term.cost.build().ok()?;
        let weight = term.weight * checked_network_cost(&model, &computing, &eight).ok()?.0;
        weight.is_finite().then_some(weight)
    };
    terms.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use releq::zoo::lenet;

    use super::*;

    #[test]
    fn a_sum_is_named_by_its_weights_at_8_bits() {
        let cost: CostKind =
            r#"weighted-sum[{"weight": 2.310343871581846e-6, "cost": "size"}, {"weight": 0.0625, "cost": "mean-bits"}]"#
                .parse()
                .unwrap();
        let (cost, size) = (Choice::Ours(cost), Choice::Ours("size".parse().unwrap()));
        let layers = lenet().profiles();
        assert_eq!(cost_text(&cost, &layers), "size=1,mean-bits=2");
        assert_eq!(cost_text(&cost, &[]), "2.31e-6 x size + 6.25e-2 x mean-bits");
        assert_eq!(cost_text(&size, &layers), "size");
    }
}
