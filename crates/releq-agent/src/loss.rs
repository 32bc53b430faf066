//! The clipped loss of PPO.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::{
    PpoConfig,
    imitation::{Example, Rows},
    network::DeviceNetwork,
};

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

    /// The loss, `policy + vf_coef * value - ent_coef * entropy`, and its parts on the host. Where there is an `example`
    /// to imitate, the mean negative log-likelihood of its actions is added, times `imitation_coef`.
    ///
    /// # Source
    /// Schulman et al. 2017 (arXiv 1707.06347), equations 7 and 9.
    pub(crate) fn loss(
        &self,
        batch: &Batch<'_>,
        example: Option<&Example>,
        config: &PpoConfig,
    ) -> (Tensor<1>, LossParts) {
        let rows = batch.steps * batch.episodes;
        let column = |values: &[f32]| self.rows(values, rows);
        let Forward { features, log_policy, log_probability, imitated } =
            self.forward(batch, example);
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
        let mut total = policy_loss + value_loss.mul_scalar(config.vf_coef)
            - entropy.mul_scalar(config.ent_coef);
        if let Some(imitated) = imitated {
            total = total - imitated.mean().mul_scalar(config.imitation_coef);
        }
        (total, parts)
    }

    /// What the network says of the batch, and of an example beside it: one more episode costs less than a second pass.
    fn forward(&self, batch: &Batch<'_>, example: Option<&Example>) -> Forward {
        let Some(example) = example else {
            let features = self.features(batch.observations, batch.steps, batch.episodes);
            let (log_policy, log_probability) = self.log_policy(features.clone(), batch.actions);
            return Forward { features, log_policy, log_probability, imitated: None };
        };
        let steps = batch.steps.max(example.actions.len());
        let inputs = batch.observations.len() / batch.actions.len();
        let mut rows = Rows::default();
        for step in 0..steps {
            let of_batch = step * batch.episodes..(step + 1) * batch.episodes;
            // Rows behind the end of the batch are of no account; they keep the example in its place.
            match batch.actions.get(of_batch.clone()) {
                Some(actions) => {
                    let observations = of_batch.start * inputs..of_batch.end * inputs;
                    rows.observations.extend_from_slice(&batch.observations[observations]);
                    rows.actions.extend_from_slice(actions);
                }
                None => rows.skip(batch.episodes, inputs),
            }
            rows.push(example, step);
        }
        let episodes = batch.episodes + 1;
        let features = self.features(&rows.observations, steps, episodes);
        let (log_policy, taken) = self.log_policy(features.clone(), &rows.actions);
        let of_batch = |tensor: Tensor<2>| {
            let rows = batch.steps * batch.episodes;
            episodes_of(tensor, episodes, 0..batch.episodes).narrow(0, 0, rows)
        };
        Forward {
            features: of_batch(features),
            log_policy: of_batch(log_policy),
            log_probability: of_batch(taken.clone()),
            imitated: Some(episodes_of(taken, episodes, batch.episodes..episodes).narrow(
                0,
                0,
                example.actions.len(),
            )),
        }
    }
}

/// The trunk's output for a batch, `[rows, units]`, the log-probabilities of all actions, `[rows, actions]`, and of
/// those taken, `[rows, 1]`; and those of the actions to imitate, `[steps, 1]`.
struct Forward {
    features: Tensor<2>,
    log_policy: Tensor<2>,
    log_probability: Tensor<2>,
    imitated: Option<Tensor<2>>,
}

/// The rows of some of the `episodes` that lie side by side in each step.
fn episodes_of(tensor: Tensor<2>, episodes: usize, some: Range<usize>) -> Tensor<2> {
    let [rows, columns] = tensor.dims();
    let steps = rows / episodes;
    tensor
        .reshape([steps, episodes * columns])
        .narrow(1, some.start * columns, some.len() * columns)
        .reshape([steps * some.len(), columns])
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{Trunk, actor_critic::ActorCritic, network::Network};

    const INPUTS: usize = 3;
    const ACTIONS: usize = 4;

    fn network(config: &PpoConfig, trunk: Trunk) -> DeviceNetwork {
        let shapes = ActorCritic::shapes(trunk, INPUTS, ACTIONS);
        let network = Network::new(&shapes, &mut ChaCha8Rng::seed_from_u64(3));
        let device = burn::tensor::Device::flex().autodiff();
        let mut network = network.to_device(config.temperature, &device);
        network.layers = network.layers.map(|_, tensor| tensor.clone().require_grad());
        network
    }

    fn observations(rows: usize, phase: f32) -> Vec<f32> {
        (0..rows * INPUTS).map(|at| (at as f32 * 0.7 + phase).sin()).collect()
    }

    fn example(steps: usize) -> Example {
        Example {
            episode_return: 1.0,
            observations: observations(steps, steps as f32),
            actions: (0..steps).map(|step| (step * 3 + 1) % ACTIONS).collect(),
        }
    }

    fn number(loss: Tensor<1>) -> f32 {
        loss.into_scalar()
    }

    /// The gradients of all parameters, one after the other.
    fn gradients(network: &mut DeviceNetwork, loss: &Tensor<1>) -> Vec<f32> {
        let all = loss.backward();
        let of = |tensor: &mut Tensor<2>| match tensor.grad(&all) {
            Some(gradient) => gradient.into_data().try_to_vec::<f32>().unwrap(),
            None => vec![0.0; tensor.shape().num_elements()],
        };
        network.layers.parameters_mut().into_iter().flat_map(of).collect()
    }

    #[test]
    fn an_episode_to_imitate_counts_the_same_beside_others_as_alone() {
        for trunk in [Trunk::Lstm, Trunk::Dense] {
            let config = PpoConfig { imitation_coef: 0.3, ..PpoConfig::default() };
            let mut network = network(&config, trunk);
            let (steps, episodes) = (5, 3);
            let rows = steps * episodes;
            let actions: Vec<usize> = (0..rows).map(|row| row % ACTIONS).collect();
            let column = |scale: f32| -> Vec<f32> {
                (0..rows).map(|row| (row as f32).cos() * scale).collect()
            };
            let batch = Batch {
                steps,
                episodes,
                observations: &observations(rows, 0.2),
                actions: &actions,
                old_log_probabilities: &column(0.1).iter().map(|x| x - 1.4).collect::<Vec<_>>(),
                advantages: &column(1.0),
                value_targets: &column(0.5),
            };
            let alone = network.loss(&batch, None, &config);
            let of_batch = gradients(&mut network, &alone.0);
            // Shorter than the episodes of the batch, as long, and longer.
            for length in [1, 4, 5, 8] {
                let example = example(length);
                let beside = network.loss(&batch, Some(&example), &config);
                let beside_gradients = gradients(&mut network, &beside.0);
                let imitated = network.imitation_loss(&[(1.0, example)]);
                let of_example = gradients(&mut network, &imitated);
                for ((got, batch), example) in
                    beside_gradients.iter().zip(&of_batch).zip(&of_example)
                {
                    let expected = batch + 0.3 * example;
                    assert!((got - expected).abs() < 1e-5, "{trunk:?} {length}: {got}, {expected}");
                }
                let imitated = number(imitated);
                let expected = number(alone.0.clone()) + 0.3 * imitated;
                let got = number(beside.0);
                assert!((got - expected).abs() < 1e-5, "{trunk:?} {length}: {got}, not {expected}");
                assert!((beside.1.policy - alone.1.policy).abs() < 1e-5, "{:?}", beside.1);
                assert!((beside.1.value - alone.1.value).abs() < 1e-5, "{:?}", beside.1);
                assert!((beside.1.approx_kl - alone.1.approx_kl).abs() < 1e-5, "{:?}", beside.1);
            }
        }
    }

    #[test]
    fn several_examples_count_by_their_weights_whatever_their_lengths() {
        let network = network(&PpoConfig::default(), Trunk::Lstm);
        let examples = [(0.5, example(4)), (0.25, example(1)), (0.125, example(7))];
        let alone: f32 = examples
            .iter()
            .map(|(weight, one)| {
                *weight as f32 * number(network.imitation_loss(&[(1.0, one.clone())]))
            })
            .sum();
        let together = number(network.imitation_loss(&examples));
        assert!((together - alone).abs() < 1e-5, "{together}, not {alone}");
        // By hand, of one step: the negative log-likelihood of its action.
        let one = example(1);
        let (_, taken) =
            network.log_policy(network.features(&one.observations, 1, 1), &one.actions);
        let expected = -number(taken.reshape([1]));
        assert!((number(network.imitation_loss(&[(1.0, one)])) - expected).abs() < 1e-6);
    }
}
