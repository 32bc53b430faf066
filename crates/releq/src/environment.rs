//! The bitwidth environment: one step chooses the bitwidth of one layer.

use std::{collections::HashMap, fmt, num::NonZeroUsize, str::FromStr};

use releq_agent::{Environment, Transition};
use releq_core::{Bitwidth, BitwidthAssignment, LayerProfile};
use releq_hw::StateQuantization;
use releq_reward::Reward;
use serde::{Deserialize, Serialize};

use crate::{
    ReleqError,
    evaluate::{Evaluation, Evaluator},
};

/// What an action means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[serde(rename_all = "kebab-case")]
pub enum EvaluationMode {
    /// Once, after the last layer's choice; the reward of every other step is 0.
    #[default]
    PerEpisode,
    /// After every layer's choice, with a reward for each; costs as many evaluations as layers.
    PerLayer,
}

macro_rules! text_enum {
    ($type:ty, $setting:literal, $($variant:ident => $text:literal),+) => {
        impl FromStr for $type {
            type Err = ReleqError;
            fn from_str(text: &str) -> Result<Self, ReleqError> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(ReleqError::Setting {
                        setting: $setting,
                        reason: format!("`{text}` is not one of {}", [$($text),+].join(", ")),
                    }),
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}
text_enum!(ActionSpace, "action_space", Flexible => "flexible", Restricted => "restricted");
text_enum!(EvaluationMode, "evaluation", PerEpisode => "per-episode", PerLayer => "per-layer");

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

/// An assignment with what it was measured at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The bitwidths; of the table's entry, where a table answered a miss with its nearest.
    pub bits: BitwidthAssignment,
    /// Accuracy after the retrain, in 0 to 1.
    pub accuracy: f64,
    /// Standard error of the accuracy, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// State_Accuracy: accuracy over full-precision accuracy.
    pub acc_state: f64,
    /// State_Quantization: cost over the cost of the highest bitwidth to choose from.
    pub quant_state: f64,
    /// What the reward makes of the two.
    pub reward: f64,
    /// Why the evaluation failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The step after which the retrain was given up, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_after: Option<usize>,
}

/// Everything that defines the environment, apart from the evaluator.
pub(crate) struct Problem {
    pub(crate) layers: Vec<SearchLayer>,
    pub(crate) actions: Vec<Bitwidth>,
    pub(crate) action_space: ActionSpace,
    pub(crate) evaluation: EvaluationMode,
    pub(crate) state_quantization: StateQuantization,
    pub(crate) reward: Box<dyn Reward>,
    pub(crate) threads: NonZeroUsize,
}

impl Problem {
    pub(crate) fn max_bits(&self) -> Bitwidth {
        self.actions.last().copied().unwrap_or(Bitwidth::EIGHT)
    }

    /// Indices of the layers that the agent chooses.
    pub(crate) fn searched(&self) -> Vec<usize> {
        (0..self.layers.len()).filter(|&layer| self.layers[layer].fixed.is_none()).collect()
    }

    pub(crate) fn quant_state(&self, bits: &[Bitwidth]) -> Result<f64, ReleqError> {
        let profiles: Vec<LayerProfile> =
            self.layers.iter().map(|layer| layer.profile.clone()).collect();
        let searched: Vec<bool> = self.layers.iter().map(|layer| layer.fixed.is_none()).collect();
        Ok(self.state_quantization.quant_state(&profiles, bits, &searched, self.max_bits())?)
    }

    pub(crate) fn score(
        &self,
        asked: &BitwidthAssignment,
        evaluation: Evaluation,
        full_precision: f64,
    ) -> Result<Scored, ReleqError> {
        let bits = evaluation.answered_by.unwrap_or_else(|| asked.clone());
        let acc_state = evaluation.accuracy / full_precision;
        let quant_state = self.quant_state(&bits)?;
        Ok(Scored {
            accuracy: evaluation.accuracy,
            standard_error: evaluation.standard_error,
            acc_state,
            quant_state,
            reward: self.reward.reward(acc_state, quant_state),
            failure: evaluation.failure,
            stopped_after: evaluation.stopped_after,
            bits,
        })
    }
}

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
pub(crate) struct BitwidthEnvironment<'a, E> {
    problem: &'a Problem,
    evaluator: &'a E,
    searched: Vec<usize>,
    static_features: Vec<[f64; 5]>,
    episodes: Vec<Episode>,
    /// Where restricted episodes go on from, by their place in the batch.
    carried: Vec<Vec<Bitwidth>>,
    position: usize,
    /// Every distinct assignment asked for, in order, with its score.
    scored: Vec<Scored>,
    index_of: HashMap<BitwidthAssignment, usize>,
    evaluation_seconds: f64,
}

impl<'a, E: Evaluator> BitwidthEnvironment<'a, E> {
    pub(crate) fn new(problem: &'a Problem, evaluator: &'a E) -> Self {
        let searched = problem.searched();
        let column = |feature: &dyn Fn(&LayerProfile) -> usize| -> Vec<f64> {
            let raw: Vec<f64> =
                searched.iter().map(|&l| feature(&problem.layers[l].profile) as f64).collect();
            let min = raw.iter().copied().fold(f64::INFINITY, f64::min);
            let range = raw.iter().copied().fold(f64::NEG_INFINITY, f64::max) - min;
            raw.iter().map(|x| if range > 0.0 { (x - min) / range } else { 0.0 }).collect()
        };
        let n = column(&|p| p.out_channels);
        let c = column(&|p| p.in_channels);
        let k = column(&|p| if p.kind == releq_core::LayerKind::Linear { 0 } else { p.kernel });
        let static_features = searched
            .iter()
            .enumerate()
            .map(|(i, &layer)| {
                let index = (i + 1) as f64 / searched.len() as f64;
                [index, n[i], c[i], k[i], problem.layers[layer].weight_std]
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
            scored: Vec::new(),
            index_of: HashMap::new(),
            evaluation_seconds: 0.0,
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

    /// Wall time spent in the evaluator.
    pub(crate) const fn evaluation_seconds(&self) -> f64 {
        self.evaluation_seconds
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
        let max = f64::from(self.problem.max_bits().get());
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
        let actions = &self.problem.actions;
        let chosen = match self.problem.action_space {
            ActionSpace::Flexible => actions.get(action),
            ActionSpace::Restricted => {
                let now = actions.iter().position(|&b| b == episode.bits[layer]).unwrap_or(0);
                match action {
                    0 => actions.get(now.saturating_sub(1)),
                    1 => actions.get(now),
                    2 => actions.get((now + 1).min(actions.len() - 1)),
                    _ => None,
                }
            }
        };
        chosen.copied().ok_or_else(|| ReleqError::Setting {
            setting: "action",
            reason: format!("the agent chose action {action}, which does not exist"),
        })
    }

    /// Measures the current bitwidths of all episodes; gives the place of each score.
    fn measure(&mut self) -> Result<Vec<usize>, ReleqError> {
        let asked = self
            .episodes
            .iter()
            .map(|episode| Ok(BitwidthAssignment::new(episode.bits.clone())?))
            .collect::<Result<Vec<_>, ReleqError>>()?;
        let started = std::time::Instant::now();
        let answers = self.evaluator.evaluate_batch(&asked, self.problem.threads)?;
        self.evaluation_seconds += started.elapsed().as_secs_f64();
        let full_precision = self.evaluator.full_precision();
        let mut places = Vec::with_capacity(asked.len());
        for (bits, answer) in asked.into_iter().zip(answers) {
            let place = match self.index_of.get(&bits) {
                Some(&place) => place,
                None => {
                    self.scored.push(self.problem.score(&bits, answer, full_precision)?);
                    self.index_of.insert(bits, self.scored.len() - 1);
                    self.scored.len() - 1
                }
            };
            places.push(place);
        }
        Ok(places)
    }
}

impl<E: Evaluator> Environment for BitwidthEnvironment<'_, E> {
    type Error = ReleqError;

    fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, ReleqError> {
        if self.problem.action_space == ActionSpace::Restricted {
            for (place, episode) in self.episodes.drain(..).enumerate() {
                match self.carried.get_mut(place) {
                    Some(bits) => *bits = episode.bits,
                    None => self.carried.push(episode.bits),
                }
            }
        }
        let max = self.problem.max_bits();
        let start: Vec<Bitwidth> =
            self.problem.layers.iter().map(|layer| layer.fixed.unwrap_or(max)).collect();
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
                    "{} actions for {} episodes at step {}",
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
        let measured = terminated || self.problem.evaluation == EvaluationMode::PerLayer;
        let mut transitions = vec![Transition { reward: 0.0, terminated }; actions.len()];
        if measured {
            for (episode, place) in self.measure()?.into_iter().enumerate() {
                let scored = &self.scored[place];
                transitions[episode].reward = scored.reward;
                self.episodes[episode].acc_state = scored.acc_state;
            }
        }
        Ok((self.observations()?, transitions))
    }
}
