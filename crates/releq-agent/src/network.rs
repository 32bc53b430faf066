//! The actor-critic: a shared trunk, a policy head, a value head.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::{AgentError, AgentSnapshot, PpoConfig, Trunk};

/// Units of the trunk and of the policy's layers.
const HIDDEN: usize = 128;
/// Units of the value head's second layer.
const VALUE_HIDDEN: usize = 64;

/// One weight matrix or bias row on the host, `[rows, columns]`, with Adam's two moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameter {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
    first_moment: Vec<f32>,
    second_moment: Vec<f32>,
}

impl Parameter {
    fn new(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        let zeros = vec![0.0; values.len()];
        Self { rows, columns, values, first_moment: zeros.clone(), second_moment: zeros }
    }

    /// Glorot-uniform, as TensorFlow 1 initializes kernels.
    fn kernel(rows: usize, columns: usize, rng: &mut impl Rng) -> Self {
        let limit = (6.0 / (rows + columns) as f32).sqrt();
        let values = (0..rows * columns).map(|_| rng.random_range(-limit..limit)).collect();
        Self::new(rows, columns, values)
    }

    fn zeros(columns: usize) -> Self {
        Self::new(1, columns, vec![0.0; columns])
    }

    fn numbers(&self) -> [(&'static str, &[f32]); 3] {
        [
            ("values", &self.values),
            ("first_moment", &self.first_moment),
            ("second_moment", &self.second_moment),
        ]
    }
}

/// Parameters in a fixed order: trunk kernel and bias; then kernel and bias of policy 1, 2, 3 and of
/// value 1, 2, 3.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ActorCritic {
    trunk: Trunk,
    temperature: f64,
    parameters: Vec<Parameter>,
    adam_steps: i32,
}

/// State of the LSTM for each episode, `[episodes, 128]` each.
#[derive(Clone, Debug)]
pub(crate) struct LstmState {
    hidden: Tensor<2>,
    cell: Tensor<2>,
}

/// The parameters as tensors on one device.
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    trunk: Trunk,
    temperature: f64,
    tensors: Vec<Tensor<2>>,
    device: Device,
}

/// What an update needs of a batch, rows in the order step by step, episodes within a step.
pub(crate) struct Batch<'a> {
    pub(crate) steps: usize,
    pub(crate) episodes: usize,
    pub(crate) observations: &'a [f32],
    pub(crate) actions: &'a [usize],
    pub(crate) old_log_probabilities: &'a [f32],
    pub(crate) advantages: &'a [f32],
    pub(crate) value_targets: &'a [f32],
}

/// Coefficients of the loss.
pub(crate) struct Loss {
    pub(crate) clip_range: f64,
    pub(crate) vf_coef: f64,
    pub(crate) ent_coef: f64,
    pub(crate) imitation_coef: f64,
}

/// An episode to imitate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Example {
    pub(crate) episode_return: f64,
    /// `[steps][observation_len]`, in one run.
    pub(crate) observations: Vec<f32>,
    pub(crate) actions: Vec<usize>,
}

impl Example {
    /// The best episode of a snapshot, if it has one.
    pub(crate) fn load(
        inputs: usize,
        action_count: usize,
        snapshot: &AgentSnapshot,
    ) -> Result<Option<Self>, AgentError> {
        let best: Option<Self> = snapshot.get("best")?;
        let Some(example) = &best else { return Ok(None) };
        let fail = |part: &str, reason: &str| Err(snapshot.error(format!("best.{part}"), reason));
        if example.actions.is_empty() {
            return fail("actions", "empty");
        }
        if example.actions.iter().any(|&action| action >= action_count) {
            return fail("actions", "an action is not below `action_count`");
        }
        if Some(example.observations.len()) != example.actions.len().checked_mul(inputs) {
            return fail("observations", "not `observation_len` numbers for every action");
        }
        if !example.observations.iter().all(|number| number.is_finite()) {
            return fail("observations", "a number is not finite");
        }
        Ok(best)
    }
}

/// Figures of one pass over a batch, before its step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LossParts {
    pub(crate) policy: f64,
    pub(crate) value: f64,
    pub(crate) entropy: f64,
    pub(crate) approx_kl: f64,
    pub(crate) clip_fraction: f64,
}

fn matrix(values: &[f32], rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [rows, columns]), device)
}

/// Name, inputs and outputs of every layer.
fn layers(trunk: Trunk, inputs: usize, actions: usize) -> [(&'static str, usize, usize); 7] {
    let trunk = match trunk {
        Trunk::Lstm => (inputs.saturating_add(HIDDEN), 4 * HIDDEN),
        Trunk::Dense => (inputs, HIDDEN),
    };
    [
        ("trunk", trunk.0, trunk.1),
        ("policy_1", HIDDEN, HIDDEN),
        ("policy_2", HIDDEN, HIDDEN),
        ("policy_3", HIDDEN, actions),
        ("value_1", HIDDEN, HIDDEN),
        ("value_2", HIDDEN, VALUE_HIDDEN),
        ("value_3", VALUE_HIDDEN, 1),
    ]
}

/// Name, rows and columns of every parameter, in order.
fn parameter_names(
    trunk: Trunk,
    inputs: usize,
    actions: usize,
) -> impl Iterator<Item = (String, usize, usize)> {
    layers(trunk, inputs, actions).into_iter().flat_map(|(name, rows, columns)| {
        [(format!("{name}.kernel"), rows, columns), (format!("{name}.bias"), 1, columns)]
    })
}

impl ActorCritic {
    pub(crate) fn new(
        trunk: Trunk,
        temperature: f64,
        inputs: usize,
        actions: usize,
        rng: &mut impl Rng,
    ) -> Self {
        let mut parameters = Vec::with_capacity(14);
        for (_, rows, columns) in layers(trunk, inputs, actions) {
            parameters.push(Parameter::kernel(rows, columns, rng));
            parameters.push(Parameter::zeros(columns));
        }
        if trunk == Trunk::Lstm {
            // Gates in the order input, forget, cell, output; the forget gate starts open.
            parameters[1].values[HIDDEN..2 * HIDDEN].fill(1.0);
        }
        Self { trunk, temperature, parameters, adam_steps: 0 }
    }

    /// Adds the weights and the state of Adam to a snapshot.
    pub(crate) fn save(
        &self,
        inputs: usize,
        actions: usize,
        snapshot: &mut AgentSnapshot,
    ) -> Result<(), AgentError> {
        let names = parameter_names(self.trunk, inputs, actions).map(|(name, ..)| name);
        let mut parameters = serde_json::Map::new();
        for (name, parameter) in names.zip(&self.parameters) {
            for (part, numbers) in parameter.numbers() {
                let field = format!("parameters.{name}.{part}");
                snapshot.check_finite(&field, numbers.iter().map(|&number| f64::from(number)))?;
            }
            let value = serde_json::to_value(parameter);
            parameters.insert(name, value.map_err(|error| snapshot.error("parameters", error))?);
        }
        snapshot.set("parameters", &parameters)?;
        snapshot.set("adam_steps", &self.adam_steps)
    }

    /// The network of a snapshot of an agent with these settings.
    pub(crate) fn load(
        config: &PpoConfig,
        inputs: usize,
        actions: usize,
        snapshot: &AgentSnapshot,
    ) -> Result<Self, AgentError> {
        let mut saved: serde_json::Map<String, serde_json::Value> = snapshot.get("parameters")?;
        let mut parameters = Vec::with_capacity(14);
        for (name, rows, columns) in parameter_names(config.trunk, inputs, actions) {
            let field = format!("parameters.{name}");
            let fail = |reason: String| Err(snapshot.error(&field, reason));
            let Some(value) = saved.remove(&name) else { return fail("missing".into()) };
            let parameter: Parameter = match serde_json::from_value(value) {
                Ok(parameter) => parameter,
                Err(error) => return fail(error.to_string()),
            };
            if (parameter.rows, parameter.columns) != (rows, columns) {
                let (got_rows, got_columns) = (parameter.rows, parameter.columns);
                return fail(format!("shape {got_rows}x{got_columns}, expected {rows}x{columns}"));
            }
            for (part, numbers) in parameter.numbers() {
                if Some(numbers.len()) != rows.checked_mul(columns) {
                    return fail(format!("`{part}` has {} numbers", numbers.len()));
                }
                // A number beyond the range of `f32` is read as infinity.
                if !numbers.iter().all(|number| number.is_finite()) {
                    return fail(format!("`{part}` has a number that is not finite"));
                }
            }
            parameters.push(parameter);
        }
        if let Some(name) = saved.keys().next() {
            return Err(snapshot.error(format!("parameters.{name}"), "unknown field"));
        }
        let adam_steps = snapshot.get("adam_steps")?;
        if adam_steps < 0 {
            return Err(snapshot.error("adam_steps", "negative"));
        }
        Ok(Self { trunk: config.trunk, temperature: config.temperature, parameters, adam_steps })
    }

    pub(crate) fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.values.len()).sum()
    }

    pub(crate) fn tensors(&self, device: &Device) -> Tensors {
        let tensor = |p: &Parameter| matrix(&p.values, p.rows, p.columns, device);
        Tensors {
            trunk: self.trunk,
            temperature: self.temperature,
            tensors: self.parameters.iter().map(tensor).collect(),
            device: device.clone(),
        }
    }

    /// One step of Adam on one batch; gives the figures of the pass before the step.
    pub(crate) fn update(
        &mut self,
        batch: &Batch<'_>,
        example: Option<&Example>,
        loss: &Loss,
        learning_rate: f64,
        max_grad_norm: Option<f64>,
    ) -> LossParts {
        let device = Device::flex().autodiff();
        let mut tensors = self.tensors(&device);
        tensors.tensors = tensors.tensors.into_iter().map(Tensor::require_grad).collect();
        let (mut total, parts) = tensors.loss(batch, loss);
        if let Some(example) = example.filter(|_| loss.imitation_coef > 0.0) {
            total = total + tensors.surprise(example).mul_scalar(loss.imitation_coef);
        }
        let gradients = total.backward();
        let mut gradients: Vec<Vec<f32>> = tensors
            .tensors
            .iter()
            .zip(&self.parameters)
            .map(|(tensor, parameter)| {
                tensor
                    .grad(&gradients)
                    .and_then(|gradient| gradient.into_data().try_to_vec().ok())
                    .unwrap_or_else(|| vec![0.0; parameter.values.len()])
            })
            .collect();
        if let Some(limit) = max_grad_norm {
            let square = |g: &f32| f64::from(*g) * f64::from(*g);
            let norm = gradients.iter().flatten().map(square).sum::<f64>().sqrt();
            if norm > limit {
                let factor = (limit / norm) as f32;
                gradients.iter_mut().flatten().for_each(|gradient| *gradient *= factor);
            }
        }
        self.adam(&gradients, learning_rate);
        parts
    }

    /// Adam with TensorFlow's defaults but for epsilon, which is 1e-5 as in the authors' code.
    fn adam(&mut self, gradients: &[Vec<f32>], learning_rate: f64) {
        const BETA_1: f32 = 0.9;
        const BETA_2: f32 = 0.999;
        const EPSILON: f32 = 1e-5;
        self.adam_steps += 1;
        let correction_1 = 1.0 - f64::from(BETA_1).powi(self.adam_steps);
        let correction_2 = 1.0 - f64::from(BETA_2).powi(self.adam_steps);
        let rate = (learning_rate * correction_2.sqrt() / correction_1) as f32;
        for (parameter, gradients) in self.parameters.iter_mut().zip(gradients) {
            let moments = parameter.first_moment.iter_mut().zip(&mut parameter.second_moment);
            for ((value, (first, second)), gradient) in
                parameter.values.iter_mut().zip(moments).zip(gradients)
            {
                *first = BETA_1 * *first + (1.0 - BETA_1) * gradient;
                *second = BETA_2 * *second + (1.0 - BETA_2) * gradient * gradient;
                *value -= rate * *first / (second.sqrt() + EPSILON);
            }
        }
    }
}

impl Tensors {
    pub(crate) fn start(&self, episodes: usize) -> LstmState {
        let zeros = Tensor::zeros([episodes, HIDDEN], &self.device);
        LstmState { hidden: zeros.clone(), cell: zeros }
    }

    /// Logits `[episodes, actions]` and values `[episodes, 1]` of one step.
    pub(crate) fn step(&self, observations: &[f32], state: &mut LstmState) -> (Vec<f32>, Vec<f32>) {
        let [episodes, _] = state.hidden.dims();
        let inputs = observations.len() / episodes;
        let input = matrix(observations, episodes, inputs, &self.device);
        let features = match self.trunk {
            Trunk::Lstm => {
                let (from_input, from_hidden) = self.lstm_kernels(inputs);
                let gates = input.matmul(from_input) + self.tensors[1].clone();
                *state = lstm_step(gates, state.clone(), &from_hidden);
                state.hidden.clone()
            }
            Trunk::Dense => self.dense(input, 0),
        };
        let host = |tensor: Tensor<2>| tensor.into_data().try_to_vec().unwrap_or_default();
        (host(self.policy(features.clone())), host(self.value(features)))
    }

    /// What the heads see at every step of whole episodes, rows step by step.
    fn features(&self, observations: &[f32], steps: usize, episodes: usize) -> Tensor<2> {
        let rows = steps * episodes;
        let inputs = observations.len() / rows;
        let input = matrix(observations, rows, inputs, &self.device);
        match self.trunk {
            Trunk::Lstm => {
                let (from_input, from_hidden) = self.lstm_kernels(inputs);
                // The input's share of all gates in one product; recurrence step by step.
                let gates = input.matmul(from_input) + self.tensors[1].clone();
                let mut state = self.start(episodes);
                let mut hidden = Vec::with_capacity(steps);
                for step in 0..steps {
                    let gates = gates.clone().narrow(0, step * episodes, episodes);
                    state = lstm_step(gates, state, &from_hidden);
                    hidden.push(state.hidden.clone());
                }
                Tensor::cat(hidden, 0)
            }
            Trunk::Dense => self.dense(input, 0),
        }
    }

    /// Logarithms of the probabilities of all actions, `[rows, actions]`, and of those taken,
    /// `[rows, 1]`.
    fn log_policy(&self, features: Tensor<2>, actions: &[usize]) -> (Tensor<2>, Tensor<2>) {
        let taken: Vec<i64> = actions.iter().map(|&action| action as i64).collect();
        let taken = TensorData::new(taken, [actions.len(), 1]);
        let taken = Tensor::<2, Int>::from_data(taken, &self.device);
        let log_policy = activation::log_softmax(self.policy(features), 1);
        (log_policy.clone(), log_policy.gather(1, taken))
    }

    /// Mean negative log-likelihood of an example's actions.
    fn surprise(&self, example: &Example) -> Tensor<1> {
        let features = self.features(&example.observations, example.actions.len(), 1);
        self.log_policy(features, &example.actions).1.mean().neg()
    }

    /// Total loss, and its parts on the host.
    fn loss(&self, batch: &Batch<'_>, loss: &Loss) -> (Tensor<1>, LossParts) {
        let rows = batch.steps * batch.episodes;
        let features = self.features(batch.observations, batch.steps, batch.episodes);
        let column = |values: &[f32]| matrix(values, rows, 1, &self.device);
        let (log_policy, log_probability) = self.log_policy(features.clone(), batch.actions);
        let log_ratio = log_probability - column(batch.old_log_probabilities);
        let ratio = log_ratio.clone().exp();
        let advantages = column(batch.advantages);
        let clipped = ratio.clone().clamp(1.0 - loss.clip_range, 1.0 + loss.clip_range);
        let surrogate = (ratio.clone() * advantages.clone()).min_pair(clipped * advantages);
        let policy_loss = surrogate.mean().neg();
        let error = self.value(features) - column(batch.value_targets);
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
            clip_fraction: mean(&|r, _| f64::from(u8::from((r - 1.0).abs() > loss.clip_range))),
        };
        let total =
            policy_loss + value_loss.mul_scalar(loss.vf_coef) - entropy.mul_scalar(loss.ent_coef);
        (total, parts)
    }

    fn lstm_kernels(&self, inputs: usize) -> (Tensor<2>, Tensor<2>) {
        let kernel = &self.tensors[0];
        (kernel.clone().narrow(0, 0, inputs), kernel.clone().narrow(0, inputs, HIDDEN))
    }

    fn linear(&self, input: Tensor<2>, index: usize) -> Tensor<2> {
        input.matmul(self.tensors[index].clone()) + self.tensors[index + 1].clone()
    }

    fn dense(&self, input: Tensor<2>, index: usize) -> Tensor<2> {
        activation::relu(self.linear(input, index))
    }

    fn policy(&self, features: Tensor<2>) -> Tensor<2> {
        let hidden = self.dense(self.dense(features, 2), 4);
        self.linear(hidden.div_scalar(self.temperature), 6)
    }

    fn value(&self, features: Tensor<2>) -> Tensor<2> {
        self.linear(self.dense(self.dense(features, 8), 10), 12)
    }
}

/// One step of an LSTM from the input's share of its gates.
fn lstm_step(gates: Tensor<2>, state: LstmState, from_hidden: &Tensor<2>) -> LstmState {
    let gates = gates + state.hidden.matmul(from_hidden.clone());
    let gate = |index: usize| gates.clone().narrow(1, index * HIDDEN, HIDDEN);
    let input = activation::sigmoid(gate(0));
    let forget = activation::sigmoid(gate(1));
    let candidate = gate(2).tanh();
    let output = activation::sigmoid(gate(3));
    let cell = forget * state.cell + input * candidate;
    LstmState { hidden: output * cell.clone().tanh(), cell }
}
