//! A search problem: what is searched, what it costs, what is worth having.

use std::{cmp::Reverse, fmt, sync::Arc};

use releq_agent::StepActions;
use releq_core::{
    Bitwidth, BitwidthAssignment, CostModel, LayerBits, LayerKind, LayerProfile, Network, Operands,
    Weights, checked_network_cost, text_enum,
};
use releq_hw::{CostLimit, MeanBits};
use releq_reward::{Reward, Shaped};
use serde::{Deserialize, Serialize};

use crate::{
    ReleqError,
    evaluate::{Evaluation, Evaluator, Measurement, full_precision},
    guard::guard,
    search::Scored,
};

/// Largest reward that an agent is shown, and smallest with a minus.
const LARGEST_REWARD: f64 = 1e6;

/// What an action means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum ActionSpace {
    /// Action `i` is the `i`-th bitwidth of the list, whatever the layer has now; each episode
    /// starts from the highest bitwidth everywhere. The form the paper uses.
    #[default]
    Flexible,
    /// Three actions, 0 down, 1 keep, 2 up along the list, stopping at its ends; each episode starts
    /// from the bitwidths that the last one of its kind ended with.
    Restricted,
}

/// When accuracy is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum EvaluationMode {
    /// Once, after the last layer's choice; the reward of every other step is 0.
    #[default]
    PerEpisode,
    /// After every layer's choice, with a reward for each; costs as many evaluations as layers.
    PerLayer,
}

text_enum!(ActionSpace, "action space", Flexible => "flexible", Restricted => "restricted");
text_enum!(EvaluationMode, "evaluation mode", PerEpisode => "per-episode", PerLayer => "per-layer");

/// One quantizable layer as the agent sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchLayer {
    /// Shapes of the layer.
    pub profile: LayerProfile,
    /// Standard deviation of its full-precision weights.
    pub weight_std: f64,
    /// A bitwidth it keeps; the agent chooses it where this is `None`.
    pub fixed: Option<Bitwidth>,
}

/// Everything that defines a search but the agent, the evaluator and the budget: layers, bitwidths to
/// choose from, cost, limits and reward.
pub struct Problem {
    layers: Vec<SearchLayer>,
    /// Those of the layers with weights and those of activations together.
    actions: Vec<Bitwidth>,
    weight_actions: Vec<Bitwidth>,
    activation_actions: Vec<Bitwidth>,
    action_space: ActionSpace,
    evaluation: EvaluationMode,
    cost: Arc<dyn CostModel>,
    limits: Vec<CostLimit>,
    reward: Arc<dyn Reward>,
    searched: Vec<usize>,
    /// The layers whose cost counts: all that have weights, or those of them that are searched.
    counted: Vec<LayerProfile>,
    counted_operands: Operands,
    /// All layers that have weights, which limits are for.
    computing: Vec<LayerProfile>,
    operands: Operands,
    /// Cost of the counted layers at the highest bitwidth to choose from.
    highest_cost: f64,
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem").field("summary", &self.summary()).finish_non_exhaustive()
    }
}

/// What a [`Problem`] consists of, in plain data; pieces of one's own by their names.
///
/// A search is resumed only with a problem that has the same summary as the one it was begun with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ProblemSummary {
    /// The layers.
    pub layers: Vec<SearchLayer>,
    /// Bitwidths to choose from, ascending.
    pub actions: Vec<Bitwidth>,
    /// Those of activations, where they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_actions: Option<Vec<Bitwidth>>,
    /// What an action means.
    pub action_space: ActionSpace,
    /// When accuracy is measured.
    pub evaluation: EvaluationMode,
    /// Name of the cost model.
    pub cost: String,
    /// The limits, as text.
    pub limits: Vec<String>,
    /// Name of the reward.
    pub reward: String,
    /// What cost model, limits and reward answer to a few questions, `None` where that fails: names tell nothing of settings.
    pub answers: Vec<Option<f64>>,
}

/// Settings of a [`Problem`]; [`build`](Self::build) checks them.
pub struct ProblemBuilder {
    layers: Vec<SearchLayer>,
    fixed: Vec<(String, Bitwidth)>,
    actions: Vec<Bitwidth>,
    activation_actions: Option<Vec<Bitwidth>>,
    action_space: ActionSpace,
    evaluation: EvaluationMode,
    cost: Arc<dyn CostModel>,
    limits: Vec<CostLimit>,
    reward: Arc<dyn Reward>,
}

impl fmt::Debug for ProblemBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProblemBuilder").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl ProblemBuilder {
    /// Searches the quantizable layers of `network`; the statistics of `weights` enter the
    /// observation, or 0 without them.
    #[must_use]
    pub fn network(mut self, network: &Network, weights: Option<&Weights>) -> Self {
        let deviations = weights.and_then(|weights| weights.weight_stds(network).ok());
        let deviation = |layer: usize| {
            deviations.as_ref().and_then(|all| all.get(layer)).map_or(0.0, |&std| f64::from(std))
        };
        self.layers = network
            .profiles()
            .into_iter()
            .enumerate()
            .map(|(layer, profile)| SearchLayer {
                weight_std: deviation(layer),
                profile,
                fixed: None,
            })
            .collect();
        self
    }

    /// Searches these layers.
    #[must_use]
    pub fn layers(mut self, layers: Vec<SearchLayer>) -> Self {
        self.layers = layers;
        self
    }

    /// Keeps the layer of this name at `bits` instead of searching it.
    #[must_use]
    pub fn fix_layer(mut self, name: impl Into<String>, bits: Bitwidth) -> Self {
        self.fixed.push((name.into(), bits));
        self
    }

    /// Bitwidths to choose from; 2 to 8 unless said otherwise.
    #[must_use]
    pub fn actions(mut self, actions: impl IntoIterator<Item = Bitwidth>) -> Self {
        self.actions = actions.into_iter().collect();
        self
    }

    /// Bitwidths to choose from for activations, the same as for weights unless said otherwise. There are activations to
    /// choose for in networks that round them ([`Network::with_fake_quantize`]).
    ///
    /// The agent has one list of actions, of all bitwidths that any layer may get; a layer takes the nearest one that it may get.
    #[must_use]
    pub fn activation_actions(mut self, actions: impl IntoIterator<Item = Bitwidth>) -> Self {
        self.activation_actions = Some(actions.into_iter().collect());
        self
    }

    /// What an action means; flexible unless said otherwise.
    #[must_use]
    pub const fn action_space(mut self, space: ActionSpace) -> Self {
        self.action_space = space;
        self
    }

    /// When accuracy is measured; once an episode unless said otherwise.
    #[must_use]
    pub const fn evaluation(mut self, mode: EvaluationMode) -> Self {
        self.evaluation = mode;
        self
    }

    /// What the search makes cheap: State_Quantization is the cost of an assignment over the cost at the
    /// highest bitwidth to choose from, of all layers or of the searched ones
    /// ([`CostModel::searched_layers_only`]). [`MeanBits`] unless said otherwise, the cost under which the
    /// published LeNet result is optimal in the authors' own measurements.
    #[must_use]
    pub fn cost(mut self, cost: impl CostModel + 'static) -> Self {
        self.cost = Arc::new(cost);
        self
    }

    /// What no answer may exceed, over all layers.
    #[must_use]
    pub fn limit(mut self, limit: CostLimit) -> Self {
        self.limits.push(limit);
        self
    }

    /// The reward; [`Shaped`] with the paper's constants unless said otherwise.
    #[must_use]
    pub fn reward(mut self, reward: impl Reward + 'static) -> Self {
        self.reward = Arc::new(reward);
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] for no layers, a standard deviation that is none, no action, an unknown or twice fixed layer, nothing left to
    /// search, or limits that no assignment meets; [`ReleqError::Cost`] if the cost model does not cover a
    /// layer or one of the bitwidths.
    pub fn build(self) -> Result<Problem, ReleqError> {
        guard(|| "a piece of the problem".to_owned(), || self.checked())
    }

    fn checked(mut self) -> Result<Problem, ReleqError> {
        let wrong = |setting, reason: String| Err(ReleqError::Setting { setting, reason });
        if self.layers.is_empty() {
            return wrong("layers", "there is no layer to search".into());
        }
        for SearchLayer { profile, weight_std, .. } in &self.layers {
            if !(0.0..=f64::MAX).contains(weight_std) {
                let reason = format!(
                    "layer `{}` has a `weight_std` of {weight_std:?}; it must be finite and not negative",
                    profile.name
                );
                return wrong("layers", reason);
            }
        }
        let sorted = |mut actions: Vec<Bitwidth>| {
            actions.sort_unstable();
            actions.dedup();
            actions
        };
        let weight_actions = sorted(self.actions);
        if weight_actions.is_empty() {
            return wrong("actions", "the set of bitwidths to choose from is empty".into());
        }
        let rounds = self.layers.iter().any(|layer| layer.profile.kind == LayerKind::Activations);
        let activation_actions = match self.activation_actions {
            Some(_) if !rounds => {
                let reason = "the network does not round its activations".to_owned();
                return wrong("activation_actions", reason);
            }
            Some(actions) => sorted(actions),
            None => weight_actions.clone(),
        };
        if activation_actions.is_empty() {
            let reason = "the set of bitwidths to choose from is empty".to_owned();
            return wrong("activation_actions", reason);
        }
        let actions = sorted([&weight_actions[..], &activation_actions[..]].concat());
        for (name, bits) in std::mem::take(&mut self.fixed) {
            let Some(layer) = self.layers.iter_mut().find(|layer| layer.profile.name == name)
            else {
                let known: Vec<&str> =
                    self.layers.iter().map(|l| l.profile.name.as_str()).collect();
                return wrong(
                    "fixed_layers",
                    format!("no quantizable layer `{name}`; there are {}", known.join(", ")),
                );
            };
            if layer.fixed.replace(bits).is_some() {
                return wrong("fixed_layers", format!("layer `{name}` is fixed twice"));
            }
        }
        let searched: Vec<usize> =
            (0..self.layers.len()).filter(|&index| self.layers[index].fixed.is_none()).collect();
        if searched.is_empty() {
            return wrong("fixed_layers", "every layer is fixed, nothing is left to search".into());
        }
        let profiles: Vec<LayerProfile> =
            self.layers.iter().map(|layer| layer.profile.clone()).collect();
        let searched_only = self.cost.searched_layers_only();
        let counts = |layer: usize| !searched_only || searched.contains(&layer);
        let (operands, counted) =
            (Operands::new(&profiles, |_| true), Operands::new(&profiles, counts));
        let mut problem = Problem {
            counted: counted.of(&profiles),
            counted_operands: counted,
            computing: operands.of(&profiles),
            operands,
            layers: self.layers,
            actions,
            weight_actions,
            activation_actions,
            action_space: self.action_space,
            evaluation: self.evaluation,
            cost: self.cost,
            limits: self.limits,
            reward: self.reward,
            searched,
            highest_cost: 1.0,
        };
        let (lowest, highest) = (problem.lowest(), problem.highest());
        problem.check_prices()?;
        let all_highest: Vec<Bitwidth> =
            (0..problem.layers.len()).map(|layer| problem.nearest(layer, highest)).collect();
        problem.highest_cost = problem.counted_cost(&all_highest)?;
        if problem.highest_cost <= 0.0 {
            let (name, unit) = (problem.cost.name(), problem.cost.unit());
            let reason = format!("{name} is 0 {unit} even at {highest} bits: nothing can be saved");
            return wrong("cost", reason);
        }
        let cheapest = problem.all_at(lowest);
        for limit in &problem.limits {
            let usage = problem.usage(limit, &cheapest)?;
            if usage > 1.0 {
                let reason = format!(
                    "`{limit}` is met by no assignment: at {lowest} bits everywhere the cost is \
                     {usage:.3} times the limit; raise it, or allow fewer bits"
                );
                return wrong("limits", reason);
            }
        }
        Ok(problem)
    }
}

/// The one of `actions` that is nearest to `bits`; of two, the higher. `bits` without any.
pub(crate) fn nearest(actions: &[Bitwidth], bits: Bitwidth) -> Bitwidth {
    let distance = |action: &Bitwidth| (action.get().abs_diff(bits.get()), Reverse(*action));
    actions.iter().copied().min_by_key(distance).unwrap_or(bits)
}

impl Problem {
    /// Starts from the defaults; layers are all that is missing.
    #[must_use]
    pub fn builder() -> ProblemBuilder {
        ProblemBuilder {
            layers: Vec::new(),
            fixed: Vec::new(),
            actions: (2..=8).filter_map(|bits| Bitwidth::new(bits).ok()).collect(),
            activation_actions: None,
            action_space: ActionSpace::default(),
            evaluation: EvaluationMode::default(),
            cost: Arc::new(MeanBits),
            limits: Vec::new(),
            reward: Arc::new(Shaped::default()),
        }
    }

    /// The problem in plain data.
    #[must_use]
    pub fn summary(&self) -> ProblemSummary {
        ProblemSummary {
            layers: self.layers.clone(),
            actions: self.weight_actions.clone(),
            activation_actions: (self.activation_actions != self.weight_actions)
                .then(|| self.activation_actions.clone()),
            action_space: self.action_space,
            evaluation: self.evaluation,
            cost: self.cost.name().to_owned(),
            limits: self.limits.iter().map(ToString::to_string).collect(),
            reward: self.reward.name().to_owned(),
            answers: self.answers(),
        }
    }

    /// What the pieces say of the extremes, of every layer at the lowest bitwidth alone, and of a few states.
    fn answers(&self) -> Vec<Option<f64>> {
        let lowest = self.lowest();
        let highest = self.all_at(self.highest());
        let mut assignments = vec![self.all_at(lowest), highest.clone()];
        for &layer in &self.searched {
            let mut alone = highest.clone();
            alone[layer] = self.nearest(layer, lowest);
            assignments.push(alone);
        }
        let mut answers = Vec::new();
        for bits in &assignments {
            answers.push(self.quant_state(bits).ok());
            answers.extend(self.limits.iter().map(|limit| self.usage(limit, bits).ok()));
        }
        let states = (0..=20).map(|twentieth| (f64::from(twentieth) / 20.0, None));
        for (acc_state, over_limit) in states.chain([(0.97, None), (0.5, Some(1.5))]) {
            for quant_state in [0.25, 0.75] {
                answers.push(self.reward(acc_state, quant_state, over_limit).ok());
            }
        }
        // JSON has neither NaN nor infinity.
        answers.into_iter().map(|answer| answer.filter(|answer| answer.is_finite())).collect()
    }

    /// All quantizable layers.
    #[must_use]
    pub fn layers(&self) -> &[SearchLayer] {
        &self.layers
    }

    /// Bitwidths that layers may get, ascending.
    #[must_use]
    pub fn actions(&self) -> &[Bitwidth] {
        &self.actions
    }

    /// Bitwidths that this layer may get if it is searched, ascending: some of [`actions`](Self::actions).
    ///
    /// # Panics
    /// If there is no such layer.
    #[must_use]
    pub fn actions_of(&self, layer: usize) -> &[Bitwidth] {
        match self.layers[layer].profile.kind {
            LayerKind::Activations => &self.activation_actions,
            _ => &self.weight_actions,
        }
    }

    /// The bitwidth that a layer may get and that is nearest to `bits`; of two, the higher.
    pub(crate) fn nearest(&self, layer: usize, bits: Bitwidth) -> Bitwidth {
        nearest(self.actions_of(layer), bits)
    }

    /// What an action means.
    #[must_use]
    pub const fn action_space(&self) -> ActionSpace {
        self.action_space
    }

    /// When accuracy is measured.
    #[must_use]
    pub const fn evaluation(&self) -> EvaluationMode {
        self.evaluation
    }

    /// Number of actions that the agent chooses from.
    #[must_use]
    pub fn action_count(&self) -> usize {
        match self.action_space {
            ActionSpace::Flexible => self.actions.len(),
            ActionSpace::Restricted => 3,
        }
    }

    /// The actions, and which of them amount to the same at a step, since its layer may get only some of the bitwidths.
    #[must_use]
    pub fn step_actions(&self) -> StepActions {
        if self.action_space == ActionSpace::Restricted {
            return StepActions::all(self.action_count());
        }
        let place = |bits: Bitwidth| self.actions.partition_point(|&action| action < bits);
        let of = |&layer: &usize| {
            self.actions.iter().map(|&bits| place(self.nearest(layer, bits))).collect()
        };
        StepActions::new(self.action_count(), self.searched.iter().map(of).collect())
            .unwrap_or_else(|_| StepActions::all(self.action_count()))
    }

    /// Length of an observation.
    #[must_use]
    pub const fn observation_len(&self) -> usize {
        crate::environment::OBSERVATION_LEN
    }

    /// Steps in an episode: the layers that are not fixed.
    #[must_use]
    pub fn episode_len(&self) -> usize {
        self.searched.len()
    }

    /// Indices of the layers that the agent chooses.
    pub(crate) const fn searched(&self) -> &[usize] {
        self.searched.as_slice()
    }

    fn lowest(&self) -> Bitwidth {
        self.actions.first().copied().unwrap_or(Bitwidth::ONE)
    }

    pub(crate) fn highest(&self) -> Bitwidth {
        self.actions.last().copied().unwrap_or(Bitwidth::EIGHT)
    }

    /// The searched layers at `bits`, or the nearest that they may get, the others at what they are fixed to.
    pub(crate) fn all_at(&self, bits: Bitwidth) -> Vec<Bitwidth> {
        let layers = self.layers.iter().enumerate();
        layers.map(|(index, layer)| layer.fixed.unwrap_or(self.nearest(index, bits))).collect()
    }

    /// Whether a search of this problem could have chosen `bits`: every layer that is searched has one of the
    /// bitwidths to choose from, every other what it is fixed to. Limits are not asked about
    /// ([`over_limit`](Self::over_limit)).
    #[must_use]
    pub fn admits(&self, bits: &[Bitwidth]) -> bool {
        bits.len() == self.layers.len()
            && self.layers.iter().zip(bits).enumerate().all(|(index, (layer, bits))| {
                match layer.fixed {
                    Some(fixed) => *bits == fixed,
                    None => self.actions_of(index).contains(bits),
                }
            })
    }

    fn counted_cost(&self, bits: &[Bitwidth]) -> Result<f64, ReleqError> {
        let bits = self.counted_operands.bits(bits);
        guard(
            || format!("cost model `{}`", self.cost.name()),
            || Ok(checked_network_cost(&self.cost, &self.counted, &bits)?.0),
        )
    }

    /// Prices every layer at every bitwidth that it may get, so that a cost model that does not cover one, or has no
    /// sensible cost of it, shows before anything is measured, and not hidden in a sum.
    fn check_prices(&self) -> Result<(), ReleqError> {
        let may_get = |name: &str| -> Vec<Bitwidth> {
            let index = self.layers.iter().position(|layer| layer.profile.name == name);
            index.map_or_else(Vec::new, |index| match self.layers[index].fixed {
                Some(bits) => vec![bits],
                None => self.actions_of(index).to_vec(),
            })
        };
        guard(
            || format!("cost model `{}`", self.cost.name()),
            || {
                for profile in &self.counted {
                    let reads = profile.reads.as_deref();
                    let mut activations = reads.map_or_else(Vec::new, may_get);
                    if activations.is_empty() {
                        activations.push(Bitwidth::EIGHT);
                    }
                    for weight in may_get(&profile.name) {
                        for &activation in &activations {
                            let bits = LayerBits::new(weight, activation);
                            self.cost.layer_cost(profile, bits)?.checked(self.cost.name())?;
                        }
                    }
                }
                Ok(())
            },
        )
    }

    fn usage(&self, limit: &CostLimit, bits: &[Bitwidth]) -> Result<f64, ReleqError> {
        let bits = self.operands.bits(bits);
        guard(
            || format!("the cost model of the limit `{limit}`"),
            || Ok(limit.usage(&self.computing, &bits)?.fraction()),
        )
    }

    /// State_Quantization of an assignment: its cost over the cost at the highest bitwidth to choose from,
    /// which is a reference and not a limit.
    ///
    /// # Source
    /// Elthakeb et al., "ReLeQ" (arXiv 1811.01704), under [`CostWeighted`](releq_hw::CostWeighted); the code
    /// released with it computes the mean of the searched bits, [`MeanBits`].
    ///
    /// # Errors
    /// [`ReleqError::Cost`] for another number of bitwidths than layers, or if the cost model fails;
    /// [`ReleqError::OutOfRange`] if the quotient is infinite.
    pub fn quant_state(&self, bits: &[Bitwidth]) -> Result<f64, ReleqError> {
        if bits.len() != self.layers.len() {
            let (layers, bits) = (self.layers.len(), bits.len());
            return Err(releq_core::CostError::LengthMismatch { layers, bits }.into());
        }
        let value = self.counted_cost(bits)? / self.highest_cost;
        if value.is_finite() {
            return Ok(value);
        }
        let piece = format!("cost model `{}`", self.cost.name());
        let allowed = "a finite multiple of the cost at the highest bitwidth";
        Err(ReleqError::OutOfRange { piece, value, allowed })
    }

    /// How many times the limit an assignment costs, for the limit that it exceeds most; `None` if it is
    /// within all of them.
    ///
    /// # Errors
    /// [`ReleqError::Cost`] if the cost model of a limit fails.
    pub fn over_limit(&self, bits: &[Bitwidth]) -> Result<Option<f64>, ReleqError> {
        let mut most = 1.0;
        for limit in &self.limits {
            most = f64::max(most, self.usage(limit, bits)?);
        }
        Ok((most > 1.0).then_some(most))
    }

    /// Reward of two states, and of how far an assignment is over a limit.
    ///
    /// # Errors
    /// [`ReleqError::Panicked`], or [`ReleqError::OutOfRange`] if the reward is not within a million of 0, as
    /// NaN is not: agents square rewards in 32-bit arithmetic, and one huge reward would drown all others.
    pub fn reward(
        &self,
        acc_state: f64,
        quant_state: f64,
        over_limit: Option<f64>,
    ) -> Result<f64, ReleqError> {
        let piece = || format!("reward `{}`", self.reward.name());
        let reward = guard(piece, || {
            Ok(match over_limit {
                Some(usage) => self.reward.over_limit(acc_state, quant_state, usage - 1.0),
                None => self.reward.reward(acc_state, quant_state),
            })
        })?;
        if (-LARGEST_REWARD..=LARGEST_REWARD).contains(&reward) {
            Ok(reward)
        } else {
            let allowed = "between -1,000,000 and 1,000,000; scale it";
            Err(ReleqError::OutOfRange { piece: piece(), value: reward, allowed })
        }
    }

    /// Measures and scores one assignment outside any search.
    ///
    /// # Errors
    /// [`ReleqError`] if the evaluator, the cost model or the reward fails.
    pub fn score(
        &self,
        bits: &BitwidthAssignment,
        evaluator: &dyn Evaluator,
    ) -> Result<Scored, ReleqError> {
        let full_precision = full_precision(evaluator)?;
        let piece = || format!("evaluator `{}`", evaluator.name());
        let answer = guard(piece, || evaluator.evaluate(bits))?;
        self.scored(bits, answer, full_precision)
    }

    /// What an evaluation is worth.
    pub(crate) fn scored(
        &self,
        asked: &BitwidthAssignment,
        evaluation: Evaluation,
        full_precision: f64,
    ) -> Result<Scored, ReleqError> {
        let (measured, mut failure, stopped_after) = match evaluation.checked() {
            Evaluation::Measured(measured) => (Some(measured), None, None),
            Evaluation::GivenUp { after_step, seen } => (Some(seen), None, Some(after_step)),
            Evaluation::Failed { reason } => (None, Some(reason), None),
        };
        let length = |measured: &Measurement| measured.answered_by.as_ref().map(|bits| bits.len());
        let measured = match measured.as_ref().and_then(length) {
            Some(got) if got != self.layers.len() => {
                let layers = self.layers.len();
                failure = Some(format!("the evaluator answered for {got} layers of {layers}"));
                None
            }
            _ => measured,
        };
        let answered_by = measured.as_ref().and_then(|measured| measured.answered_by.clone());
        let bits = answered_by.unwrap_or_else(|| asked.clone());
        let accuracy = measured.as_ref().map_or(0.0, |measured| measured.accuracy);
        let estimated = measured.as_ref().and_then(|measured| measured.estimated);
        let acc_state = estimated.unwrap_or(accuracy) / full_precision;
        let quant_state = self.quant_state(&bits)?;
        let over_limit = self.over_limit(&bits)?;
        Ok(Scored {
            accuracy,
            standard_error: measured.as_ref().and_then(|measured| measured.standard_error),
            compared: measured.and_then(|measured| measured.compared),
            acc_state,
            quant_state,
            reward: self.reward(acc_state, quant_state, over_limit)?,
            over_limit,
            failure,
            stopped_after,
            bits,
        })
    }
}
