//! Learning on a model of the accuracy between measurements, so that few are needed.

mod curve;
mod improvement;
mod law;
mod moves;
mod process;
mod surrogate;

use std::collections::BTreeSet;

use releq_agent::{Agent, AgentError, Demonstration, Environment, Mode};
use releq_core::{Bitwidth, BitwidthAssignment};
use serde::{Deserialize, Serialize};

use crate::{
    ReleqError, Scored, Sensitivities,
    environment::BitwidthEnvironment,
    problem::{ActionSpace, EvaluationMode, Problem},
    search::{Played, play},
};
use improvement::expected_improvement;
use moves::{neighbours, one_less};
use surrogate::{Guess, Imagined, Known, Surrogate, searched_bits};

/// A full-precision accuracy is reached at this share of it; uniform bitwidths above are not measured.
const REACHED: f64 = 0.99;

/// At most this many uniform assignments are measured.
const MOST_UNIFORM: usize = 8;

/// The best measured assignments whose neighbours are considered.
const INCUMBENTS: usize = 3;

/// How often the neighbours of the most promising candidates are considered too.
const CLIMBS: usize = 2;

/// Of neighbours, this many of the highest guessed reward are looked at closely.
const CLOSELY: usize = 512;

/// How often the agent imitates the best assignments in the end, at most.
const LAST_LESSONS: usize = 20;

/// How a [`Search`](crate::Search) plans: it measures few assignments, and lets the agent learn on a model of the
/// accuracy in between.
///
/// First come uniform assignments, from the lowest bitwidth until full precision is nearly reached. Then, in turns:
/// a surrogate of the accuracy is fitted to all that is measured; the agent [imitates](Agent::imitate) the best
/// assignments and plays episodes whose accuracy the surrogate makes up; of its proposals and the neighbours of the
/// best assignments those of highest expected improvement are measured.
///
/// The costs of all assignments are known, so only the accuracy is modelled. It takes an action space in which an action
/// is a bitwidth, and an evaluation at the end of an episode.
///
/// # Source
/// Learning from a model between measurements is Dyna (Sutton 1990); expected improvement is of Jones, Schonlau and Welch
/// (1998). That the two and uniform assignments are worth it here is our measurement, see `docs/reproduction.md`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct Planning {
    /// Assignments measured between two fits of the surrogate.
    pub batch: usize,
    /// Episodes that the agent plays on the surrogate before each of these batches.
    pub episodes: usize,
    /// Best assignments that the agent imitates.
    pub imitated: usize,
    /// The agent is shown this many standard deviations less than the surrogate's mean accuracy: optimism leads it
    /// over the cliff behind which networks collapse.
    pub pessimism: f64,
    /// A search has settled once no candidate is expected to improve on the best by this share of it, and the best with
    /// one bitwidth less in any layer is measured. A lookup in a table costs nothing and a retrain does, so experiments
    /// are content with a thousandth.
    pub negligible: f64,
}

releq_core::named_fields!(Planning);

impl Default for Planning {
    fn default() -> Self {
        Self { batch: 4, episodes: 64, imitated: 5, pessimism: 0.5, negligible: 1e-7 }
    }
}

impl Planning {
    /// Checks the settings.
    pub(crate) fn check(&self) -> Result<(), ReleqError> {
        let wrong = |field: &str, got: String, allowed: &str| {
            let reason = format!("`{field}` is {got}; it must lie in {allowed}");
            Err(ReleqError::Setting { setting: "planning", reason })
        };
        if !(1..=1_000).contains(&self.batch) {
            return wrong("batch", self.batch.to_string(), "1 to 1000");
        }
        // Between two measurements nobody can stop a search.
        if self.episodes > 10_000 {
            return wrong("episodes", self.episodes.to_string(), "0 to 10000");
        }
        if self.imitated > 1_000 {
            return wrong("imitated", self.imitated.to_string(), "0 to 1000");
        }
        if !(0.0..=100.0).contains(&self.pessimism) {
            return wrong("pessimism", format!("{:?}", self.pessimism), "0 to 100");
        }
        if !(0.0..=1.0).contains(&self.negligible) {
            return wrong("negligible", format!("{:?}", self.negligible), "0 to 1");
        }
        Ok(())
    }

    /// Checks the settings, alone and for `problem`.
    pub(crate) fn check_for(&self, problem: &Problem) -> Result<(), ReleqError> {
        self.check()?;
        let wrong = |reason: String| Err(ReleqError::Setting { setting: "planning", reason });
        if problem.action_space() != ActionSpace::Flexible {
            return wrong(format!("needs the action space {}", ActionSpace::Flexible));
        }
        if problem.evaluation() != EvaluationMode::PerEpisode {
            return wrong(format!("needs the evaluation mode {}", EvaluationMode::PerEpisode));
        }
        Ok(())
    }
}

/// What a search has measured, seen by the planner.
pub(crate) struct Measured<'a> {
    /// Every assignment asked for, in order.
    pub(crate) asked: &'a [BitwidthAssignment],
    /// Their scores.
    pub(crate) scored: &'a [Scored],
    pub(crate) full_precision: f64,
    /// What is known of single layers.
    pub(crate) sensitivities: Option<&'a Sensitivities>,
}

/// What to measure next.
pub(crate) struct Plan {
    pub(crate) assignments: Vec<BitwidthAssignment>,
    /// The last episodes that the agent imagined, if it did.
    pub(crate) played: Option<Played>,
}

/// The next assignments to measure, at most `room`; `None` once no other is expected to be better.
///
/// Everything follows from what is measured and from the agent, so that a search resumed from both goes on alike.
pub(crate) fn plan(
    planning: &Planning,
    problem: &Problem,
    agent: &mut dyn Agent,
    measured: &Measured<'_>,
    room: usize,
) -> Result<Option<Plan>, ReleqError> {
    let room = room.min(planning.batch);
    let planner = Planner { planning, problem, measured };
    let first: Vec<BitwidthAssignment> = planner.uniform_ones()?.into_iter().take(room).collect();
    if !first.is_empty() {
        return Ok(Some(Plan { assignments: first, played: None }));
    }
    // Where no uniform assignment works, nothing tells what would.
    if measured.scored.iter().all(|scored| scored.failure.is_some()) {
        return Ok(None);
    }
    let surrogate = planner.surrogate();
    let imagined = planner.imagined(&surrogate);
    let mut environment = BitwidthEnvironment::new(problem, &imagined);
    planner.imitate(agent, &mut environment)?;
    let played = planner.imagine(agent, &mut environment)?;
    let imagined = environment.scored().iter().map(|scored| scored.bits.to_vec());
    let proposals = imagined.chain(planner.frontier()?).collect();
    let assignments = planner.promising(&surrogate, proposals, room)?;
    Ok((!assignments.is_empty()).then_some(Plan { assignments, played }))
}

/// Lets the agent imitate the best assignments until its greedy answer is the best of them, within limits.
pub(crate) fn conclude(
    planning: &Planning,
    problem: &Problem,
    agent: &mut dyn Agent,
    measured: &Measured<'_>,
) -> Result<(), ReleqError> {
    let planner = Planner { planning, problem, measured };
    let Some(best) = planner.best(1).first().map(|(bits, _)| (*bits).clone()) else {
        return Ok(());
    };
    let surrogate = planner.surrogate();
    let imagined = planner.imagined(&surrogate);
    let mut environment = BitwidthEnvironment::new(problem, &imagined);
    for _ in 0..LAST_LESSONS {
        planner.imitate(agent, &mut environment)?;
        let Some(count) = agent.begin(1, Mode::Greedy) else { break };
        let played = play(agent, &mut environment, count)?;
        agent.finish(&played.rewards)?;
        if environment.batch_scores().any(|scored| scored.bits == best) {
            break;
        }
    }
    Ok(())
}

struct Planner<'a> {
    planning: &'a Planning,
    problem: &'a Problem,
    measured: &'a Measured<'a>,
}

impl Planner<'_> {
    /// The uniform assignments that are still to be measured, from the lowest bitwidth.
    fn uniform_ones(&self) -> Result<Vec<BitwidthAssignment>, ReleqError> {
        let mut missing = Vec::new();
        for bits in spread(self.problem.actions(), MOST_UNIFORM) {
            let assignment = BitwidthAssignment::new(self.problem.all_at(bits))?;
            match self.score_of(&assignment) {
                Some(scored) if scored.acc_state >= REACHED => break,
                Some(_) => {}
                None => missing.push(assignment),
            }
        }
        Ok(missing)
    }

    /// What the sensitivities propose.
    fn frontier(&self) -> Result<Vec<Vec<Bitwidth>>, ReleqError> {
        let Some(sensitivities) = self.measured.sensitivities else { return Ok(Vec::new()) };
        let proposed = sensitivities.frontier(self.problem)?;
        Ok(proposed.into_iter().map(|proposed| proposed.bits.to_vec()).collect())
    }

    fn score_of(&self, assignment: &BitwidthAssignment) -> Option<&Scored> {
        let place = self.measured.asked.iter().position(|asked| asked == assignment)?;
        self.measured.scored.get(place)
    }

    const fn imagined<'s>(&'s self, surrogate: &'s Surrogate) -> Imagined<'s> {
        Imagined {
            surrogate,
            searched: self.problem.searched(),
            full_precision: self.measured.full_precision,
            pessimism: self.planning.pessimism,
        }
    }

    fn surrogate(&self) -> Surrogate {
        let searched = self.problem.searched();
        let mut seen = BTreeSet::new();
        let known: Vec<Known> = self
            .measured
            .scored
            .iter()
            .filter(|scored| seen.insert(&scored.bits))
            .map(|scored| Known {
                bits: searched_bits(&scored.bits, searched),
                accuracy: scored.acc_state,
            })
            .collect();
        let mut uniform: Vec<(f64, f64)> = Vec::new();
        for &bits in self.problem.actions() {
            let score = BitwidthAssignment::new(self.problem.all_at(bits)).ok();
            if let Some(score) = score.and_then(|assignment| self.score_of(&assignment)) {
                uniform.push((f64::from(bits.get()), score.acc_state));
            }
        }
        // Above what was measured, full precision is reached.
        let highest = f64::from(self.problem.highest().get());
        if uniform.last().is_none_or(|(bits, _)| *bits < highest) {
            uniform.push((highest, 1.0));
        }
        Surrogate::fit(&known, &uniform, searched.len(), self.measured.sensitivities)
    }

    /// The measured assignments of highest reward, the best first; those over a limit only where there are no others.
    fn best(&self, count: usize) -> Vec<(&BitwidthAssignment, f64)> {
        let Measured { asked, scored, .. } = *self.measured;
        let mut seen = BTreeSet::new();
        let mut all: Vec<(&BitwidthAssignment, &Scored)> = asked
            .iter()
            .zip(scored)
            // Of a table's entry that answered several times, the one that asked for itself.
            .map(|(asked, scored)| {
                let own = self.problem.admits(&scored.bits);
                (if own { &scored.bits } else { asked }, scored)
            })
            .filter(|(bits, scored)| scored.failure.is_none() && seen.insert(*bits))
            .collect();
        all.sort_by(|(_, a), (_, b)| {
            let within = b.is_candidate().cmp(&a.is_candidate());
            within.then(b.reward.total_cmp(&a.reward))
        });
        all.into_iter().take(count).map(|(bits, scored)| (bits, scored.reward)).collect()
    }

    /// Shows the agent how the best assignments come about.
    fn imitate(
        &self,
        agent: &mut dyn Agent,
        environment: &mut BitwidthEnvironment<'_>,
    ) -> Result<(), ReleqError> {
        let best = self.best(self.planning.imitated);
        if best.is_empty() {
            return Ok(());
        }
        let actions = self.problem.actions();
        let mut demonstrations: Vec<Demonstration> = best
            .iter()
            .map(|(bits, reward)| Demonstration {
                observations: Vec::new(),
                actions: self
                    .problem
                    .searched()
                    .iter()
                    .filter_map(|&layer| actions.iter().position(|&action| action == bits[layer]))
                    .collect(),
                episode_return: *reward,
            })
            .collect();
        let mut observations = environment.reset(demonstrations.len())?;
        for step in 0..environment.episode_len() {
            for (demonstration, observation) in demonstrations.iter_mut().zip(observations) {
                demonstration.observations.push(observation);
            }
            let actions: Vec<usize> = demonstrations.iter().map(|d| d.actions[step]).collect();
            observations = environment.step(&actions)?.0;
        }
        Ok(agent.imitate(&demonstrations)?)
    }

    /// Lets the agent play and learn on the surrogate, then answer greedily.
    fn imagine(
        &self,
        agent: &mut dyn Agent,
        environment: &mut BitwidthEnvironment<'_>,
    ) -> Result<Option<Played>, ReleqError> {
        let mut left = self.planning.episodes;
        let mut last = None;
        while left > 0 {
            let Some(count) = agent.begin(left, Mode::Explore) else { break };
            if !(1..=left).contains(&count) {
                let (what, got, expected) = ("episodes begun", count, left);
                return Err(AgentError::Count { what, got, expected }.into());
            }
            let mut played = play(agent, environment, count)?;
            played.update = agent.finish(&played.rewards)?;
            last = Some(played);
            left -= count;
        }
        if let Some(count) = agent.begin(1, Mode::Greedy) {
            let played = play(agent, environment, count)?;
            agent.finish(&played.rewards)?;
        }
        Ok(last)
    }

    /// Of the agent's proposals and the neighbours of the best, those of highest expected improvement.
    fn promising(
        &self,
        surrogate: &Surrogate,
        proposals: Vec<Vec<Bitwidth>>,
        count: usize,
    ) -> Result<Vec<BitwidthAssignment>, ReleqError> {
        let best = self.best(INCUMBENTS);
        let goal = best.first().map_or(-1.0, |(_, reward)| *reward);
        let known: BTreeSet<&[Bitwidth]> =
            self.measured.asked.iter().map(|asked| &asked[..]).collect();
        let mut seen: BTreeSet<Vec<Bitwidth>> = BTreeSet::new();
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut fresh = proposals;
        let of = |layer: usize| self.problem.actions_of(layer);
        let mut around: Vec<Vec<Bitwidth>> = best.iter().map(|(bits, _)| bits.to_vec()).collect();
        for _ in 0..=CLIMBS {
            let mut near: Vec<(f64, Vec<Bitwidth>)> = Vec::new();
            for centre in &around {
                for bits in neighbours(centre, self.problem.searched(), &of) {
                    if !known.contains(&bits[..]) && seen.insert(bits.clone()) {
                        near.push((self.glance(surrogate, &bits)?, bits));
                    }
                }
            }
            near.sort_by(|(a, a_bits), (b, b_bits)| {
                b.total_cmp(a).then_with(|| a_bits.cmp(b_bits))
            });
            near.truncate(CLOSELY);
            fresh.retain(|bits| !known.contains(&bits[..]) && seen.insert(bits.clone()));
            for bits in fresh.drain(..).chain(near.into_iter().map(|(_, bits)| bits)) {
                candidates.extend(self.candidate(surrogate, bits, goal)?);
            }
            candidates.sort_by(Candidate::better_first);
            around = candidates.iter().take(INCUMBENTS).map(|c| c.bits.clone()).collect();
        }
        let negligible = self.planning.negligible * goal.abs();
        let promises = |candidate: &Candidate| candidate.improvement > negligible;
        if !candidates.iter().any(promises)
            && let Some((bits, _)) = best.first()
        {
            candidates = self.one_less(surrogate, bits, &known, goal)?;
        } else {
            candidates.retain(promises);
        }
        candidates
            .into_iter()
            .take(count)
            .map(|candidate| Ok(BitwidthAssignment::new(candidate.bits)?))
            .collect()
    }

    /// What has one bitwidth less in one layer than `best` and is not measured: a search does not settle on the word of
    /// its model alone, which is wrong where a layer collapses at a bitwidth of its own.
    fn one_less(
        &self,
        surrogate: &Surrogate,
        best: &[Bitwidth],
        known: &BTreeSet<&[Bitwidth]>,
        goal: f64,
    ) -> Result<Vec<Candidate>, ReleqError> {
        let of = |layer: usize| self.problem.actions_of(layer);
        let mut candidates = Vec::new();
        for bits in one_less(best, self.problem.searched(), &of) {
            if !known.contains(&bits[..]) {
                candidates.extend(self.candidate(surrogate, bits, goal)?);
            }
        }
        candidates.sort_by(Candidate::better_first);
        Ok(candidates)
    }

    /// A guess of the reward, at little expense.
    fn glance(&self, surrogate: &Surrogate, bits: &[Bitwidth]) -> Result<f64, ReleqError> {
        let accuracy = surrogate.glance(&searched_bits(bits, self.problem.searched()));
        let quant_state = self.problem.quant_state(bits)?;
        self.problem.reward(accuracy, quant_state, self.problem.over_limit(bits)?)
    }

    /// What may come of measuring `bits`; `None` where they exceed a limit.
    fn candidate(
        &self,
        surrogate: &Surrogate,
        bits: Vec<Bitwidth>,
        goal: f64,
    ) -> Result<Option<Candidate>, ReleqError> {
        if self.problem.over_limit(&bits)?.is_some() {
            return Ok(None);
        }
        let quant_state = self.problem.quant_state(&bits)?;
        let guess = surrogate.guess(&searched_bits(&bits, self.problem.searched()));
        let reward = |acc_state: f64| self.problem.reward(acc_state, quant_state, None);
        let improvement = expected_improvement(guess, goal, reward)?;
        let Guess { mean, .. } = guess;
        Ok(Some(Candidate { improvement, reward: reward(mean)?, bits }))
    }
}

struct Candidate {
    improvement: f64,
    /// At the mean accuracy.
    reward: f64,
    bits: Vec<Bitwidth>,
}

impl Candidate {
    fn better_first(a: &Self, b: &Self) -> std::cmp::Ordering {
        b.improvement
            .total_cmp(&a.improvement)
            .then(b.reward.total_cmp(&a.reward))
            .then_with(|| a.bits.cmp(&b.bits))
    }
}

/// At most `most` of `all`, the first and the last among them.
fn spread(all: &[Bitwidth], most: usize) -> Vec<Bitwidth> {
    if all.len() <= most {
        return all.to_vec();
    }
    (0..most).map(|place| all[place * (all.len() - 1) / (most - 1)]).collect()
}
