//! The search loop: an agent, an environment, budgets, events, and a reason to stop.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroUsize,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use releq_agent::{Agent, Environment, Mode, UpdateStats};
use releq_core::{Bitwidth, BitwidthAssignment, Network, Weights};
use releq_hw::StateQuantization;
use releq_reward::{Reward, Shaped};
use serde::{Deserialize, Serialize};

use crate::{
    ReleqError,
    environment::{
        ActionSpace, BitwidthEnvironment, EvaluationMode, OBSERVATION_LEN, Problem, Scored,
        SearchLayer,
    },
    evaluate::Evaluator,
};

/// When to stop, whichever comes first; at least one limit is needed for an agent that never ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Episodes to play.
    pub episodes: Option<usize>,
    /// Distinct assignments to measure; never exceeded. There may be fewer assignments, or the agent may
    /// settle before, so a search with this limit alone has a patience of 1000 episodes.
    pub evaluations: Option<usize>,
    /// Episodes in a row that may bring no assignment that is new; more mean that the agent has made up
    /// its mind.
    pub patience: Option<usize>,
    /// Wall time, looked at between batches of episodes. The one limit under which two equal runs
    /// may differ.
    pub wall_time: Option<Duration>,
}

/// Patience where there is no limit but the number of evaluations.
const PATIENCE: usize = 1000;

impl Budget {
    /// The patience that counts.
    fn patience(&self) -> Option<usize> {
        let may_never_end = self.episodes.is_none() && self.wall_time.is_none();
        self.patience.or((self.evaluations.is_some() && may_never_end).then_some(PATIENCE))
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StopReason {
    /// The budget of episodes is used up.
    Episodes,
    /// The budget of evaluations is used up.
    Evaluations,
    /// The agent asked for nothing new for as long as the budget's patience.
    Converged,
    /// The wall time is over.
    WallTime,
    /// The agent has nothing left to try.
    Exhausted,
    /// The caller said stop.
    Cancelled,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Episodes => "episode budget used up",
            Self::Evaluations => "evaluation budget used up",
            Self::Converged => "the agent has settled",
            Self::WallTime => "wall time over",
            Self::Exhausted => "nothing left to try",
            Self::Cancelled => "cancelled",
        })
    }
}

/// News from a running search, once for every batch of episodes.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchProgress<'a> {
    /// Name of the agent.
    pub agent: &'a str,
    /// Episodes played.
    pub episodes: usize,
    /// Distinct assignments measured.
    pub evaluations: usize,
    /// How many of them failed.
    pub failures: usize,
    /// Highest reward so far.
    pub best: Option<&'a Scored>,
    /// What the agent learned from the batch.
    pub update: &'a UpdateStats,
}

/// One batch of episodes in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Episodes played, this batch included.
    pub episodes: usize,
    /// Distinct assignments measured, this batch included.
    pub evaluations: usize,
    /// Mean reward at the end of the batch's episodes.
    pub mean_reward: f64,
    /// Mean State_Accuracy there.
    pub mean_acc_state: f64,
    /// Mean State_Quantization there.
    pub mean_quant_state: f64,
    /// What the agent learned from it.
    pub update: UpdateStats,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchOutcome {
    /// Name of the agent.
    pub agent: String,
    /// Why it ended.
    pub stop: StopReason,
    /// Episodes played, the greedy one not counted.
    pub episodes: usize,
    /// Distinct assignments measured, the greedy one not counted.
    pub evaluations: usize,
    /// Evaluations that failed, as by a NaN loss.
    pub failures: usize,
    /// The agent's most likely choices after learning; `None` for agents without a policy to ask,
    /// or after a cancellation.
    pub greedy: Option<Scored>,
    /// Highest reward seen, the earliest such assignment.
    pub best: Option<Scored>,
    /// Every distinct assignment, in the order it was first asked for.
    pub scored: Vec<Scored>,
    /// Learning, batch by batch.
    pub history: Vec<BatchRecord>,
    /// Wall time and the part of it spent in the evaluator.
    pub times: BTreeMap<String, f64>,
}

impl SearchOutcome {
    /// The assignment of lowest State_Quantization that keeps `1 - tolerance` of the full-precision
    /// accuracy; the more accurate of equals.
    #[must_use]
    pub fn best_within(&self, tolerance: f64) -> Option<&Scored> {
        self.scored
            .iter()
            .chain(&self.greedy)
            .filter(|scored| scored.failure.is_none() && scored.acc_state >= 1.0 - tolerance)
            .min_by(|a, b| {
                a.quant_state
                    .total_cmp(&b.quant_state)
                    .then(b.acc_state.total_cmp(&a.acc_state))
                    .then_with(|| a.bits.cmp(&b.bits))
            })
    }
}

/// The Pareto frontier of `scored`: no other has both lower State_Quantization and higher accuracy.
///
/// Sorted by State_Quantization ascending, accuracies strictly increasing; of equal points the first
/// assignment in order of its bitwidths stands.
#[must_use]
pub fn pareto_frontier(scored: &[Scored]) -> Vec<&Scored> {
    let mut sorted: Vec<&Scored> = scored.iter().filter(|s| s.failure.is_none()).collect();
    sorted.sort_by(|a, b| {
        a.quant_state
            .total_cmp(&b.quant_state)
            .then(b.accuracy.total_cmp(&a.accuracy))
            .then_with(|| a.bits.cmp(&b.bits))
    });
    let mut frontier: Vec<&Scored> = Vec::new();
    for scored in sorted {
        if frontier.last().is_none_or(|last| scored.accuracy > last.accuracy) {
            frontier.push(scored);
        }
    }
    frontier
}

/// A search problem: the layers, the bitwidths to choose from, the reward, the budget.
///
/// ```
/// use releq::{Budget, Search, evaluate::{Evaluation, Evaluator}};
/// use releq::{agent::PpoConfig, core::BitwidthAssignment, zoo::lenet};
///
/// /// Pretends that every layer needs three bits.
/// struct ThreeBits;
/// impl Evaluator for ThreeBits {
///     fn full_precision(&self) -> f64 { 0.99 }
///     fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, releq::ReleqError> {
///         let missing: u8 = bits.to_bits().iter().map(|&b| 3u8.saturating_sub(b)).sum();
///         Ok(Evaluation::new(0.99 - 0.2 * f64::from(missing)))
///     }
/// }
///
/// let search = Search::builder()
///     .network(&lenet(), None)
///     .budget(Budget { episodes: Some(64), ..Budget::default() })
///     .build()?;
/// let mut agent = PpoConfig::default().init(search.observation_len(), search.action_count(), 1)?;
/// let outcome = search.run(&mut agent, &ThreeBits, &mut |_| std::ops::ControlFlow::Continue(()))?;
/// assert_eq!(outcome.episodes, 64);
/// # Ok::<(), releq::ReleqError>(())
/// ```
pub struct Search {
    problem: Problem,
    budget: Budget,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search")
            .field("layers", &self.problem.layers)
            .field("actions", &self.problem.actions)
            .field("reward", &self.problem.reward.name())
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`Search`]; [`build`](Self::build) checks them.
pub struct SearchBuilder {
    layers: Vec<SearchLayer>,
    fixed: Vec<(String, Bitwidth)>,
    actions: Vec<Bitwidth>,
    action_space: ActionSpace,
    evaluation: EvaluationMode,
    state_quantization: StateQuantization,
    reward: Box<dyn Reward>,
    budget: Budget,
    threads: NonZeroUsize,
}

impl fmt::Debug for SearchBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SearchBuilder").field("layers", &self.layers).finish_non_exhaustive()
    }
}

impl SearchBuilder {
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

    /// Form of State_Quantization; mean bits unless said otherwise, the form under which the
    /// published LeNet result is optimal in the authors' own measurements.
    #[must_use]
    pub const fn state_quantization(mut self, form: StateQuantization) -> Self {
        self.state_quantization = form;
        self
    }

    /// The reward; [`Shaped`] with the paper's constants unless said otherwise.
    #[must_use]
    pub fn reward(mut self, reward: impl Reward + 'static) -> Self {
        self.reward = Box::new(reward);
        self
    }

    /// When to stop.
    #[must_use]
    pub const fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Evaluations that run side by side; the answer does not depend on it. One unless said otherwise.
    #[must_use]
    pub const fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] for no layers, no action, an unknown or twice fixed layer, or nothing
    /// left to search.
    pub fn build(mut self) -> Result<Search, ReleqError> {
        let wrong = |setting, reason: String| Err(ReleqError::Setting { setting, reason });
        if self.layers.is_empty() {
            return wrong("layers", "there is no layer to search".into());
        }
        self.actions.sort_unstable();
        self.actions.dedup();
        if self.actions.is_empty() {
            return wrong("actions", "the set of bitwidths to choose from is empty".into());
        }
        for (name, bits) in std::mem::take(&mut self.fixed) {
            let Some(layer) = self.layers.iter_mut().find(|layer| layer.profile.name == name)
            else {
                let known: Vec<&str> =
                    self.layers.iter().map(|l| l.profile.name.as_str()).collect();
                return wrong(
                    "fix_layer",
                    format!("no quantizable layer `{name}`; there are {}", known.join(", ")),
                );
            };
            if layer.fixed.replace(bits).is_some() {
                return wrong("fix_layer", format!("layer `{name}` is fixed twice"));
            }
        }
        let problem = Problem {
            layers: self.layers,
            actions: self.actions,
            action_space: self.action_space,
            evaluation: self.evaluation,
            state_quantization: self.state_quantization,
            reward: self.reward,
            threads: self.threads,
        };
        if problem.searched().is_empty() {
            return wrong("fix_layer", "every layer is fixed, nothing is left to search".into());
        }
        Ok(Search { problem, budget: self.budget })
    }
}

impl Search {
    /// Starts from the defaults; layers are all that is missing.
    #[must_use]
    pub fn builder() -> SearchBuilder {
        SearchBuilder {
            layers: Vec::new(),
            fixed: Vec::new(),
            actions: (2..=8).filter_map(|bits| Bitwidth::new(bits).ok()).collect(),
            action_space: ActionSpace::default(),
            evaluation: EvaluationMode::default(),
            state_quantization: StateQuantization::MeanBits,
            reward: Box::new(Shaped::default()),
            budget: Budget::default(),
            threads: NonZeroUsize::MIN,
        }
    }

    /// Length of an observation.
    #[must_use]
    pub const fn observation_len(&self) -> usize {
        OBSERVATION_LEN
    }

    /// Number of actions that the agent chooses from.
    #[must_use]
    pub fn action_count(&self) -> usize {
        match self.problem.action_space {
            ActionSpace::Flexible => self.problem.actions.len(),
            ActionSpace::Restricted => 3,
        }
    }

    /// Steps in an episode: the layers that are not fixed.
    #[must_use]
    pub fn episode_len(&self) -> usize {
        self.problem.searched().len()
    }

    /// When this search stops.
    #[must_use]
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// Replaces the budget, for a comparison on equal terms.
    pub const fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Measures and scores one assignment outside any episode.
    ///
    /// # Errors
    /// [`ReleqError`] if the evaluator or the cost fails.
    pub fn score(
        &self,
        bits: &BitwidthAssignment,
        evaluator: &impl Evaluator,
    ) -> Result<Scored, ReleqError> {
        self.problem.score(bits, evaluator.evaluate(bits)?, evaluator.full_precision())
    }

    /// State_Quantization of an assignment.
    ///
    /// # Errors
    /// [`ReleqError::Cost`] for another number of bitwidths than layers.
    pub fn quant_state(&self, bits: &BitwidthAssignment) -> Result<f64, ReleqError> {
        self.problem.quant_state(bits)
    }

    /// Reward of two states.
    #[must_use]
    pub fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        self.problem.reward.reward(acc_state, quant_state)
    }

    /// Lets `agent` play until the budget is used up, then asks it for its greedy answer.
    ///
    /// `on_progress` is called after every batch of episodes; a `Break` ends the search with what it
    /// has.
    ///
    /// # Errors
    /// [`ReleqError`] if the agent or the evaluator fails; a retrain that diverges is no error.
    pub fn run<E: Evaluator>(
        &self,
        agent: &mut dyn Agent,
        evaluator: &E,
        on_progress: &mut dyn FnMut(&SearchProgress<'_>) -> ControlFlow<()>,
    ) -> Result<SearchOutcome, ReleqError> {
        let started = Instant::now();
        let mut environment = BitwidthEnvironment::new(&self.problem, evaluator);
        let per_episode = match self.problem.evaluation {
            EvaluationMode::PerEpisode => 1,
            EvaluationMode::PerLayer => environment.episode_len(),
        };
        let name = agent.name().to_owned();
        let mut episodes = 0;
        let mut last_new_at = 0;
        let mut best: Option<Scored> = None;
        let mut looked_at = 0;
        let mut failures = 0;
        let mut history = Vec::new();
        let stop = loop {
            let evaluations = environment.scored().len();
            let mut room = usize::MAX;
            if let Some(limit) = self.budget.episodes {
                room = limit.saturating_sub(episodes);
                if room == 0 {
                    break StopReason::Episodes;
                }
            }
            if let Some(limit) = self.budget.evaluations {
                room = room.min(limit.saturating_sub(evaluations) / per_episode);
                if room == 0 {
                    break StopReason::Evaluations;
                }
            }
            if self.budget.patience().is_some_and(|patience| episodes - last_new_at > patience) {
                break StopReason::Converged;
            }
            if self.budget.wall_time.is_some_and(|limit| started.elapsed() >= limit) {
                break StopReason::WallTime;
            }
            let Some(count) = agent.begin(room, Mode::Explore) else {
                break StopReason::Exhausted;
            };
            let update = match play(agent, &mut environment, count) {
                Err(ReleqError::Cancelled) => break StopReason::Cancelled,
                other => other?,
            };
            episodes += count;
            for scored in &environment.scored()[looked_at..] {
                failures += usize::from(scored.failure.is_some());
                if best.as_ref().is_none_or(|best| scored.reward > best.reward) {
                    best = Some(scored.clone());
                }
            }
            if environment.scored().len() > looked_at {
                last_new_at = episodes;
            }
            looked_at = environment.scored().len();
            let mean = |feature: &dyn Fn(&Scored) -> f64| {
                environment.batch_scores().map(feature).sum::<f64>() / count.max(1) as f64
            };
            history.push(BatchRecord {
                episodes,
                evaluations: looked_at,
                mean_reward: mean(&|s| s.reward),
                mean_acc_state: mean(&|s| s.acc_state),
                mean_quant_state: mean(&|s| s.quant_state),
                update: update.clone(),
            });
            let progress = SearchProgress {
                agent: &name,
                episodes,
                evaluations: looked_at,
                failures,
                best: best.as_ref(),
                update: &update,
            };
            if on_progress(&progress).is_break() {
                break StopReason::Cancelled;
            }
        };
        let evaluations = environment.scored().len();
        let scored = environment.scored().to_vec();
        let mut greedy = None;
        // Without an episode nothing was learned that an answer could follow from.
        let learned = episodes > 0 && stop != StopReason::Cancelled;
        if learned && agent.begin(1, Mode::Greedy).is_some() {
            match play(agent, &mut environment, 1) {
                Err(ReleqError::Cancelled) => {}
                other => {
                    other?;
                    greedy = environment.batch_scores().next().cloned();
                }
            }
        }
        let evaluation_seconds = environment.evaluation_seconds();
        let seconds = started.elapsed().as_secs_f64();
        Ok(SearchOutcome {
            agent: name,
            stop,
            episodes,
            evaluations,
            failures,
            greedy,
            best,
            scored,
            history,
            times: BTreeMap::from([
                ("seconds".to_owned(), seconds),
                ("evaluation_seconds".to_owned(), evaluation_seconds),
            ]),
        })
    }
}

/// Plays the batch that the agent has begun, and lets the agent learn from it.
fn play<E: Evaluator>(
    agent: &mut dyn Agent,
    environment: &mut BitwidthEnvironment<'_, E>,
    episodes: usize,
) -> Result<UpdateStats, ReleqError> {
    let mut observations = environment.reset(episodes)?;
    let mut rewards = Vec::with_capacity(environment.episode_len());
    for _ in 0..environment.episode_len() {
        let actions = agent.act(&observations)?;
        let (next, transitions) = environment.step(&actions)?;
        rewards.push(transitions.iter().map(|transition| transition.reward).collect());
        observations = next;
    }
    Ok(agent.finish(&rewards)?)
}
