//! The batch of episodes being played, and what is learned from it.

use crate::{Mode, PpoConfig, ValueTarget, gae::gae, imitation::Example, lstm::LstmState};

/// One batch of episodes; rows step by step, episodes within a step.
#[derive(Debug)]
pub(crate) struct Rollout {
    pub(crate) mode: Mode,
    pub(crate) episodes: usize,
    pub(crate) lstm: LstmState,
    pub(crate) observations: Vec<f32>,
    pub(crate) actions: Vec<usize>,
    pub(crate) log_probabilities: Vec<f32>,
    pub(crate) values: Vec<f32>,
    /// Filled at the end of the batch.
    pub(crate) rewards: Vec<f64>,
}

/// What a finished rollout teaches, one entry per row.
pub(crate) struct Lessons {
    pub(crate) advantages: Vec<f32>,
    pub(crate) value_targets: Vec<f32>,
    /// Share of the returns' variance that the values explained.
    pub(crate) explained_variance: f64,
}

impl Rollout {
    pub(crate) const fn new(mode: Mode, episodes: usize, lstm: LstmState) -> Self {
        Self {
            mode,
            episodes,
            lstm,
            observations: Vec::new(),
            actions: Vec::new(),
            log_probabilities: Vec::new(),
            values: Vec::new(),
            rewards: Vec::new(),
        }
    }

    /// Steps of an episode, once the rewards are there.
    pub(crate) const fn steps(&self) -> usize {
        self.rewards.len() / self.episodes
    }

    /// Mean undiscounted return.
    pub(crate) fn mean_return(&self) -> f64 {
        self.rewards.iter().sum::<f64>() / self.episodes as f64
    }

    /// The best of `best` and the episodes of this batch, the earliest of equals.
    pub(crate) fn best(
        &self,
        mut best: Option<Example>,
        observation_len: usize,
    ) -> Option<Example> {
        for episode in 0..self.episodes {
            let rows = || (episode..self.rewards.len()).step_by(self.episodes);
            let episode_return: f64 = rows().map(|row| self.rewards[row]).sum();
            if best.as_ref().is_some_and(|best| best.episode_return >= episode_return) {
                continue;
            }
            let observation =
                |row: usize| &self.observations[row * observation_len..(row + 1) * observation_len];
            best = Some(Example {
                episode_return,
                observations: rows().flat_map(observation).copied().collect(),
                actions: rows().map(|row| self.actions[row]).collect(),
            });
        }
        best
    }

    /// Advantages and value targets.
    pub(crate) fn lessons(&self, config: &PpoConfig) -> Lessons {
        let steps = self.steps();
        let mut advantages = vec![0.0; self.rewards.len()];
        let mut targets = vec![0.0; self.rewards.len()];
        let mut returns = vec![0.0; self.rewards.len()];
        for episode in 0..self.episodes {
            let at = |step: usize| step * self.episodes + episode;
            let rewards: Vec<f64> =
                (0..steps).map(|t| self.rewards[at(t)] * config.reward_scale).collect();
            let values: Vec<f64> = (0..steps).map(|t| f64::from(self.values[at(t)])).collect();
            let mut to_go = 0.0;
            for t in (0..steps).rev() {
                to_go = rewards[t] + config.gamma * to_go;
                returns[at(t)] = to_go;
            }
            for (t, advantage) in
                gae(&rewards, &values, config.gamma, config.gae_lambda).into_iter().enumerate()
            {
                advantages[at(t)] = advantage;
                targets[at(t)] = match config.value_target {
                    ValueTarget::AdvantagePlusValue => advantage + values[t],
                    ValueTarget::OneStep => {
                        rewards[t] + config.gamma * values.get(t + 1).copied().unwrap_or(0.0)
                    }
                };
            }
        }
        if config.normalize_advantage {
            normalize(&mut advantages);
        }
        let to_f32 = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        Lessons {
            advantages: to_f32(&advantages),
            value_targets: to_f32(&targets),
            explained_variance: explained_variance(&returns, &self.values),
        }
    }
}

/// Brings `values` to mean 0 and deviation 1, unless they do not vary.
fn normalize(values: &mut [f64]) {
    let (mean, variance) = mean_and_variance(values);
    if variance > 1e-16 {
        let deviation = variance.sqrt() + 1e-8;
        values.iter_mut().for_each(|value| *value = (*value - mean) / deviation);
    }
}

fn explained_variance(returns: &[f64], values: &[f32]) -> f64 {
    let residuals: Vec<f64> =
        returns.iter().zip(values).map(|(r, &value)| r - f64::from(value)).collect();
    let variance = mean_and_variance(returns).1;
    if variance > 1e-16 { 1.0 - mean_and_variance(&residuals).1 / variance } else { 0.0 }
}

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64)
}
