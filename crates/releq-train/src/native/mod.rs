//! A CPU trainer without a tensor library: recycled channels-last buffers, direct convolutions.
//!
//! One file for each layer kind; [`plan`](plan::plan) chooses between them.

mod activation;
mod affine;
mod batch_norm;
mod channels;
mod conv;
mod elementwise;
mod fake_quantize;
mod flatten;
mod layer;
mod linear;
mod loss;
mod observer;
mod plan;
mod pool;
mod product;
mod response_norm;
mod scale_shift;
mod shortcut;

use std::{collections::BTreeMap, fmt, sync::Arc};

use releq_core::{
    Bitwidth, BitwidthAssignment, Network, Parameter, ParameterRole, Weights, layer_parameters,
};
use releq_kernels::{FloatPrecision, FloatScratch, Isa, Rectifier};
use releq_quant::Quantizer;

use self::{
    layer::{Backward, Buffers, Pass, Trained, Upstream, to_channels_last},
    observer::Observer,
    plan::{Unit, plan},
};
use crate::{
    Batch, Moments, OptimizerState, Sgd, TrainError, Trainer, TrainerState,
    correction::check_observed,
    initial_weights,
    trainer::{activation_grid, layer_bits, layer_weights, pixels_of},
};

/// Values of the largest layer's output in one pass without gradients; it bounds the number of images, and
/// with 4 bytes each the values stay in the cache.
const INFERENCE_VALUES: usize = 1 << 18;
/// Images in such a pass, at least.
const INFERENCE_BATCH: usize = 16;

/// Trains a network on one thread of the CPU, several times faster than general tensors do.
///
/// Images lie channels-last between the layers; convolutions read them in place; ReLU and ReLU6 are part of the
/// layer before them; weights are quantized and packed once in a step. It covers every operation.
///
/// One operation is slow: a local response norm with another exponent than 0.75 takes 7 ns a value in inference and
/// 20 in training, six times as long as with that exponent (one core of an Intel Xeon, Sapphire Rapids).
///
/// Equal calls give equal bits on any thread. Processors of other instruction sets ([`Isa`]) may differ in
/// the last bits.
pub struct NativeTrainer {
    network: Network,
    quantizer: Arc<dyn Quantizer>,
    isa: Isa,
    /// What [`set_bits`](Trainer::set_bits) was given.
    assignment: Option<BitwidthAssignment>,
    units: Vec<Unit>,
    /// The unit that gives the output.
    output: Option<usize>,
    steps: u64,
    /// What the packed weights are for.
    prepared: Option<Mode>,
    scratch: FloatScratch,
    buffers: Buffers,
    /// What every unit gave, as long as somebody needs it.
    values: Vec<Option<Vec<f32>>>,
    gradients: Vec<Option<Vec<f32>>>,
}

/// Sees what a layer gives for a batch, by its index in the network; `None` is the input.
pub type Visit<'v> = dyn FnMut(Option<usize>, &mut [f32]) + 'v;

/// Whoever looks at what the layers give in a pass.
enum Watcher<'w, 'v> {
    Nobody,
    /// Sees, and may change, what every layer gives in evaluation.
    Visit(&'w mut Visit<'v>),
    Observer(&'w mut Observer<'v>),
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Train,
    /// Batch norms are part of the convolutions before them.
    Evaluate,
    /// As evaluation, but every layer by itself: an observer sees values before norms and rectifiers.
    Observe,
}

impl fmt::Debug for NativeTrainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeTrainer")
            .field("network", &self.network.name())
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl NativeTrainer {
    /// A trainer of `network` with the best instructions of this processor, and with the weights of
    /// [`initial_weights`] for seed 0.
    ///
    /// # Errors
    /// [`TrainError::Unsupported`], naming the first layer that this trainer does not cover.
    pub fn new(network: &Network, quantizer: Arc<dyn Quantizer>) -> Result<Self, TrainError> {
        Self::with_isa(network, quantizer, Isa::best())
    }

    /// As [`new`](Self::new), with the instructions of `isa`.
    ///
    /// # Errors
    /// As [`new`](Self::new), or where this processor lacks the instructions.
    pub fn with_isa(
        network: &Network,
        quantizer: Arc<dyn Quantizer>,
        isa: Isa,
    ) -> Result<Self, TrainError> {
        Self::with_precision(network, quantizer, isa, FloatPrecision::Fp32)
    }

    /// As [`with_isa`](Self::with_isa), with products of convolutions and fully connected layers in `precision`. Sums, weights,
    /// norms, the loss and the optimizer stay in f32, and so do depthwise convolutions and layers of fewer than 8 input channels
    /// in a group.
    ///
    /// # Errors
    /// As [`with_isa`](Self::with_isa), and [`TrainError::Device`] where the processor has no products of `precision`.
    pub fn with_precision(
        network: &Network,
        quantizer: Arc<dyn Quantizer>,
        isa: Isa,
        precision: FloatPrecision,
    ) -> Result<Self, TrainError> {
        if precision != FloatPrecision::Fp32 {
            precision.check(isa).map_err(|error| TrainError::Device {
                backend: "native-bf16",
                reason: error.to_string(),
            })?;
        }
        let plan = plan(network, isa, precision)?;
        let none = || plan.units.iter().map(|_| None).collect();
        let mut trainer = Self {
            network: network.clone(),
            quantizer,
            isa,
            assignment: None,
            values: none(),
            gradients: none(),
            units: plan.units,
            output: plan.output,
            steps: 0,
            prepared: None,
            scratch: FloatScratch::default(),
            buffers: Buffers::default(),
        };
        trainer.load(&initial_weights(network, 0))?;
        Ok(trainer)
    }

    /// Quantizes the weights of every layer that has a bitwidth, and lets the layers pack them.
    fn prepare(&mut self, mode: Mode) -> Result<(), TrainError> {
        if self.prepared == Some(mode) {
            return Ok(());
        }
        for index in 0..self.units.len() {
            let unit = &mut self.units[index];
            let parameters = &mut unit.parameters;
            if !parameters.ranges.is_empty() {
                let grid =
                    |bits| activation_grid(&self.network, unit.node, &parameters.ranges, bits);
                unit.layer.round_to(unit.bits.map(grid).transpose()?);
            }
            let Some(weight) = &parameters.weight else { continue };
            parameters.used.resize(weight.values.len(), 0.0);
            match unit.bits {
                Some(bits) => {
                    let weights = layer_weights(&self.network, unit.node, &weight.values)?;
                    if parameters.clips.is_none() {
                        parameters.clips = self.quantizer.clips(weights, bits)?;
                    }
                    let clips = parameters.clips.as_deref().unwrap_or_default();
                    let used = &mut parameters.used;
                    self.quantizer.fake_quantize_within(weights, bits, clips, used)?;
                }
                None => parameters.used.copy_from_slice(&weight.values),
            }
            let mut used = std::mem::take(&mut parameters.used);
            let bias = parameters.bias.as_ref().map(|bias| bias.values.clone());
            let (mut bias, mut rectifier) = (bias, unit.rectifier);
            if let (Mode::Evaluate, Some(norm)) = (mode, unit.norm) {
                let norm = &self.units[norm];
                if let Some(affine) = norm.layer.affine(&norm.parameters) {
                    bias = Some(affine.fold(&mut used, bias.as_deref()));
                    rectifier = norm.rectifier;
                }
            }
            if mode == Mode::Observe {
                rectifier = Rectifier::None;
            }
            let unit = &mut self.units[index];
            unit.layer.prepare(&used, bias.as_deref(), rectifier);
            unit.parameters.used = used;
        }
        self.prepared = Some(mode);
        Ok(())
    }

    /// Leaves the outputs that are still needed in `values`; fails only where an observer does.
    fn forward(
        &mut self,
        input: &[f32],
        batch: usize,
        mode: Mode,
        mut watcher: Watcher<'_, '_>,
    ) -> Result<(), TrainError> {
        let step = (mode == Mode::Train).then_some(self.steps);
        for index in 0..self.units.len() {
            let values = &mut self.values;
            let unit = &mut self.units[index];
            let first = unit.sources[0];
            // In evaluation, a batch norm behind a convolution is part of its weights.
            let done = mode == Mode::Evaluate && unit.absorbed;
            let mut out = match first {
                Some(source) if unit.takes_over || done => {
                    values[source].take().unwrap_or_default()
                }
                _ => self.buffers.take(batch * unit.values),
            };
            if !done {
                let of = |source: &Option<usize>| match source {
                    None => input,
                    Some(source) => values[*source].as_deref().unwrap_or_default(),
                };
                let mut inputs: Vec<&[f32]> = unit.sources.iter().map(of).collect();
                if unit.layer.is_in_place() {
                    let first = inputs.remove(0);
                    if !unit.takes_over {
                        out.copy_from_slice(first);
                    }
                }
                let (network, parameters) = (&self.network, &mut unit.parameters);
                let kept = match (&mut watcher, inputs.first()) {
                    (Watcher::Observer(observer), Some(x)) => {
                        observer.before(network, unit.node, x, parameters)?
                    }
                    _ => None,
                };
                let mut pass =
                    Pass { batch, step, scratch: &mut self.scratch, buffers: &mut self.buffers };
                unit.layer.forward(&inputs, parameters, &mut pass, &mut out);
                if let Some(kept) = kept {
                    kept.put_back(parameters);
                }
                if let Watcher::Observer(observer) = &mut watcher
                    && network.nodes()[unit.node].op.has_weights()
                {
                    observer.after(network, unit.node, &mut out)?;
                    unit.rectifier.rectify(&mut out);
                }
            }
            if let Watcher::Visit(visit) = &mut watcher
                && unit.norm.is_none()
            {
                visit(Some(unit.last), &mut out);
            }
            values[index] = Some(out);
            if mode != Mode::Train {
                self.release_read(index);
            }
        }
        Ok(())
    }

    /// Gives back what only this unit still needed, outside of training.
    fn release_read(&mut self, index: usize) {
        let sources = self.units[index].sources.iter().flatten();
        for source in sources.copied().chain([index]) {
            if self.units[source].last_reader == index {
                self.buffers.0.extend(self.values[source].take());
            }
        }
    }

    /// From the gradient of the network's output to the gradients of all parameters; gives all buffers back.
    fn backward(&mut self, input: &[f32], batch: usize) -> Result<(), TrainError> {
        for index in (0..self.units.len()).rev() {
            let unit = &mut self.units[index];
            let gradient = self.gradients[index].take();
            unit.reached = gradient.is_some();
            if let Some(gradient) = gradient {
                let of = |source: &Option<usize>| match source {
                    None => input,
                    Some(source) => self.values[*source].as_deref().unwrap_or_default(),
                };
                let inputs: Vec<&[f32]> = unit.sources.iter().map(of).collect();
                let back = Backward {
                    inputs: &inputs,
                    output: self.values[index].as_deref().unwrap_or_default(),
                    gradient,
                    upstream: Upstream { sources: &unit.sources, gradients: &mut self.gradients },
                };
                let mut pass = Pass {
                    batch,
                    step: Some(self.steps),
                    scratch: &mut self.scratch,
                    buffers: &mut self.buffers,
                };
                unit.layer.backward(back, &mut unit.parameters, &mut pass);
                if let (Some(weight), Some(bits)) = (&mut unit.parameters.weight, unit.bits) {
                    // `used` is made anew before its next use: it takes the gradient here.
                    let used = &mut unit.parameters.used;
                    used.copy_from_slice(&weight.gradient);
                    let weights = layer_weights(&self.network, unit.node, &weight.values)?;
                    self.quantizer.backward(weights, bits, used, &mut weight.gradient)?;
                }
            }
            self.buffers.0.extend(self.values[index].take());
        }
        Ok(())
    }

    /// Images as the layers take them.
    fn channels_last(&mut self, images: &[f32]) -> Vec<f32> {
        let [channels, height, width] = self.network.input();
        let mut input = self.buffers.take(images.len());
        to_channels_last(images, channels, height * width, &mut input);
        input
    }
}

impl NativeTrainer {
    /// The logits of images, `[images, classes]`, with a look at every activation on the way: `visit` gets the index of a
    /// layer in the network, `None` for the input, and what it gives for a batch, and may change it.
    ///
    /// Layers that need no pass of their own, batch norms behind convolutions and rectifiers behind either, are part of
    /// the layer before them, so only the last of those is visited.
    ///
    /// # Shapes
    /// - `images`: `[images, channels, height, width]`
    /// - what is visited: `[images, height, width, channels]`, or `[images, features]`
    ///
    /// # Errors
    /// As [`logits`](Trainer::logits).
    pub fn visited_logits(
        &mut self,
        images: &[f32],
        visit: &mut Visit<'_>,
    ) -> Result<Vec<f32>, TrainError> {
        let sample = pixels_of(&self.network, images)?;
        self.prepare(Mode::Evaluate)?;
        let mut logits = Vec::with_capacity(images.len() / sample * self.network.outputs());
        let largest = self.units.iter().map(|unit| unit.values).max().unwrap_or(1);
        let batch = (INFERENCE_VALUES / largest).max(INFERENCE_BATCH);
        for images in images.chunks(batch * sample) {
            let mut input = self.channels_last(images);
            visit(None, &mut input);
            self.forward(&input, images.len() / sample, Mode::Evaluate, Watcher::Visit(visit))?;
            if let Some(output) = self.output.and_then(|output| self.values[output].take()) {
                logits.extend_from_slice(&output);
                self.buffers.give(output);
            }
            self.buffers.give(input);
        }
        Ok(logits)
    }

    fn optimizer(&self) -> OptimizerState {
        let mut velocity = Weights::default();
        for unit in &self.units {
            let name = &self.network.nodes()[unit.node].name;
            for (role, shape) in layer_parameters(&self.network, unit.node) {
                if let Some(trained) = unit.parameters.trained(role) {
                    let values = trained.velocity.clone();
                    velocity.0.insert(role.name(name), Parameter { shape, values });
                }
            }
        }
        OptimizerState { velocity, steps: self.steps }
    }

    fn set_optimizer(&mut self, state: &OptimizerState) {
        for unit in &mut self.units {
            let name = &self.network.nodes()[unit.node].name;
            for (role, _) in layer_parameters(&self.network, unit.node) {
                let saved = state.velocity.0.get(&role.name(name));
                if let Some((trained, saved)) = unit.parameters.trained_mut(role).zip(saved) {
                    trained.velocity.clone_from(&saved.values);
                }
            }
        }
        self.steps = state.steps;
    }

    /// The clips that weights are quantized within, or will be from the next use on: a state does not depend on who has looked.
    fn clips(&self) -> BTreeMap<String, Vec<f32>> {
        let of = |unit: &Unit| {
            let name = self.network.nodes()[unit.node].name.clone();
            if let Some(held) = &unit.parameters.clips {
                return Some((name, held.clone()));
            }
            let (weight, bits) = unit.parameters.weight.as_ref().zip(unit.bits)?;
            let weights = layer_weights(&self.network, unit.node, &weight.values).ok()?;
            Some((name, self.quantizer.clips(weights, bits).ok()??))
        };
        self.units.iter().filter_map(of).collect()
    }

    fn quantize(&mut self, layers: Vec<Option<Bitwidth>>, bits: Option<&BitwidthAssignment>) {
        let mut layers = layers.into_iter();
        let nodes = self.network.nodes();
        for unit in self.units.iter_mut().filter(|unit| nodes[unit.node].op.is_quantizable()) {
            unit.bits = layers.next().flatten();
            unit.parameters.clips = None;
        }
        self.assignment = bits.cloned();
        self.prepared = None;
    }
}

impl Trainer for NativeTrainer {
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
        for unit in &mut self.units {
            let name = &self.network.nodes()[unit.node].name;
            unit.parameters.clips = state.clips.get(name).cloned();
        }
        Ok(())
    }

    fn load(&mut self, state: &Weights) -> Result<(), TrainError> {
        state.check(&self.network)?;
        for unit in &mut self.units {
            let name = &self.network.nodes()[unit.node].name;
            unit.parameters.clips = None;
            for (role, _) in layer_parameters(&self.network, unit.node) {
                let Some(Parameter { values, .. }) = state.0.get(&role.name(name)) else {
                    continue;
                };
                let trained = || Some(Trained::new(values.clone()));
                match role {
                    ParameterRole::Weight => unit.parameters.weight = trained(),
                    ParameterRole::Bias => unit.parameters.bias = trained(),
                    ParameterRole::RunningMean => unit.parameters.running[0].clone_from(values),
                    ParameterRole::RunningVar => unit.parameters.running[1].clone_from(values),
                    ParameterRole::Ranges => unit.parameters.ranges.clone_from(values),
                }
            }
        }
        self.steps = 0;
        self.prepared = None;
        Ok(())
    }

    fn weights(&self) -> Weights {
        let mut state = Weights::default();
        for unit in &self.units {
            let name = &self.network.nodes()[unit.node].name;
            let parameters = &unit.parameters;
            for (role, shape) in layer_parameters(&self.network, unit.node) {
                let values = match role {
                    ParameterRole::Weight | ParameterRole::Bias => {
                        parameters.trained(role).map(|trained| trained.values.clone())
                    }
                    ParameterRole::RunningMean => Some(parameters.running[0].clone()),
                    ParameterRole::RunningVar => Some(parameters.running[1].clone()),
                    ParameterRole::Ranges => Some(parameters.ranges.clone()),
                };
                if let Some(values) = values {
                    state.0.insert(role.name(name), Parameter { shape, values });
                }
            }
        }
        state
    }

    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
        let Batch { images, target } = *batch;
        let batch = batch.check(&self.network)?;
        let Some(output) = self.output else { return Err(TrainError::EmptyBatch) };
        self.prepare(Mode::Train)?;
        let input = self.channels_last(images);
        self.forward(&input, batch, Mode::Train, Watcher::Nobody)?;
        let logits = self.values[output].as_deref().unwrap_or_default();
        let mut gradient = self.buffers.take(logits.len());
        let loss = loss::loss(logits, target, batch, &mut gradient);
        // Nothing may be left of a step that failed.
        self.gradients.iter_mut().for_each(|gradient| *gradient = None);
        self.gradients[output] = Some(gradient);
        self.prepared = None;
        self.backward(&input, batch)?;
        self.buffers.give(input);
        for unit in self.units.iter_mut().filter(|unit| unit.reached) {
            let parameters = &mut unit.parameters;
            for trained in parameters.weight.iter_mut().chain(&mut parameters.bias) {
                trained.step(optimizer);
            }
        }
        self.steps += 1;
        Ok(loss)
    }

    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        self.visited_logits(images, &mut |_, _| ())
    }

    fn moments(
        &mut self,
        images: &[f32],
        restore: Option<&[Moments]>,
    ) -> Result<Vec<Moments>, TrainError> {
        let batch = check_observed(&self.network, images, restore)?;
        self.prepare(Mode::Observe)?;
        let mut observer = Observer::new(self.isa, restore);
        let input = self.channels_last(images);
        let watcher = Watcher::Observer(&mut observer);
        let result = self.forward(&input, batch, Mode::Observe, watcher);
        self.buffers.give(input);
        self.buffers.0.extend(self.values.iter_mut().filter_map(Option::take));
        result.map(|()| observer.seen)
    }
}

#[cfg(test)]
mod tests {
    use releq_core::{Conv2d, Op, Pool2d};
    use releq_quant::QuantizerKind;

    use super::*;
    use crate::{
        oracle::{batch, check_trainer, close_values, networks, rounding_networks, state},
        reference,
    };

    fn native(network: &Network, quantizer: QuantizerKind) -> Box<dyn Trainer> {
        Box::new(NativeTrainer::new(network, quantizer.build()).unwrap())
    }

    /// What the common networks lack: odd sides with stride and padding in a chain, ReLU that cannot be folded,
    /// sums of more than two, a layer that reaches no output, an image that is flattened late.
    fn more_networks() -> Vec<Network> {
        let strided = Network::builder("strided chain", [3, 9, 11])
            .conv("conv1", Conv2d::new(8, 3).stride(2).padding(1))
            .relu("relu1")
            .conv("conv2", Conv2d::new(5, 4).padding(3).without_bias())
            .layer("pool1", Op::MaxPool(Pool2d::new(3, 2).padding(1)), &[])
            .conv("conv3", Conv2d::new(7, 1).stride(3))
            .flatten("flatten")
            .layer("fc", Op::Linear { out_features: 4, bias: false }, &[]);
        let tangled = Network::builder("tangled", [4, 7, 5])
            .relu("relu0")
            .conv("depthwise", Conv2d::new(4, 3).stride(2).padding(1).groups(4))
            .batch_norm("bn1")
            .relu("relu1")
            .conv("wide", Conv2d::new(12, 1).groups(2))
            .batch_norm("bn2")
            .conv("dead", Conv2d::new(3, 3).padding(1))
            .from("relu1")
            .batch_norm("bn3")
            .conv("other", Conv2d::new(12, 3).padding(1))
            .from("relu1")
            .add("sum", &["wide", "other", "bn2"])
            .relu("relu2")
            .dropout("drop", 0.2)
            .max_pool("pool", 2, 1)
            .relu("relu3")
            .flatten("flatten")
            .linear("fc1", 9)
            .relu("relu4")
            .linear("fc2", 3)
            .relu("relu5");
        let square = Network::builder("square", [8, 1, 1])
            .conv("conv1", Conv2d::new(33, 3).padding(1).without_bias())
            .batch_norm("bn1")
            .relu("relu1")
            .flatten("flatten")
            .batch_norm("bn2")
            .linear("fc", 4);
        [strided, tangled, square].map(|builder| builder.build().unwrap()).into()
    }

    #[test]
    fn agrees_with_the_oracle_on_every_operation_and_instruction_set() {
        let all = networks().into_iter().chain(more_networks()).chain(rounding_networks());
        let all: Vec<Network> = all.collect();
        for isa in Isa::available() {
            check_trainer(&all, &mut |network, quantizer| {
                Box::new(NativeTrainer::with_isa(network, quantizer.build(), isa).unwrap())
            });
        }
    }

    #[test]
    fn gradients_in_bf16_are_those_in_f32_up_to_the_rounding_of_operands() {
        // Four layers forward and four backward round two operands each, by at most 2^-9 of their size. There is no
        // rectifier, which would turn what is next to zero into all or nothing.
        const ROUNDING: f32 = 16.0 / 512.0;
        const PLAIN: Sgd = Sgd { learning_rate: 1.0, momentum: 0.0, weight_decay: 0.0 };
        let network = Network::builder("bf16", [8, 9, 11])
            .conv("conv1", Conv2d::new(19, 3).padding(1))
            .conv("conv2", Conv2d::new(24, 3).stride(2).padding(1).without_bias())
            .conv("conv3", Conv2d::new(16, 1))
            .flatten("flatten")
            .linear("fc", 4)
            .build()
            .unwrap();
        let (images, labels) = batch(&network, 16, 0);
        let start = state(&network, 11);
        let step = |isa, precision| {
            let quantizer = QuantizerKind::WrpnScaled.build();
            let mut trainer =
                NativeTrainer::with_precision(&network, quantizer, isa, precision).unwrap();
            trainer.load(&start).unwrap();
            trainer.train_step(&Batch::labelled(&images, &labels), PLAIN).unwrap();
            trainer.weights()
        };
        for isa in Isa::available().filter(|&isa| FloatPrecision::Bf16.check(isa).is_ok()) {
            let (expected, got) =
                (step(isa, FloatPrecision::Fp32), step(isa, FloatPrecision::Bf16));
            for (name, before) in start.0.iter().filter(|(name, _)| name.ends_with(".weight")) {
                let (expected, got) = (&expected.0[name].values, &got.0[name].values);
                let norm = |values: &mut dyn Iterator<Item = f32>| {
                    values.map(|value| value * value).sum::<f32>().sqrt()
                };
                let gradient =
                    before.values.iter().zip(expected).map(|(before, after)| before - after);
                let error = got.iter().zip(expected).map(|(got, expected)| got - expected);
                let (size, off) = (norm(&mut { gradient }), norm(&mut { error }));
                assert!(off <= ROUNDING * size, "{isa}, {name}: {off} of {size}");
                assert!(off > 0.0, "{isa}, {name}: nothing was rounded");
            }
        }
    }

    #[test]
    fn gradients_are_those_of_the_reference() {
        const PLAIN: Sgd = Sgd { learning_rate: 1.0, momentum: 0.0, weight_decay: 0.0 };
        for network in networks().into_iter().chain(more_networks()) {
            let mut trainer = native(&network, QuantizerKind::Wrpn);
            let start = state(&network, 11);
            trainer.load(&start).unwrap();
            let values = reference::values(&start);
            let (images, labels) = batch(&network, 4, 0);
            let loss = trainer.train_step(&Batch::labelled(&images, &labels), PLAIN).unwrap();
            let (logits, _) = reference::forward(&network, &values, &images, Some(0));
            let expected = reference::cross_entropy(&logits, &labels) as f32;
            close_values(&[loss], &[expected], 2e-5, network.name());
            let after = trainer.weights();
            for (name, expected) in reference::gradients(&network, &values, &images, &labels, 0) {
                let (before, after) = (&start.0[&name].values, &after.0[&name].values);
                let got: Vec<f32> = before.iter().zip(after).map(|(b, a)| b - a).collect();
                let expected: Vec<f32> = expected.iter().map(|&v| v as f32).collect();
                close_values(&got, &expected, 2e-5, &format!("{}, {name}", network.name()));
            }
        }
    }

    #[test]
    fn layers_that_reach_no_output_stay_as_they_are() {
        let network = &more_networks()[1];
        let mut trainer = native(network, QuantizerKind::Wrpn);
        let before = trainer.weights();
        let (images, labels) = batch(network, 3, 0);
        let sgd = Sgd { learning_rate: 0.1, momentum: 0.0, weight_decay: 0.1 };
        trainer.train_step(&Batch::labelled(&images, &labels), sgd).unwrap();
        let after = trainer.weights();
        assert_eq!(after.0["dead.weight"], before.0["dead.weight"]);
        assert_ne!(after.0["other.weight"], before.0["other.weight"]);
    }

    #[test]
    fn a_batch_of_one_is_refused_by_batch_norm_and_a_hopeless_loss_returned() {
        let network = &more_networks()[2];
        let mut trainer = native(network, QuantizerKind::Wrpn);
        let before = trainer.weights();
        let sgd = Sgd { learning_rate: 0.1, momentum: 0.0, weight_decay: 0.0 };
        let (mut images, labels) = batch(network, 2, 0);
        let refused =
            trainer.train_step(&Batch::labelled(&images[..8], &labels[..1]), sgd).unwrap_err();
        assert!(refused.to_string().contains("layer `bn1`"), "{refused}");
        assert_eq!(trainer.weights(), before);
        images[0] = f32::NAN;
        assert!(trainer.train_step(&Batch::labelled(&images, &labels), sgd).unwrap().is_nan());
    }

    #[test]
    fn rounded_values_are_on_the_grid_and_gradients_pass_within_it() {
        let network = Network::builder("round", [1, 1, 4])
            .flatten("flatten")
            .layer("fc", Op::Linear { out_features: 2, bias: false }, &[])
            .build()
            .unwrap()
            .with_fake_quantize()
            .unwrap();
        let mut weights = initial_weights(&network, 0);
        weights.0.get_mut("fc.weight").unwrap().values = vec![1.0; 8];
        let bits = [Bitwidth::new(2).unwrap(), Bitwidth::FLOAT];
        let bits = BitwidthAssignment::new(bits.to_vec()).unwrap();
        let images = [-0.4, 0.9, 2.2, 9.0];
        for make in [
            |network: &Network| native(network, QuantizerKind::Wrpn),
            |network: &Network| crate::oracle::oracle(network, QuantizerKind::Wrpn),
        ] {
            let mut trainer = make(&network);
            trainer.load(&weights).unwrap();
            trainer.set_bits(Some(&bits)).unwrap();
            let unknown = trainer.logits(&images).unwrap_err().to_string();
            assert!(unknown.contains("`input.activations` is not known at 2 bits"), "{unknown}");

            let mut known = weights.clone();
            let ranges = &mut known.0.get_mut("input.activations.ranges").unwrap().values;
            ranges[2..4].copy_from_slice(&[0.0, 3.0]);
            trainer.load(&known).unwrap();
            trainer.set_bits(Some(&bits)).unwrap();
            // By hand, on the levels 0 to 3: 0 + 1 + 2 + 3.
            assert_eq!(trainer.logits(&images).unwrap(), [6.0, 6.0]);
            trainer.set_bits(None).unwrap();
            assert_eq!(trainer.logits(&images).unwrap(), [-0.4 + 0.9 + 2.2 + 9.0; 2]);

            let nine = BitwidthAssignment::from_bits([9, 8]).unwrap();
            assert!(trainer.set_bits(Some(&nine)).is_err());
        }
        let grid = releq_quant::ActivationGrid::of_range(0.0, 3.0, bits[0]).unwrap();
        // -0.4 is rounded to 0, 9 is moved to 3.
        assert_eq!(images.map(|value| grid.covers(value)), [true, true, true, false]);
    }

    #[test]
    fn what_the_kernels_refuse_is_named() {
        let network = Network::builder("huge window", [1, 300, 300])
            .max_pool("pool", 300, 1)
            .flatten("flatten")
            .linear("fc", 2)
            .build()
            .unwrap();
        let error =
            NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap_err().to_string();
        assert!(error.contains("layer `pool`") && error.contains("flex"), "{error}");
    }
}
