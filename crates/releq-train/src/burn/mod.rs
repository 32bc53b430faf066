//! The trainer that covers every network, on any Burn device.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use releq_core::{
    Bitwidth, BitwidthAssignment, Network, Node, Op, Parameter, ParameterRole, Shape, Weights,
    layer_parameters,
};
use releq_quant::Quantizer;

mod device;
mod forward;
mod ops;

use self::forward::{Mode, Operands, Value, as_vector, is_covered};
use crate::{
    Batch, Moments, OptimizerState, Sgd, Target, TrainError, Trainer, TrainerState,
    correction::check_observed,
    initial_weights,
    trainer::{layer_bits, layer_weights, pixels_of},
};

/// Images in one forward pass without gradients; more are split, which bounds the memory.
const INFERENCE_BATCH: usize = 256;

/// Trains a network with Burn: a walk over the layers as tensor operations, gradients by autodiff.
///
/// It covers all operations and every Burn device. It starts with the weights of
/// [`initial_weights`] for seed 0.
pub struct BurnTrainer {
    network: Network,
    quantizer: Arc<dyn Quantizer>,
    /// Without autodiff.
    device: Device,
    /// For every node.
    layers: Vec<Layer>,
    /// What [`set_bits`](Trainer::set_bits) was given.
    assignment: Option<BitwidthAssignment>,
    /// For every node: the bitwidth of its weights, if they are quantized.
    bits: Vec<Option<Bitwidth>>,
    /// Training steps since the last load; they choose the dropout masks.
    steps: u64,
}

impl fmt::Debug for BurnTrainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BurnTrainer")
            .field("network", &self.network.name())
            .field("device", &self.device)
            .field("bits", &self.bits)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// What one node owns, without autodiff.
#[derive(Clone, Debug, Default)]
struct Layer {
    weight: Option<Trained>,
    bias: Option<Trained>,
    /// Running mean and variance.
    running: Option<[Tensor<1>; 2]>,
    /// Ranges of activations.
    ranges: Option<Vec<f32>>,
    /// What the weight is quantized within, once that has been found.
    clips: OnceLock<Option<Vec<f32>>>,
}

impl Layer {
    /// What the optimizer adjusts.
    fn trained(&self) -> impl Iterator<Item = (ParameterRole, &Trained)> {
        let named = [(ParameterRole::Weight, &self.weight), (ParameterRole::Bias, &self.bias)];
        named.into_iter().filter_map(|(role, trained)| Some((role, trained.as_ref()?)))
    }

    /// As [`trained`](Self::trained), to change it.
    fn trained_mut(&mut self) -> impl Iterator<Item = (ParameterRole, &mut Trained)> {
        let named =
            [(ParameterRole::Weight, &mut self.weight), (ParameterRole::Bias, &mut self.bias)];
        named.into_iter().filter_map(|(role, trained)| Some((role, trained.as_mut()?)))
    }
}

/// A trained tensor, flat, and its optimizer's memory.
#[derive(Clone, Debug)]
struct Trained {
    shape: Vec<usize>,
    value: Tensor<1>,
    /// `None` is zero.
    velocity: Option<Tensor<1>>,
}

/// The weight that one node computes with.
#[derive(Debug)]
struct Used {
    /// Flat; the master weights, or their quantized values.
    tensor: Tensor<1>,
    /// If it is quantized: the bitwidth, and the master weights in host memory.
    master: Option<(Bitwidth, Vec<f32>)>,
}

impl BurnTrainer {
    /// A trainer of `network` on `device`, whose autodiff setting does not matter.
    ///
    /// # Errors
    /// [`TrainError::Unsupported`] for an operation that is not written in Burn yet.
    pub fn new(
        network: &Network,
        quantizer: Arc<dyn Quantizer>,
        device: Device,
    ) -> Result<Self, TrainError> {
        if let Some(node) = network.nodes().iter().find(|node| !is_covered(node.op)) {
            let (layer, what) = (node.name.clone(), format!("the operation `{}`", node.op.kind()));
            return Err(TrainError::Unsupported { layer, trainer: "burn", what });
        }
        let nodes = network.nodes().len();
        let mut trainer = Self {
            network: network.clone(),
            quantizer,
            device: device.without_autodiff(),
            layers: vec![Layer::default(); nodes],
            assignment: None,
            bits: vec![None; nodes],
            steps: 0,
        };
        trainer.load(&initial_weights(network, 0))?;
        Ok(trainer)
    }

    /// A trainer on the CPU, by Burn's `flex` backend.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn flex(network: &Network, quantizer: Arc<dyn Quantizer>) -> Result<Self, TrainError> {
        Self::new(network, quantizer, Device::flex())
    }

    /// A trainer on the CPU, by Burn's `ndarray` backend, which is much slower than `flex`.
    ///
    /// # Errors
    /// [`TrainError::Device`] without the Cargo feature `ndarray`.
    pub fn ndarray(network: &Network, quantizer: Arc<dyn Quantizer>) -> Result<Self, TrainError> {
        Self::new(network, quantizer, device::ndarray()?)
    }

    /// A trainer on the GPU that `wgpu` prefers.
    ///
    /// # Errors
    /// [`TrainError::Device`] without the Cargo feature `wgpu`, or on a machine without an adapter.
    pub fn wgpu(network: &Network, quantizer: Arc<dyn Quantizer>) -> Result<Self, TrainError> {
        Self::new(network, quantizer, device::wgpu()?)
    }

    /// The network it trains.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    fn tensor(&self, parameter: &Parameter) -> Tensor<1> {
        let data = TensorData::new(parameter.values.clone(), [parameter.values.len()]);
        Tensor::from_data(data, &self.device)
    }

    /// The tensors that every node computes with, without gradients.
    fn operands(&self) -> Result<Vec<Operands>, TrainError> {
        let operands = |index: usize| {
            let weight = self.used_weight(index)?.map(|used| used.tensor);
            let bias = self.layers[index].bias.as_ref().map(|bias| bias.value.clone());
            self.shaped(index, weight, bias)
        };
        (0..self.layers.len()).map(operands).collect()
    }

    /// Images as a tensor.
    fn input(&self, images: &[f32], device: &Device) -> Value {
        let [channels, height, width] = self.network.input();
        let batch = images.len() / (channels * height * width);
        let data = TensorData::new(images.to_vec(), [batch, channels, height, width]);
        Value::Image(Tensor::from_data(data, device))
    }

    /// The weight of node `index`, quantized if it has a bitwidth.
    ///
    /// Quantizers work on slices, so the weights are rounded in host memory, to the same bits as in every
    /// other trainer.
    fn used_weight(&self, index: usize) -> Result<Option<Used>, TrainError> {
        let Some(trained) = &self.layers[index].weight else { return Ok(None) };
        let Some(bits) = self.bits[index] else {
            return Ok(Some(Used { tensor: trained.value.clone(), master: None }));
        };
        let master = floats(trained.value.clone());
        let mut values = vec![0.0; master.len()];
        let weights = layer_weights(&self.network, index, &master)?;
        let held = &self.layers[index].clips;
        let clips = match held.get() {
            Some(clips) => clips,
            None => {
                let found = self.quantizer.clips(weights, bits)?;
                held.get_or_init(|| found)
            }
        };
        let clips = clips.as_deref().unwrap_or_default();
        self.quantizer.fake_quantize_within(weights, bits, clips, &mut values)?;
        let data = TensorData::new(values, [master.len()]);
        let tensor = Tensor::from_data(data, &self.device);
        Ok(Some(Used { tensor, master: Some((bits, master)) }))
    }

    /// The gradient of the master weights of node `index`, from that of its quantized weights.
    fn master_gradient(
        &self,
        index: usize,
        (bits, master): &(Bitwidth, Vec<f32>),
        gradient: Tensor<1>,
    ) -> Result<Tensor<1>, TrainError> {
        let weights = layer_weights(&self.network, index, master)?;
        let mut values = vec![0.0; master.len()];
        self.quantizer.backward(weights, *bits, &floats(gradient), &mut values)?;
        let data = TensorData::new(values, [master.len()]);
        Ok(Tensor::from_data(data, &self.device))
    }

    /// Moves the running statistics towards those that the batch showed.
    fn update_running(&mut self, batch: usize, seen: Vec<Option<[Tensor<1>; 2]>>) {
        for (index, seen) in seen.into_iter().enumerate() {
            let Op::BatchNorm { momentum, .. } = self.network.nodes()[index].op else { continue };
            let (Some([mean, variance]), Some(running)) = (seen, &mut self.layers[index].running)
            else {
                continue;
            };
            let count = (batch * values_per_channel(self.network.shape(index))) as f64;
            let old = running.clone().map(|old| old.mul_scalar(1.0 - momentum));
            let [old_mean, old_variance] = old;
            // PyTorch normalizes with the biased variance, but keeps the unbiased one.
            let unbiased = count / (count - 1.0);
            *running = [
                old_mean + mean.mul_scalar(momentum),
                old_variance + variance.mul_scalar(momentum * unbiased),
            ];
        }
    }
}

impl BurnTrainer {
    fn optimizer(&self) -> OptimizerState {
        let mut velocity = Weights::default();
        for (node, layer) in self.network.nodes().iter().zip(&self.layers) {
            for (role, Trained { shape, velocity: memory, .. }) in layer.trained() {
                let values = match memory {
                    Some(memory) => floats(memory.clone()),
                    None => vec![0.0; shape.iter().product()],
                };
                let parameter = Parameter { shape: shape.clone(), values };
                velocity.0.insert(role.name(&node.name), parameter);
            }
        }
        OptimizerState { velocity, steps: self.steps }
    }

    fn set_optimizer(&mut self, state: &OptimizerState) {
        let mut layers = std::mem::take(&mut self.layers);
        for (node, layer) in self.network.nodes().iter().zip(&mut layers) {
            for (role, trained) in layer.trained_mut() {
                let saved = state.velocity.0.get(&role.name(&node.name));
                trained.velocity = saved.map(|saved| self.tensor(saved));
            }
        }
        self.layers = layers;
        self.steps = state.steps;
    }

    /// The clips that weights are quantized within, or will be from the next use on: a state does not depend on who has looked.
    fn clips(&self) -> BTreeMap<String, Vec<f32>> {
        let of = |(index, node): (usize, &Node)| {
            let clips = self.layer_clips(index).ok()??;
            Some((node.name.clone(), clips))
        };
        self.network.nodes().iter().enumerate().filter_map(of).collect()
    }

    fn layer_clips(&self, index: usize) -> Result<Option<Vec<f32>>, TrainError> {
        let layer = &self.layers[index];
        if let Some(held) = layer.clips.get() {
            return Ok(held.clone());
        }
        let Some((weight, bits)) = layer.weight.as_ref().zip(self.bits[index]) else {
            return Ok(None);
        };
        let master = floats(weight.value.clone());
        Ok(self.quantizer.clips(layer_weights(&self.network, index, &master)?, bits)?)
    }

    fn quantize(&mut self, layers: Vec<Option<Bitwidth>>, bits: Option<&BitwidthAssignment>) {
        let mut layers = layers.into_iter();
        for (node, bits) in self.network.nodes().iter().zip(&mut self.bits) {
            *bits = if node.op.is_quantizable() { layers.next().flatten() } else { None };
        }
        self.layers.iter_mut().for_each(|layer| layer.clips = OnceLock::new());
        self.assignment = bits.cloned();
    }
}

impl Trainer for BurnTrainer {
    fn network(&self) -> &Network {
        &self.network
    }

    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        let layers = layer_bits(&self.network, &*self.quantizer, bits)?;
        self.quantize(layers, bits);
        Ok(())
    }

    fn snapshot(&self) -> TrainerState {
        TrainerState {
            weights: self.weights(),
            optimizer: self.optimizer(),
            bits: self.assignment.clone(),
            quantizer: self.quantizer.name().to_owned(),
            clips: self.clips(),
        }
    }

    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        let layers = state.checked(&self.network, &*self.quantizer)?;
        self.load(&state.weights)?;
        self.set_optimizer(&state.optimizer);
        self.quantize(layers, state.bits.as_ref());
        for (node, layer) in self.network.nodes().iter().zip(&mut self.layers) {
            if let Some(clips) = state.clips.get(&node.name) {
                layer.clips = OnceLock::from(Some(clips.clone()));
            }
        }
        Ok(())
    }

    fn load(&mut self, state: &Weights) -> Result<(), TrainError> {
        state.check(&self.network)?;
        for index in 0..self.layers.len() {
            let mut layer = Layer::default();
            let (mut mean, mut variance) = (None, None);
            for (role, shape) in layer_parameters(&self.network, index) {
                let name = role.name(&self.network.nodes()[index].name);
                let values = &state.0[&name];
                let value = self.tensor(values);
                match role {
                    ParameterRole::Weight => {
                        layer.weight = Some(Trained { shape, value, velocity: None });
                    }
                    ParameterRole::Bias => {
                        layer.bias = Some(Trained { shape, value, velocity: None })
                    }
                    ParameterRole::RunningMean => mean = Some(value),
                    ParameterRole::RunningVar => variance = Some(value),
                    ParameterRole::Ranges => layer.ranges = Some(values.values.clone()),
                }
            }
            layer.running = mean.zip(variance).map(|(mean, variance)| [mean, variance]);
            self.layers[index] = layer;
        }
        self.steps = 0;
        Ok(())
    }

    fn weights(&self) -> Weights {
        let mut state = Weights::default();
        for (node, layer) in self.network.nodes().iter().zip(&self.layers) {
            for (role, Trained { shape, value, .. }) in layer.trained() {
                let parameter = Parameter { shape: shape.clone(), values: floats(value.clone()) };
                state.0.insert(role.name(&node.name), parameter);
            }
            if let Some(values) = layer.ranges.clone() {
                let parameter = Parameter { shape: vec![values.len() / 2, 2], values };
                state.0.insert(ParameterRole::Ranges.name(&node.name), parameter);
            }
            if let Some(running) = layer.running.clone() {
                for (role, value) in
                    [ParameterRole::RunningMean, ParameterRole::RunningVar].into_iter().zip(running)
                {
                    let values = floats(value);
                    let parameter = Parameter { shape: vec![values.len()], values };
                    state.0.insert(role.name(&node.name), parameter);
                }
            }
        }
        state
    }

    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
        let Batch { images, target } = *batch;
        let batch = batch.check(&self.network)?;
        let device = self.device.clone().autodiff();
        let used = (0..self.layers.len())
            .map(|index| self.used_weight(index))
            .collect::<Result<Vec<_>, _>>()?;
        // The leaves are the weights that the network computes with. Where they are quantized, the quantizer
        // says what their gradient means for the master weights.
        let track = |tensor: &Tensor<1>| tensor.clone().autodiff().require_grad();
        let leaves: Vec<[Option<Tensor<1>>; 2]> = used
            .iter()
            .zip(&self.layers)
            .map(|(used, layer)| {
                let weight = used.as_ref().map(|used| track(&used.tensor));
                [weight, layer.bias.as_ref().map(|bias| track(&bias.value))]
            })
            .collect();
        let weights: Vec<Operands> = leaves
            .iter()
            .enumerate()
            .map(|(index, [weight, bias])| self.shaped(index, weight.clone(), bias.clone()))
            .collect::<Result<_, _>>()?;
        let mut mode = Mode::Train(vec![None; leaves.len()]);
        let output = self.forward(self.input(images, &device), &weights, &mut mode);
        let loss = match target {
            Target::Labels(labels) => {
                let labels: Vec<i32> = labels.iter().map(|&label| i32::from(label)).collect();
                let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [batch]), &device);
                ops::cross_entropy(as_vector(output), labels)
            }
            Target::Teacher(logits) => {
                let shape = [batch, self.network.outputs()];
                let teacher = TensorData::new(logits.to_vec(), shape);
                ops::distillation(as_vector(output), Tensor::from_data(teacher, &device))
            }
        };
        let value = floats(loss.clone().inner())[0];

        // A loss that no weight reaches has no gradient at all.
        if loss.is_tracked() {
            let tape = loss.backward();
            // All of them before the first step, so that an error leaves every weight as it was.
            let mut gradients = Vec::with_capacity(leaves.len());
            for (index, (leaves, used)) in leaves.into_iter().zip(&used).enumerate() {
                let [mut weight, bias] = leaves.map(|leaf| leaf.and_then(|leaf| leaf.grad(&tape)));
                if let Some(master) = used.as_ref().and_then(|used| used.master.as_ref()) {
                    let of_master = |gradient| self.master_gradient(index, master, gradient);
                    weight = weight.map(of_master).transpose()?;
                }
                gradients.push([weight, bias]);
            }
            for (layer, gradients) in self.layers.iter_mut().zip(gradients) {
                let trained = [&mut layer.weight, &mut layer.bias];
                for (trained, gradient) in trained.into_iter().zip(gradients) {
                    if let (Some(trained), Some(gradient)) = (trained, gradient) {
                        trained.step(gradient, optimizer);
                    }
                }
            }
        }
        if let Mode::Train(seen) = mode {
            self.update_running(batch, seen);
        }
        self.steps += 1;
        Ok(value)
    }

    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        let sample = pixels_of(&self.network, images)?;
        let weights = self.operands()?;
        let mut logits = Vec::with_capacity(images.len() / sample * self.network.outputs());
        for batch in images.chunks(INFERENCE_BATCH * sample) {
            let input = self.input(batch, &self.device);
            let output = self.forward(input, &weights, &mut Mode::Eval);
            logits.extend(floats(as_vector(output)));
        }
        Ok(logits)
    }

    fn moments(
        &mut self,
        images: &[f32],
        restore: Option<&[Moments]>,
    ) -> Result<Vec<Moments>, TrainError> {
        check_observed(&self.network, images, restore)?;
        let weights = self.operands()?;
        let mut mode = Mode::Observe { targets: restore, seen: Vec::new() };
        self.forward(self.input(images, &self.device), &weights, &mut mode);
        match mode {
            Mode::Observe { seen, .. } => Ok(seen),
            Mode::Train(_) | Mode::Eval => Ok(Vec::new()),
        }
    }
}

impl Trained {
    /// One step along `gradient`, see [`Sgd`].
    fn step(&mut self, gradient: Tensor<1>, sgd: Sgd) {
        let gradient = if sgd.weight_decay == 0.0 {
            gradient
        } else {
            gradient + self.value.clone().mul_scalar(sgd.weight_decay)
        };
        let velocity = match self.velocity.take() {
            Some(velocity) if sgd.momentum != 0.0 => velocity.mul_scalar(sgd.momentum) + gradient,
            _ => gradient,
        };
        self.value = self.value.clone() - velocity.clone().mul_scalar(sgd.learning_rate);
        self.velocity = Some(velocity);
    }
}

/// Values that batch norm sees of one channel of one sample.
fn values_per_channel(shape: Shape) -> usize {
    match shape {
        Shape::Image { height, width, .. } => height * width,
        Shape::Vector { .. } => 1,
    }
}

#[allow(clippy::expect_used, reason = "all tensors here are made from f32")]
fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("the tensor holds f32")
}

#[cfg(test)]
mod tests {
    use releq_core::{Conv2d, Pool2d};
    use releq_quant::QuantizerKind;

    use super::*;
    use crate::{
        oracle::{batch, close_values, networks, oracle, some_bits, state},
        reference,
    };

    const PLAIN: Sgd = Sgd { learning_rate: 1.0, momentum: 0.0, weight_decay: 0.0 };
    /// Single precision against double: 24 bits, some hundred terms, batch norm over a few values.
    const TOLERANCE: f32 = 2e-5;

    fn narrow(values: &[f64]) -> Vec<f32> {
        values.iter().map(|&v| v as f32).collect()
    }

    #[test]
    fn losses_and_gradients_are_those_of_the_reference() {
        for network in networks() {
            let start = state(&network, 11);
            let mut trainer = oracle(&network, QuantizerKind::Wrpn);
            trainer.load(&start).unwrap();
            // The second step sees other weights and another dropout mask.
            for step in 0..2 {
                let before = trainer.weights();
                let values = reference::values(&before);
                let (images, labels) = batch(&network, 4, step);
                let loss = trainer.train_step(&Batch::labelled(&images, &labels), PLAIN).unwrap();
                let (logits, _) = reference::forward(&network, &values, &images, Some(step));
                let expected = reference::cross_entropy(&logits, &labels) as f32;
                close_values(&[loss], &[expected], TOLERANCE, network.name());
                let gradients = reference::gradients(&network, &values, &images, &labels, step);
                let after = trainer.weights();
                for (name, expected) in &gradients {
                    let (before, after) = (&before.0[name].values, &after.0[name].values);
                    let got: Vec<f32> = before.iter().zip(after).map(|(b, a)| b - a).collect();
                    let context = format!("network `{}`, `{name}`, step {step}", network.name());
                    close_values(&got, &narrow(expected), TOLERANCE, &context);
                    assert!(
                        got.iter().any(|g| g.abs() > 1e-4) || name.ends_with("bias"),
                        "{context}"
                    );
                }
            }
        }
    }

    #[test]
    fn inference_uses_running_statistics_and_no_dropout() {
        for network in networks() {
            let start = state(&network, 5);
            let mut trainer = oracle(&network, QuantizerKind::Wrpn);
            trainer.load(&start).unwrap();
            // More than one chunk, the last one not full.
            let (images, _) = batch(&network, INFERENCE_BATCH + 3, 8);
            let (expected, _) =
                reference::forward(&network, &reference::values(&start), &images, None);
            let got = trainer.logits(&images).unwrap();
            close_values(&got, &narrow(&expected), TOLERANCE, network.name());
            assert_eq!(trainer.weights(), start, "inference changes nothing");
        }
    }

    #[test]
    fn running_statistics_keep_the_unbiased_variance() {
        let network = Network::builder("norm", [1, 1, 2])
            .layer("bn", Op::BatchNorm { epsilon: 1e-5, momentum: 0.25 }, &[])
            .flatten("flatten")
            .linear("fc", 2)
            .build()
            .unwrap();
        let mut trainer = oracle(&network, QuantizerKind::Wrpn);
        let mut start = initial_weights(&network, 0);
        start.0.get_mut("bn.running_mean").unwrap().values = vec![2.0];
        start.0.get_mut("bn.running_var").unwrap().values = vec![4.0];
        trainer.load(&start).unwrap();
        trainer.train_step(&Batch::labelled(&[1.0, 3.0, 5.0, 7.0], &[0, 1]), PLAIN).unwrap();
        let state = trainer.weights();
        // By hand: mean 4, squared deviations 9 + 1 + 1 + 9 = 20, over 3 because it is unbiased.
        let mean = 0.75 * 2.0 + 0.25 * 4.0;
        let variance = 0.75 * 4.0 + 0.25 * 20.0 / 3.0;
        close_values(&state.0["bn.running_mean"].values, &[mean], 1e-6, "mean");
        close_values(&state.0["bn.running_var"].values, &[variance], 1e-6, "variance");

        let fed = Network::builder("norm", [2, 1, 1])
            .flatten("flatten")
            .batch_norm("bn")
            .linear("fc", 2)
            .build()
            .unwrap();
        let mut trainer = oracle(&fed, QuantizerKind::Wrpn);
        let before = trainer.weights();
        let message =
            trainer.train_step(&Batch::labelled(&[1.0, 2.0], &[0]), PLAIN).unwrap_err().to_string();
        assert!(message.contains("layer `bn`"), "{message}");
        assert_eq!(trainer.weights(), before);
    }

    #[test]
    fn momentum_and_weight_decay_are_as_defined() {
        let network = &networks()[0];
        let start = state(network, 3);
        let sgd = Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.01 };
        let (images, labels) = batch(network, 4, 0);
        let mut trainer = oracle(network, QuantizerKind::Wrpn);
        trainer.load(&start).unwrap();
        let slopes = |state: &Weights| {
            reference::gradients(network, &reference::values(state), &images, &labels, 0)
        };
        let first = slopes(&trainer.weights());
        trainer.train_step(&Batch::labelled(&images, &labels), sgd).unwrap();
        let second = slopes(&trainer.weights());
        trainer.train_step(&Batch::labelled(&images, &labels), sgd).unwrap();
        for (name, Parameter { values, .. }) in &trainer.weights().0 {
            let expected: Vec<f32> = (0..values.len())
                .map(|i| {
                    let w = f64::from(start.0[name].values[i]);
                    reference::two_sgd_steps(w, [first[name][i], second[name][i]], sgd) as f32
                })
                .collect();
            close_values(values, &expected, TOLERANCE, name);
        }
    }

    /// The state with the weights of quantizable layers replaced by what the quantizer makes of them.
    fn quantized(network: &Network, state: &Weights, quantizer: &dyn Quantizer) -> Weights {
        let mut state = state.clone();
        let nodes = network.nodes().iter().enumerate();
        let layers = nodes.filter(|(_, node)| node.op.has_weights());
        for ((index, node), &bits) in layers.zip(some_bits(network).iter()) {
            let values =
                &mut state.0.get_mut(&ParameterRole::Weight.name(&node.name)).unwrap().values;
            let float = values.clone();
            let weights = layer_weights(network, index, &float).unwrap();
            quantizer.fake_quantize(weights, bits, values).unwrap();
            assert_ne!(*values, float);
        }
        state
    }

    #[test]
    fn bits_quantize_weights_in_every_pass_and_gradients_pass_through() {
        for network in networks() {
            for &kind in QuantizerKind::ALL {
                let context =
                    |name: &str| format!("network `{}`, {kind:?}: {name}", network.name());
                let quantizer = kind.build();
                let start = state(&network, 13);
                let replaced = quantized(&network, &start, &*quantizer);
                let (images, labels) = batch(&network, 5, 1);
                let [mut by_bits, mut by_hand] = [(); 2].map(|()| oracle(&network, kind));
                by_bits.load(&start).unwrap();
                by_bits.set_bits(Some(&some_bits(&network))).unwrap();
                by_hand.load(&replaced).unwrap();
                let logits = [&mut by_bits, &mut by_hand].map(|t| t.logits(&images).unwrap());
                close_values(&logits[0], &logits[1], TOLERANCE, &context("logits"));
                let losses = [&mut by_bits, &mut by_hand].map(|trainer| {
                    trainer.train_step(&Batch::labelled(&images, &labels), PLAIN).unwrap()
                });
                close_values(&losses[..1], &losses[1..], TOLERANCE, &context("loss"));

                // The gradient by the quantized weights is what the quantizer hands on.
                let (by_bits, by_hand) = (by_bits.weights(), by_hand.weights());
                let nodes = network.nodes().iter().enumerate();
                let layers = nodes.filter(|(_, node)| node.op.has_weights());
                for ((index, node), &bits) in layers.zip(some_bits(&network).iter()) {
                    let name = ParameterRole::Weight.name(&node.name);
                    let change = |before: &Weights, after: &Weights| -> Vec<f32> {
                        let pairs = before.0[&name].values.iter().zip(&after.0[&name].values);
                        pairs.map(|(before, after)| before - after).collect()
                    };
                    let handed = change(&replaced, &by_hand);
                    let mut expected = vec![0.0; handed.len()];
                    let weights = layer_weights(&network, index, &start.0[&name].values).unwrap();
                    quantizer.backward(weights, bits, &handed, &mut expected).unwrap();
                    let got = change(&start, &by_bits);
                    close_values(&got, &expected, TOLERANCE, &context(&name));
                }
            }
        }
    }

    #[test]
    fn padding_is_never_the_maximum_and_not_in_the_mean() {
        let pooled = |op| {
            let network = Network::builder("pool", [1, 2, 2])
                .layer("pool", op, &[])
                .flatten("flatten")
                .linear("fc", 1)
                .build()
                .unwrap();
            let mut trainer = oracle(&network, QuantizerKind::Wrpn);
            let shape = network.profiles()[0].weights() as usize;
            let mut state = initial_weights(&network, 0);
            state.0.get_mut("fc.weight").unwrap().values = vec![1.0; shape];
            state.0.get_mut("fc.bias").unwrap().values = vec![0.0];
            trainer.load(&state).unwrap();
            trainer.logits(&[-1.0, -2.0, -3.0, -4.0]).unwrap()
        };
        let pool = Pool2d::new(2, 2).padding(1);
        // Every window holds one pixel and three of padding.
        assert_eq!(pooled(Op::MaxPool(pool)), [-10.0]);
        assert_eq!(pooled(Op::AvgPool(pool)), [-10.0]);
    }

    #[test]
    fn layers_that_reach_no_output_stay_as_they_are() {
        let network = Network::builder("dead end", [1, 4, 4])
            .conv("dead", Conv2d::new(2, 3))
            .flatten("flatten")
            .from("input")
            .linear("fc", 2)
            .build()
            .unwrap();
        let mut trainer = oracle(&network, QuantizerKind::Wrpn);
        let before = trainer.weights();
        let (images, labels) = batch(&network, 3, 0);
        trainer.train_step(&Batch::labelled(&images, &labels), PLAIN).unwrap();
        let after = trainer.weights();
        assert_eq!(after.0["dead.weight"], before.0["dead.weight"]);
        assert_ne!(after.0["fc.weight"], before.0["fc.weight"]);
    }

    #[test]
    fn a_hopeless_loss_is_returned() {
        let network = &networks()[0];
        let mut trainer = oracle(network, QuantizerKind::Wrpn);
        let (mut images, labels) = batch(network, 2, 0);
        images[0] = f32::NAN;
        assert!(trainer.train_step(&Batch::labelled(&images, &labels), PLAIN).unwrap().is_nan());
    }
}
