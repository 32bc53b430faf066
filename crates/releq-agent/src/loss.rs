//! The clipped loss of PPO.

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::{PpoConfig, network::DeviceNetwork};

/// What an update needs of a batch of episodes; rows step by step, episodes within a step.
pub(crate) struct Batch<'a> {
    pub(crate) steps: usize,
    pub(crate) episodes: usize,
    pub(crate) observations: &'a [f32],
    pub(crate) actions: &'a [usize],
    pub(crate) old_log_probabilities: &'a [f32],
    pub(crate) advantages: &'a [f32],
    pub(crate) value_targets: &'a [f32],
}

/// The parts of the loss, and the figures that tell how far the policy has moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LossParts {
    pub(crate) policy: f64,
    pub(crate) value: f64,
    pub(crate) entropy: f64,
    pub(crate) approx_kl: f64,
    pub(crate) clip_fraction: f64,
}

impl DeviceNetwork {
    /// The trunk's output at every step of whole episodes, rows step by step.
    pub(crate) fn features(
        &self,
        observations: &[f32],
        steps: usize,
        episodes: usize,
    ) -> Tensor<2> {
        self.layers.whole(self.rows(observations, steps * episodes), steps, episodes)
    }

    /// Log-probabilities of all actions, `[rows, actions]`, and of those taken, `[rows, 1]`.
    pub(crate) fn log_policy(
        &self,
        features: Tensor<2>,
        actions: &[usize],
    ) -> (Tensor<2>, Tensor<2>) {
        let taken: Vec<i64> = actions.iter().map(|&action| action as i64).collect();
        let taken = TensorData::new(taken, [actions.len(), 1]);
        let taken = Tensor::<2, Int>::from_data(taken, &self.device);
        let logits = self.layers.policy(features, self.temperature);
        let log_policy = activation::log_softmax(logits, 1);
        (log_policy.clone(), log_policy.gather(1, taken))
    }

    /// The loss, `policy + vf_coef * value - ent_coef * entropy`, and its parts on the host.
    ///
    /// # Source
    /// Schulman et al. 2017 (arXiv 1707.06347), equations 7 and 9.
    pub(crate) fn loss(&self, batch: &Batch<'_>, config: &PpoConfig) -> (Tensor<1>, LossParts) {
        let rows = batch.steps * batch.episodes;
        let features = self.features(batch.observations, batch.steps, batch.episodes);
        let column = |values: &[f32]| self.rows(values, rows);
        let (log_policy, log_probability) = self.log_policy(features.clone(), batch.actions);
        let log_ratio = log_probability - column(batch.old_log_probabilities);
        let ratio = log_ratio.clone().exp();
        let advantages = column(batch.advantages);
        let clipped = ratio.clone().clamp(1.0 - config.clip_range, 1.0 + config.clip_range);
        let surrogate = (ratio.clone() * advantages.clone()).min_pair(clipped * advantages);
        let policy_loss = surrogate.mean().neg();
        let error = self.layers.value(features) - column(batch.value_targets);
        let value_loss = error.powf_scalar(2.0).mean();
        let entropy = (log_policy.clone().exp() * log_policy).sum_dim(1).mean().neg();

        let number = |tensor: &Tensor<1>| f64::from(tensor.clone().into_scalar::<f32>());
        let ratios: Vec<f32> = ratio.detach().into_data().try_to_vec().unwrap_or_default();
        let logs: Vec<f32> = log_ratio.detach().into_data().try_to_vec().unwrap_or_default();
        let mean = |f: &dyn Fn(f64, f64) -> f64| {
            let terms = ratios.iter().zip(&logs).map(|(&r, &l)| f(f64::from(r), f64::from(l)));
            terms.sum::<f64>() / rows as f64
        };
        let parts = LossParts {
            policy: number(&policy_loss),
            value: number(&value_loss),
            entropy: number(&entropy),
            approx_kl: mean(&|ratio, log| ratio - 1.0 - log),
            clip_fraction: mean(&|r, _| f64::from(u8::from((r - 1.0).abs() > config.clip_range))),
        };
        let total = policy_loss + value_loss.mul_scalar(config.vf_coef)
            - entropy.mul_scalar(config.ent_coef);
        (total, parts)
    }
}
