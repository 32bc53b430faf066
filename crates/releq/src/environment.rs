//! The bitwidth environment: one step chooses the bitwidth of one layer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use releq_agent::{Environment, Transition};
use releq_core::{Bitwidth, BitwidthAssignment, LayerKind, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::{
    ReleqError,
    evaluate::{Evaluator, each, full_precision},
    problem::{ActionSpace, EvaluationMode, Problem},
    run_folder::Clock,
    search::Scored,
};

/// Number of features in an observation.
pub(crate) const OBSERVATION_LEN: usize = 8;

struct Episode {
    bits: Vec<Bitwidth>,
    acc_state: f64,
}

/// Several episodes in lockstep over one problem; see [`Environment`].
///
/// The observation of a layer holds, in order: index (1 to L over L), current bitwidth over the
/// highest, State_Quantization, State_Accuracy, output channels, input channels, kernel side (each
/// min-max over the searched layers, 0 where all are equal; a linear layer's kernel counts as 0)
/// and the standard deviation of the full-precision weights. State_Accuracy is 1 until something is
/// measured in the episode: every episode starts from the full-precision network.
pub(crate) struct BitwidthEnvironment<'a> {
    problem: &'a Problem,
    evaluator: &'a dyn Evaluator,
    searched: &'a [usize],
    static_features: Vec<[f64; 5]>,
    episodes: Vec<Episode>,
    /// Where restricted episodes go on from, by their place in the batch.
    carried: Vec<Vec<Bitwidth>>,
    position: usize,
    /// Every distinct assignment asked for, in order.
    asked: Vec<BitwidthAssignment>,
    /// Their scores; a table's nearest entry has other bitwidths than were asked for.
    scored: Vec<Scored>,
    index_of: HashMap<BitwidthAssignment, usize>,
    clock: Clock,
    evaluation_time: Duration,
}

impl<'a> BitwidthEnvironment<'a> {
    pub(crate) fn new(problem: &'a Problem, evaluator: &'a dyn Evaluator) -> Self {
        let searched = problem.searched();
        let column = |feature: &dyn Fn(&LayerProfile) -> f64| -> Vec<f64> {
            let raw: Vec<f64> =
                searched.iter().map(|&l| feature(&problem.layers()[l].profile)).collect();
            let min = raw.iter().copied().fold(f64::INFINITY, f64::min);
            let range = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max) - min;
            raw.iter().map(|x| if range > 0.0 { (x - min) / range } else { 0.0 }).collect()
        };
        let n = column(&|p| p.out_channels as f64);
        let c = column(&|p| p.in_channels as f64);
        // The side of the kernel, or of a square one with as many weights.
        let side = |p: &LayerProfile| (p.kernel.area() as f64).sqrt();
        let k = column(&|p| if p.kind == LayerKind::Linear { 0.0 } else { side(p) });
        let static_features = searched
            .iter()
            .enumerate()
            .map(|(i, &layer)| {
                let index = (i + 1) as f64 / searched.len() as f64;
                [index, n[i], c[i], k[i], problem.layers()[layer].weight_std]
            })
            .collect();
        Self {
            problem,
            evaluator,
            searched,
            static_features,
            episodes: Vec::new(),
            carried: Vec::new(),
            position: 0,
            asked: Vec::new(),
            scored: Vec::new(),
            index_of: HashMap::new(),
            clock: Clock::new(),
            evaluation_time: Duration::ZERO,
        }
    }

    /// Steps in each episode.
    pub(crate) fn episode_len(&self) -> usize {
        self.searched.len()
    }

    /// Distinct assignments asked for so far, in order.
    pub(crate) fn scored(&self) -> &[Scored] {
        &self.scored
    }

    /// Those assignments.
    pub(crate) fn asked(&self) -> &[BitwidthAssignment] {
        &self.asked
    }

    /// Time spent in the evaluator.
    pub(crate) const fn evaluation_seconds(&self) -> f64 {
        self.evaluation_time.as_secs_f64()
    }

    /// Measures its time by the clock of a run.
    pub(crate) fn clock(&mut self, clock: &Clock) {
        self.clock = clock.clone();
    }

    /// Final scores of the batch that just ended.
    pub(crate) fn batch_scores(&self) -> impl Iterator<Item = &Scored> {
        self.episodes.iter().filter_map(|episode| {
            let bits = BitwidthAssignment::new(episode.bits.clone()).ok()?;
            self.index_of.get(&bits).map(|&index| &self.scored[index])
        })
    }

    fn observations(&self) -> Result<Vec<Vec<f32>>, ReleqError> {
        let Some(&layer) = self.searched.get(self.position) else {
            // After the last step there is nothing left to choose.
            return Ok(vec![vec![0.0; OBSERVATION_LEN]; self.episodes.len()]);
        };
        let [index, n, c, k, std] = self.static_features[self.position];
        let max = f64::from(self.problem.highest().get());
        self.episodes
            .iter()
            .map(|episode| {
                let bits = f64::from(episode.bits[layer].get()) / max;
                let quant_state = self.problem.quant_state(&episode.bits)?;
                let features = [index, bits, quant_state, episode.acc_state, n, c, k, std];
                Ok(features.iter().map(|&feature| feature as f32).collect())
            })
            .collect()
    }

    fn choose(
        &self,
        episode: &Episode,
        layer: usize,
        action: usize,
    ) -> Result<Bitwidth, ReleqError> {
        let chosen = match self.problem.action_space() {
            ActionSpace::Flexible => {
                let chosen = self.problem.actions().get(action);
                chosen.map(|&bits| self.problem.nearest(layer, bits))
            }
            ActionSpace::Restricted => {
                let actions = self.problem.actions_of(layer);
                let now = actions.iter().position(|&b| b == episode.bits[layer]).unwrap_or(0);
                match action {
                    0 => actions.get(now.saturating_sub(1)),
                    1 => actions.get(now),
                    2 => actions.get((now + 1).min(actions.len() - 1)),
                    _ => None,
                }
                .copied()
            }
        };
        chosen.ok_or_else(|| ReleqError::Setting {
            setting: "action",
            reason: format!("chose action {action}, which does not exist"),
        })
    }

    /// Measures the current bitwidths of all episodes; gives the place of each score.
    fn measure_episodes(&mut self) -> Result<Vec<usize>, ReleqError> {
        let asked = self
            .episodes
            .iter()
            .map(|episode| Ok(BitwidthAssignment::new(episode.bits.clone())?))
            .collect::<Result<Vec<_>, ReleqError>>()?;
        self.measure(&asked)
    }

    /// Measures assignments; gives the place of each score. Only what was never asked for goes to the evaluator.
    pub(crate) fn measure(
        &mut self,
        asked: &[BitwidthAssignment],
    ) -> Result<Vec<usize>, ReleqError> {
        let mut new: Vec<BitwidthAssignment> = Vec::new();
        for bits in asked {
            if !self.index_of.contains_key(bits) && !new.contains(bits) {
                new.push(bits.clone());
            }
        }
        let full_precision = full_precision(self.evaluator)?;
        let started = self.clock.elapsed();
        let told = Mutex::new(vec![None; new.len()]);
        let measured = each(self.evaluator, &new, &|place, answer| {
            told.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(answer.clone());
            Ok(())
        });
        let took = self.clock.elapsed().saturating_sub(started);
        self.evaluation_time = self.evaluation_time.saturating_add(took);
        // What was measured before something failed is kept, but not where the caller stopped: the search goes on from
        // there as if the batch had not begun.
        let mut failed = match measured {
            Err(ReleqError::Cancelled) => return Err(ReleqError::Cancelled),
            measured => measured.err(),
        };
        let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (bits, answer) in new.into_iter().zip(told) {
            let Some(answer) = answer else { continue };
            match self.problem.scored(&bits, answer, full_precision) {
                Ok(scored) => self.remember(bits, scored),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(asked.iter().map(|bits| self.index_of[bits]).collect())
    }

    fn remember(&mut self, asked: BitwidthAssignment, scored: Scored) {
        self.index_of.insert(asked.clone(), self.scored.len());
        self.asked.push(asked);
        self.scored.push(scored);
    }

    /// What the next batch of episodes depends on.
    pub(crate) fn state(&self) -> EnvironmentState {
        let mut carried = self.carried.clone();
        if self.problem.action_space() == ActionSpace::Restricted {
            carry(&mut carried, self.episodes.iter().map(|episode| episode.bits.clone()));
        }
        EnvironmentState {
            asked: self.asked.clone(),
            scored: self.scored.clone(),
            carried,
            evaluation_seconds: self.evaluation_seconds(),
        }
    }

    /// Goes on from there.
    pub(crate) fn restore(&mut self, state: EnvironmentState) {
        self.episodes.clear();
        self.carried = state.carried;
        self.evaluation_time =
            Duration::try_from_secs_f64(state.evaluation_seconds).unwrap_or_default();
        for (asked, scored) in state.asked.into_iter().zip(state.scored) {
            self.remember(asked, scored);
        }
    }
}

/// What a [`BitwidthEnvironment`] consists of between two batches of episodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvironmentState {
    pub(crate) asked: Vec<BitwidthAssignment>,
    pub(crate) scored: Vec<Scored>,
    pub(crate) carried: Vec<Vec<Bitwidth>>,
    pub(crate) evaluation_seconds: f64,
}

/// Keeps the last bitwidths of every place in the batch.
fn carry(carried: &mut Vec<Vec<Bitwidth>>, ended: impl Iterator<Item = Vec<Bitwidth>>) {
    for (place, bits) in ended.enumerate() {
        match carried.get_mut(place) {
            Some(last) => *last = bits,
            None => carried.push(bits),
        }
    }
}

impl Environment for BitwidthEnvironment<'_> {
    type Error = ReleqError;

    fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, ReleqError> {
        if self.problem.action_space() == ActionSpace::Restricted {
            carry(&mut self.carried, self.episodes.drain(..).map(|episode| episode.bits));
        }
        let start = self.problem.all_at(self.problem.highest());
        self.episodes = (0..episodes)
            .map(|place| Episode {
                bits: self.carried.get(place).unwrap_or(&start).clone(),
                acc_state: 1.0,
            })
            .collect();
        self.position = 0;
        self.observations()
    }

    fn step(&mut self, actions: &[usize]) -> Result<(Vec<Vec<f32>>, Vec<Transition>), ReleqError> {
        if actions.len() != self.episodes.len() || self.position >= self.searched.len() {
            return Err(ReleqError::Setting {
                setting: "action",
                reason: format!(
                    "chose {} actions for {} episodes at step {}",
                    actions.len(),
                    self.episodes.len(),
                    self.position
                ),
            });
        }
        let layer = self.searched[self.position];
        for (episode, &action) in actions.iter().enumerate() {
            self.episodes[episode].bits[layer] =
                self.choose(&self.episodes[episode], layer, action)?;
        }
        self.position += 1;
        let terminated = self.position == self.searched.len();
        let measured = terminated || self.problem.evaluation() == EvaluationMode::PerLayer;
        let mut transitions = vec![Transition { reward: 0.0, terminated }; actions.len()];
        if measured {
            for (episode, place) in self.measure_episodes()?.into_iter().enumerate() {
                let scored = &self.scored[place];
                transitions[episode].reward = scored.reward;
                self.episodes[episode].acc_state = scored.acc_state;
            }
        }
        Ok((self.observations()?, transitions))
    }
}
