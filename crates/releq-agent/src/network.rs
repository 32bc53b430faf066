//! The trainable network on the host, and one optimizer step of it.

use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use serde_json::{Map, Value};

use crate::{
    AgentError, AgentSnapshot, PpoConfig,
    actor_critic::{ActorCritic, HIDDEN, TrunkLayer},
    adam::{Adam, clip_by_global_norm},
    imitation::Example,
    loss::{Batch, LossParts},
    lstm::LstmState,
    parameter::{Parameter, Shape},
};

/// The parameters and their optimizer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Network {
    parameters: ActorCritic<Parameter>,
    adam: Adam,
}

/// The network on a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceNetwork {
    pub(crate) layers: ActorCritic<Tensor<2>>,
    pub(crate) temperature: f64,
    pub(crate) device: Device,
}

impl Network {
    /// Random kernels and zero biases, but for the forget gate, which starts open.
    pub(crate) fn new(shapes: &ActorCritic<Shape>, rng: &mut impl Rng) -> Self {
        let mut parameters = shapes.map(|name, &shape| {
            if name.ends_with("kernel") {
                Parameter::glorot(shape, rng)
            } else {
                Parameter::zeros(shape)
            }
        });
        if let TrunkLayer::Lstm(lstm) = &mut parameters.trunk {
            lstm.bias.values[HIDDEN..2 * HIDDEN].fill(1.0);
        }
        Self { parameters, adam: Adam::default() }
    }

    /// Number of weights and biases.
    pub(crate) fn parameter_count(&self) -> usize {
        let mut count = 0;
        self.parameters.map(|_, parameter| count += parameter.values.len());
        count
    }

    /// Adds the parameters and the state of the optimizer to `snapshot`.
    pub(crate) fn save(&self, snapshot: &mut AgentSnapshot) -> Result<(), AgentError> {
        let mut saved = Map::new();
        self.parameters.try_map(|name, parameter| {
            let value = parameter.save(&format!("parameters.{name}"), snapshot)?;
            saved.insert(name.to_owned(), value);
            Ok::<_, AgentError>(())
        })?;
        snapshot.set("parameters", &saved)?;
        snapshot.set("adam_steps", &self.adam.steps)
    }

    /// Reads a network of these `shapes` from `snapshot`.
    pub(crate) fn load(
        shapes: &ActorCritic<Shape>,
        snapshot: &AgentSnapshot,
    ) -> Result<Self, AgentError> {
        let mut saved: Map<String, Value> = snapshot.get("parameters")?;
        let parameters = shapes.try_map(|name, &shape| {
            Parameter::load(saved.remove(name), shape, &format!("parameters.{name}"), snapshot)
        })?;
        if let Some(name) = saved.keys().next() {
            return Err(snapshot.error(format!("parameters.{name}"), "unknown field"));
        }
        let steps = snapshot.get("adam_steps")?;
        if steps < 0 {
            return Err(snapshot.error("adam_steps", "negative"));
        }
        Ok(Self { parameters, adam: Adam { steps } })
    }

    /// Copies the parameters to a device.
    pub(crate) fn to_device(&self, temperature: f64, device: &Device) -> DeviceNetwork {
        let tensor = |_: &str, parameter: &Parameter| {
            Tensor::from_data(TensorData::new(parameter.values.clone(), parameter.shape), device)
        };
        let layers = self.parameters.map(tensor);
        DeviceNetwork { layers, temperature, device: device.clone() }
    }

    /// One step of Adam on one batch. Returns the parts of the loss before the step.
    pub(crate) fn update(
        &mut self,
        batch: &Batch<'_>,
        example: Option<&Example>,
        config: &PpoConfig,
    ) -> LossParts {
        let network = self.to_learn(config);
        let example = example.filter(|_| config.imitation_coef > 0.0);
        let (loss, parts) = network.loss(batch, example, config);
        self.descend(network, &loss, config);
        parts
    }

    /// One step of Adam towards the actions of `examples`, each with its weight.
    pub(crate) fn imitate(&mut self, examples: &[(f64, Example)], config: &PpoConfig) {
        let network = self.to_learn(config);
        let loss = network.imitation_loss(examples);
        self.descend(network, &loss, config);
    }

    /// The network on the host's device, with gradients.
    fn to_learn(&self, config: &PpoConfig) -> DeviceNetwork {
        let mut network = self.to_device(config.temperature, &Device::flex().autodiff());
        network.layers = network.layers.map(|_, tensor| tensor.clone().require_grad());
        network
    }

    /// One step of Adam down the gradient of `loss`.
    fn descend(&mut self, mut network: DeviceNetwork, loss: &Tensor<1>, config: &PpoConfig) {
        let all = loss.backward();
        let mut gradients: Vec<Vec<f32>> = network
            .layers
            .parameters_mut()
            .into_iter()
            .map(|tensor| {
                let gradient = tensor.grad(&all).map(|gradient| gradient.into_data().try_to_vec());
                // A parameter that the loss does not reach has no gradient.
                gradient
                    .and_then(Result::ok)
                    .unwrap_or_else(|| vec![0.0; tensor.shape().num_elements()])
            })
            .collect();
        if let Some(limit) = config.max_grad_norm {
            clip_by_global_norm(&mut gradients, limit);
        }
        self.adam.step(self.parameters.parameters_mut(), &gradients, config.learning_rate);
    }
}

impl DeviceNetwork {
    /// The state at the start of `episodes` episodes.
    pub(crate) fn start(&self, episodes: usize) -> LstmState {
        LstmState::zeros(episodes, HIDDEN, &self.device)
    }

    /// Logits, `[episodes, actions]`, and values, `[episodes, 1]`, of one step.
    pub(crate) fn step(
        &self,
        observations: &[f32],
        episodes: usize,
        state: &mut LstmState,
    ) -> (Vec<f32>, Vec<f32>) {
        let features = self.layers.step(self.rows(observations, episodes), state);
        let host = |tensor: Tensor<2>| tensor.into_data().try_to_vec().unwrap_or_default();
        let logits = self.layers.policy(features.clone(), self.temperature);
        (host(logits), host(self.layers.value(features)))
    }

    /// `values` as a matrix of `rows` rows.
    pub(crate) fn rows(&self, values: &[f32], rows: usize) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [rows, values.len() / rows]);
        Tensor::from_data(data, &self.device)
    }
}
