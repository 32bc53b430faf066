//! The search loop: an agent, an environment, a budget, events, and a reason to stop.

mod budget;
mod frontier;
mod outcome;
mod state;

use std::{collections::BTreeMap, fmt, time::Duration};

use releq_agent::{Agent, Environment, Mode, UpdateStats};

pub use budget::{Budget, StopReason};
pub use frontier::{pareto_frontier, pareto_frontier_by};
pub use outcome::{BatchRecord, Scored, SearchOutcome};
pub use state::SearchState;

use crate::{
    Cancel, Event, ReleqError, Sensitivities, Stage,
    environment::BitwidthEnvironment,
    evaluate::{Evaluator, full_precision},
    guard::guard,
    planning::{Measured, Plan, Planning, conclude, plan},
    problem::{EvaluationMode, Problem},
    run_folder::Clock,
};
use state::FORMAT;

/// Most episodes that an agent may begin at a time, whatever the budget.
const MOST_EPISODES: usize = 10_000;

/// A search that steps: an agent plays one batch of episodes of a [`Problem`] after the other until its
/// budget is used up.
///
/// [`run`](Self::run) takes all steps. Between two of them, [`state`](Self::state) gives plain data from which
/// [`resume`](Self::resume) goes on as if nothing had happened.
///
/// ```
/// use releq::{Budget, Problem, Search, evaluate::{Evaluation, Evaluator}};
/// use releq::{agent::PpoConfig, core::BitwidthAssignment, zoo::lenet};
///
/// /// Pretends that every layer needs three bits.
/// struct ThreeBits;
/// impl Evaluator for ThreeBits {
///     fn full_precision(&self) -> f64 { 0.99 }
///     fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, releq::ReleqError> {
///         let missing: u8 = bits.to_bits().iter().map(|&b| 3u8.saturating_sub(b)).sum();
///         Ok(Evaluation::new((0.99 - 0.2 * f64::from(missing)).max(0.0)))
///     }
/// }
///
/// let problem = Problem::builder().network(&lenet(), None).build()?;
/// let mut agent = PpoConfig::default().init(problem.observation_len(), problem.action_count(), 1)?;
/// let budget = Budget { episodes: Some(64), ..Budget::default() };
/// let outcome = Search::new(&problem, &mut agent, &ThreeBits, budget).run()?;
/// assert_eq!(outcome.episodes, 64);
/// # Ok::<(), releq::ReleqError>(())
/// ```
pub struct Search<'a> {
    problem: &'a Problem,
    /// The agent's.
    name: String,
    agent: &'a mut dyn Agent,
    evaluator: &'a dyn Evaluator,
    environment: BitwidthEnvironment<'a>,
    budget: Budget,
    planning: Option<Planning>,
    sensitivities: Option<Sensitivities>,
    cancel: Cancel,
    stage: Stage,
    on_event: Option<&'a (dyn Fn(&Event) + Sync)>,
    episodes: usize,
    last_new_at: usize,
    /// How many scores `best` and `failures` are over.
    looked_at: usize,
    best: Option<Scored>,
    failures: usize,
    history: Vec<BatchRecord>,
    stop: Option<StopReason>,
    error: Option<String>,
    clock: Clock,
    /// What the clock showed when the search began.
    started: Duration,
    /// Time of the search before that.
    before: Duration,
}

/// What outcomes and events call an agent: its name, and whether the search plans for it.
pub(crate) fn agent_name(agent: &dyn Agent, planned: bool) -> String {
    with_plan(name_of(agent), planned)
}

fn with_plan(name: String, planned: bool) -> String {
    if planned { name + "-planned" } else { name }
}

/// Its name, or what stands for that of an agent that panics when asked.
fn name_of(agent: &dyn Agent) -> String {
    guard(String::new, || Ok(agent.name().to_owned())).unwrap_or_else(|_| "nameless".to_owned())
}

impl fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search")
            .field("problem", &self.problem)
            .field("agent", &self.name)
            .field("budget", &self.budget)
            .field("episodes", &self.episodes)
            .finish_non_exhaustive()
    }
}

impl<'a> Search<'a> {
    /// A search before its first batch.
    pub fn new(
        problem: &'a Problem,
        agent: &'a mut dyn Agent,
        evaluator: &'a dyn Evaluator,
        budget: Budget,
    ) -> Self {
        Self {
            problem,
            name: name_of(agent),
            agent,
            evaluator,
            environment: BitwidthEnvironment::new(problem, evaluator),
            budget,
            planning: None,
            sensitivities: None,
            cancel: Cancel::new(),
            stage: Stage::Search,
            on_event: None,
            episodes: 0,
            last_new_at: 0,
            looked_at: 0,
            best: None,
            failures: 0,
            history: Vec::new(),
            stop: None,
            error: None,
            clock: Clock::new(),
            started: Duration::ZERO,
            before: Duration::ZERO,
        }
    }

    /// Goes on from `state`; the agent takes over its snapshot.
    ///
    /// # Errors
    /// [`ReleqError::Resume`], naming the field, for a state of another version, problem or evaluator;
    /// [`ReleqError::Agent`] for one of another agent. The agent is unchanged then.
    pub fn resume(
        problem: &'a Problem,
        agent: &'a mut dyn Agent,
        evaluator: &'a dyn Evaluator,
        state: SearchState,
    ) -> Result<Self, ReleqError> {
        state.check(&problem.summary(), full_precision(evaluator)?)?;
        let before = Duration::try_from_secs_f64(state.seconds)
            .map_err(|error| ReleqError::Resume { field: "seconds", reason: error.to_string() })?;
        let name = name_of(agent);
        guard(|| format!("agent `{name}`"), || Ok(agent.restore(&state.agent)?))?;
        let mut search = Self::new(problem, agent, evaluator, state.budget);
        search.planning = state.planning;
        search.sensitivities = state.sensitivities;
        search.environment.restore(state.environment);
        search.episodes = state.episodes;
        search.last_new_at = state.last_new_at;
        search.history = state.history;
        search.before = before;
        search.look();
        Ok(search)
    }

    /// Plans what to measure on a model of the accuracy, where the agent learns. A search that goes on from a
    /// state plans as it did; one of an agent of ours as [`AgentKind::planning`](crate::AgentKind::planning) says.
    #[must_use]
    pub fn planning(mut self, planning: impl Into<Option<Planning>>) -> Self {
        self.planning = planning.into();
        self
    }

    /// Lets a search that plans know what is measured of single layers. A search that goes on from a state knows what it
    /// did.
    #[must_use]
    pub fn sensitivities(mut self, sensitivities: impl Into<Option<Sensitivities>>) -> Self {
        self.sensitivities = sensitivities.into();
        self
    }

    /// Ends the search at the next batch once `cancel` is set.
    #[must_use]
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Reports every batch as [`Event::Episodes`] of `stage`.
    #[must_use]
    pub fn on_event(mut self, stage: Stage, on_event: &'a (dyn Fn(&Event) + Sync)) -> Self {
        (self.stage, self.on_event) = (stage, Some(on_event));
        self
    }

    /// Lets the search measure so many assignments in all.
    pub(crate) const fn allow(&mut self, evaluations: usize) {
        self.budget.evaluations = Some(evaluations);
    }

    /// Assignments measured so far.
    pub(crate) const fn evaluations(&self) -> usize {
        self.looked_at
    }

    /// Measures its time by the clock of a run.
    #[must_use]
    pub(crate) fn clock(mut self, clock: &Clock) -> Self {
        (self.clock, self.started) = (clock.clone(), clock.elapsed());
        self.environment.clock(clock);
        self
    }

    /// Everything that the rest of the search depends on.
    ///
    /// # Errors
    /// [`ReleqError::Agent`] for an agent that has no snapshot.
    pub fn state(&self) -> Result<SearchState, ReleqError> {
        Ok(SearchState {
            format: FORMAT.to_owned(),
            problem: self.problem.summary(),
            full_precision: full_precision(self.evaluator)?,
            budget: self.budget,
            planning: self.planning,
            sensitivities: self.sensitivities.clone(),
            agent: guard(|| self.piece(), || Ok(self.agent.snapshot()?))?,
            environment: self.environment.state(),
            episodes: self.episodes,
            last_new_at: self.last_new_at,
            history: self.history.clone(),
            seconds: self.elapsed().as_secs_f64(),
        })
    }

    /// Takes all steps that are left, then asks the agent for its greedy answer.
    ///
    /// # Errors
    /// [`ReleqError`] if the agent, the evaluator, the cost model or the reward fails before anything was
    /// measured; afterwards the outcome has what there is, and [`StopReason::Failed`]. A retrain that diverges
    /// is no error.
    pub fn run(mut self) -> Result<SearchOutcome, ReleqError> {
        while self.step()? {}
        Ok(self.finish())
    }

    /// Plays one batch of episodes; `false` once the search is over.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn step(&mut self) -> Result<bool, ReleqError> {
        if self.stop.is_some() {
            return Ok(false);
        }
        let stop = self.batch();
        // A batch that failed may have measured something before.
        self.look();
        match stop {
            Ok(stop) => self.stop = stop,
            Err(ReleqError::Cancelled) => self.stop = Some(StopReason::Cancelled),
            Err(error) if self.environment.scored().is_empty() => return Err(error),
            Err(error) => {
                self.stop = Some(StopReason::Failed);
                self.error = Some(error.chain());
            }
        }
        Ok(self.stop.is_none())
    }

    /// One batch, unless there is a reason to stop.
    fn batch(&mut self) -> Result<Option<StopReason>, ReleqError> {
        let room = match self.room() {
            Ok(room) => room,
            Err(stop) => return Ok(Some(stop)),
        };
        match self.planning {
            Some(planning) => self.planned(&planning, room),
            None => self.explored(room),
        }
    }

    /// A batch of assignments that the agent and a model of the accuracy think promising.
    fn planned(
        &mut self,
        planning: &Planning,
        room: usize,
    ) -> Result<Option<StopReason>, ReleqError> {
        planning.check_for(self.problem)?;
        let name = self.name.clone();
        let measured = measured(&self.environment, self.evaluator, self.sensitivities.as_ref())?;
        let next = guard(
            || format!("agent `{name}`"),
            || plan(planning, self.problem, self.agent, &measured, room),
        )?;
        let Some(Plan { assignments, played }) = next else {
            return Ok(Some(StopReason::Converged));
        };
        let Played { action_probabilities, update, .. } = played.unwrap_or_default();
        check_finite(&name, &update)?;
        let places = self.environment.measure(&assignments)?;
        let batch = places.iter().map(|&place| self.environment.scored()[place].clone()).collect();
        self.told(name, batch, action_probabilities, update);
        Ok(None)
    }

    /// The last lessons of a planned search.
    fn concluded(&mut self, planning: &Planning) -> Result<(), ReleqError> {
        let name = self.name.clone();
        let measured = measured(&self.environment, self.evaluator, self.sensitivities.as_ref())?;
        guard(
            || format!("agent `{name}`"),
            || conclude(planning, self.problem, self.agent, &measured),
        )
    }

    /// A batch of episodes of the agent's own, which it learns from.
    fn explored(&mut self, room: usize) -> Result<Option<StopReason>, ReleqError> {
        let name = self.name.clone();
        let piece = || format!("agent `{name}`");
        let Some(count) = guard(piece, || Ok(self.agent.begin(room, Mode::Explore)))? else {
            return Ok(Some(StopReason::Exhausted));
        };
        if !(1..=room).contains(&count) {
            let reason = format!("{} began {count} episodes where 1 to {room} were asked", piece());
            return Err(ReleqError::Setting { setting: "agent", reason });
        }
        let Played { rewards, action_probabilities, .. } =
            play(self.agent, &mut self.environment, count)?;
        let update = guard(piece, || Ok(self.agent.finish(&rewards)?))?;
        check_finite(&name, &update)?;

        let batch: Vec<Scored> = self.environment.batch_scores().cloned().collect();
        self.told(name, batch, action_probabilities, update);
        Ok(None)
    }

    /// Takes a measured batch into the records.
    fn told(
        &mut self,
        agent: String,
        batch: Vec<Scored>,
        action_probabilities: Vec<Vec<f32>>,
        update: UpdateStats,
    ) {
        self.episodes = self.episodes.saturating_add(batch.len());
        if self.environment.scored().len() > self.looked_at {
            self.last_new_at = self.episodes;
        }
        self.look();
        let mean = |feature: &dyn Fn(&Scored) -> f64| {
            batch.iter().map(feature).sum::<f64>() / batch.len() as f64
        };
        let record = BatchRecord {
            episodes: self.episodes,
            evaluations: self.looked_at,
            mean_reward: mean(&|s| s.reward),
            mean_acc_state: mean(&|s| s.acc_state),
            mean_quant_state: mean(&|s| s.quant_state),
            action_probabilities,
            update,
        };
        self.history.push(record.clone());
        if let Some(on_event) = self.on_event {
            on_event(&Event::Episodes {
                stage: self.stage,
                agent,
                budget: self.budget,
                record: Box::new(record),
                failures: self.failures,
                best: self.best.clone().map(Box::new),
            });
        }
    }

    /// How many episodes the budget allows, or why it allows none.
    fn room(&self) -> Result<usize, StopReason> {
        if self.cancel.is_cancelled() {
            return Err(StopReason::Cancelled);
        }
        let mut room = MOST_EPISODES;
        if let Some(limit) = self.budget.episodes {
            room = room.min(limit.saturating_sub(self.episodes));
            if room == 0 {
                return Err(StopReason::Episodes);
            }
        }
        if let Some(limit) = self.budget.evaluations {
            let per_episode = match self.problem.evaluation() {
                EvaluationMode::PerEpisode => 1,
                EvaluationMode::PerLayer => self.problem.episode_len(),
            };
            let left = limit.saturating_sub(self.environment.scored().len());
            room = room.min(left / per_episode);
            if room == 0 {
                return Err(StopReason::Evaluations);
            }
        }
        let waited = self.episodes - self.last_new_at;
        if self.budget.patience().is_some_and(|patience| waited > patience) {
            return Err(StopReason::Converged);
        }
        if self.budget.wall_time.is_some_and(|limit| self.elapsed() >= limit) {
            return Err(StopReason::WallTime);
        }
        Ok(room)
    }

    /// Looks at the scores that are new.
    fn look(&mut self) {
        for scored in &self.environment.scored()[self.looked_at..] {
            self.failures += usize::from(scored.failure.is_some());
            let better = self.best.as_ref().is_none_or(|best| scored.reward > best.reward);
            if better && scored.is_candidate() {
                self.best = Some(scored.clone());
            }
        }
        self.looked_at = self.environment.scored().len();
    }

    fn elapsed(&self) -> Duration {
        self.before.saturating_add(self.clock.elapsed().saturating_sub(self.started))
    }

    fn piece(&self) -> String {
        format!("agent `{}`", self.name)
    }

    /// The episode that the agent thinks best, after its last lessons if the search plans, if it has one.
    fn greedy(&mut self) -> Result<Option<Scored>, ReleqError> {
        if let Some(planning) = self.planning {
            self.concluded(&planning)?;
        }
        let piece = self.piece();
        let piece = || piece.clone();
        if guard(piece, || Ok(self.agent.begin(1, Mode::Greedy)))?.is_none() {
            return Ok(None);
        }
        let played = play(self.agent, &mut self.environment, 1)?;
        guard(piece, || Ok(self.agent.finish(&played.rewards)?))?;
        Ok(self.environment.batch_scores().next().cloned())
    }

    /// Asks the agent for its greedy answer and gives what the search found. Where that fails, the outcome says so.
    #[must_use]
    pub fn finish(mut self) -> SearchOutcome {
        let evaluations = self.environment.scored().len();
        let scored = self.environment.scored().to_vec();
        let stop = self.stop.unwrap_or(StopReason::Cancelled);
        // Without an episode nothing was learned that an answer could follow from.
        let over = matches!(stop, StopReason::Cancelled | StopReason::Failed);
        let mut greedy = None;
        if self.episodes > 0 && !over {
            match self.greedy() {
                Err(ReleqError::Cancelled) => {}
                Err(error) => self.error = Some(error.chain()),
                Ok(answer) => greedy = answer,
            }
        }
        let agent = with_plan(self.name.clone(), self.planning.is_some());
        SearchOutcome {
            agent,
            stop,
            episodes: self.episodes,
            evaluations,
            failures: self.failures,
            greedy,
            best: self.best.clone(),
            scored,
            history: self.history.clone(),
            error: self.error.clone(),
            times: BTreeMap::from([
                ("seconds".to_owned(), self.elapsed().as_secs_f64()),
                ("evaluation_seconds".to_owned(), self.environment.evaluation_seconds()),
            ]),
        }
    }
}

fn measured<'s>(
    environment: &'s BitwidthEnvironment<'_>,
    evaluator: &dyn Evaluator,
    sensitivities: Option<&'s Sensitivities>,
) -> Result<Measured<'s>, ReleqError> {
    Ok(Measured {
        asked: environment.asked(),
        scored: environment.scored(),
        full_precision: full_precision(evaluator)?,
        sensitivities,
    })
}

/// Refuses statistics that are no numbers, which nobody could read again.
fn check_finite(agent: &str, update: &UpdateStats) -> Result<(), ReleqError> {
    let UpdateStats {
        mean_return,
        policy_loss,
        value_loss,
        entropy,
        approx_kl,
        clip_fraction,
        explained_variance,
    } = *update;
    let all = [
        mean_return,
        policy_loss,
        value_loss,
        entropy,
        approx_kl,
        clip_fraction,
        explained_variance,
    ];
    match all.into_iter().find(|value| !value.is_finite()) {
        None => Ok(()),
        Some(value) => {
            let piece = format!("statistics of agent `{agent}`");
            Err(ReleqError::OutOfRange { piece, value, allowed: "finite" })
        }
    }
}

/// A batch of episodes, step by step.
#[derive(Default)]
pub(crate) struct Played {
    /// `[steps][episodes]`
    pub(crate) rewards: Vec<Vec<f64>>,
    /// `[steps][actions]`, as in a [`BatchRecord`]; empty unless the agent has some at every step.
    pub(crate) action_probabilities: Vec<Vec<f32>>,
    /// What the agent learned from it, once it has.
    pub(crate) update: UpdateStats,
}

/// Plays the episodes that the agent has begun.
pub(crate) fn play(
    agent: &mut dyn Agent,
    environment: &mut BitwidthEnvironment<'_>,
    episodes: usize,
) -> Result<Played, ReleqError> {
    let piece = format!("agent `{}`", name_of(agent));
    let mut observations = environment.reset(episodes)?;
    let steps = environment.episode_len();
    let mut rewards = Vec::with_capacity(steps);
    let mut action_probabilities = Vec::with_capacity(steps);
    for _ in 0..steps {
        let (actions, means) = guard(
            || piece.clone(),
            || {
                let actions = agent.act(&observations)?;
                Ok((actions, agent.probabilities().and_then(mean_probabilities)))
            },
        )?;
        action_probabilities.extend(means);
        let (next, transitions) = environment.step(&actions).map_err(|error| match error {
            ReleqError::Setting { setting: "action", reason } => {
                ReleqError::Setting { setting: "agent", reason: format!("{piece} {reason}") }
            }
            error => error,
        })?;
        rewards.push(transitions.iter().map(|transition| transition.reward).collect());
        observations = next;
    }
    if action_probabilities.len() < steps {
        action_probabilities.clear();
    }
    Ok(Played { rewards, action_probabilities, update: UpdateStats::default() })
}

/// The mean of the episodes' distributions, to four decimals; `None` if they are of different lengths, or no
/// numbers.
fn mean_probabilities(episodes: &[Vec<f32>]) -> Option<Vec<f32>> {
    let mut sums = vec![0.0; episodes.first()?.len()];
    for distribution in episodes {
        if distribution.len() != sums.len() {
            return None;
        }
        for (sum, &probability) in sums.iter_mut().zip(distribution) {
            *sum += f64::from(probability);
        }
    }
    let count = episodes.len() as f64;
    sums.iter()
        .all(|sum| sum.is_finite())
        .then(|| sums.into_iter().map(|sum| ((sum / count * 1e4).round() / 1e4) as f32).collect())
}
