//! What every kind of layer does, and the memory that layers share.

use releq_core::{ParameterRole, Shape};
use releq_kernels::{FloatScratch, Rectifier};
use releq_quant::ActivationGrid;

use super::affine::Affine;
use crate::Sgd;

/// One layer of the native trainer. Images are channels-last; a batch is one slice.
///
/// Gradients travel as owned buffers, so that a layer can turn one into the next in place.
pub(super) trait Layer: Send {
    /// Takes the weights as they are used from now on, perhaps quantized, and what becomes of the outputs.
    fn prepare(&mut self, weights: &[f32], bias: Option<&[f32]>, rectifier: Rectifier) {
        let _ = (weights, bias, rectifier);
    }

    /// Takes the grid that it rounds to from now on, if it rounds.
    fn round_to(&mut self, grid: Option<ActivationGrid>) {
        let _ = grid;
    }

    /// What it does to every channel in evaluation, if that does not depend on other channels or pixels.
    fn affine(&self, parameters: &Parameters) -> Option<Affine> {
        let _ = parameters;
        None
    }

    /// Whether `out` comes with the first input in it, to be changed in place; `inputs` are the others then.
    fn is_in_place(&self) -> bool {
        false
    }

    /// Whether [`backward`](Self::backward) looks at what the layer gave.
    fn keeps_output(&self) -> bool {
        false
    }

    /// Writes all of `out`.
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        parameters: &mut Parameters,
        pass: &mut Pass<'_>,
        out: &mut [f32],
    );

    /// Writes the gradients of the parameters, and hands gradients on to the inputs.
    fn backward(&mut self, back: Backward<'_>, parameters: &mut Parameters, pass: &mut Pass<'_>);
}

/// One pass over the network.
pub(super) struct Pass<'a> {
    pub(super) batch: usize,
    /// Number of the training step; `None` in evaluation.
    pub(super) step: Option<u64>,
    pub(super) scratch: &'a mut FloatScratch,
    pub(super) buffers: &'a mut Buffers,
}

/// What a layer's backward pass works on.
pub(super) struct Backward<'a> {
    /// The layer's input; empty for layers that work in place.
    pub(super) inputs: &'a [&'a [f32]],
    /// What went out; empty unless the layer keeps it.
    pub(super) output: &'a [f32],
    /// Gradient of what went out.
    pub(super) gradient: Vec<f32>,
    pub(super) upstream: Upstream<'a>,
}

/// The way to the gradients of a layer's inputs.
pub(super) struct Upstream<'a> {
    /// Where every input comes from; `None` is the network's input.
    pub(super) sources: &'a [Option<usize>],
    /// The gradients that have arrived so far, by source.
    pub(super) gradients: &'a mut [Option<Vec<f32>>],
}

impl Upstream<'_> {
    /// Whether the gradient of this input is asked for.
    pub(super) fn wants(&self, input: usize) -> bool {
        self.sources[input].is_some()
    }

    /// Hands over the gradient of an input.
    pub(super) fn hand_on(&mut self, input: usize, gradient: Vec<f32>, buffers: &mut Buffers) {
        let Some(source) = self.sources[input] else { return buffers.give(gradient) };
        match &mut self.gradients[source] {
            Some(sum) => {
                for (sum, gradient) in sum.iter_mut().zip(&gradient) {
                    *sum += gradient;
                }
                buffers.give(gradient);
            }
            empty => *empty = Some(gradient),
        }
    }

    /// Lets `write(gradient, accumulate)` write the gradient of an input, of `len` values, or add it to what is
    /// there.
    pub(super) fn write(
        &mut self,
        input: usize,
        len: usize,
        buffers: &mut Buffers,
        write: impl FnOnce(&mut [f32], bool),
    ) {
        let Some(source) = self.sources[input] else { return };
        match &mut self.gradients[source] {
            Some(sum) => write(sum, true),
            empty => {
                let mut gradient = buffers.take(len);
                write(&mut gradient, false);
                *empty = Some(gradient);
            }
        }
    }
}

/// Buffers that are not in use, recycled between layers and steps.
#[derive(Default)]
pub(super) struct Buffers(pub(super) Vec<Vec<f32>>);

impl Buffers {
    /// `len` values, whatever they are.
    pub(super) fn take(&mut self, len: usize) -> Vec<f32> {
        let fitting = self.0.iter().enumerate().filter(|(_, buffer)| buffer.capacity() >= len);
        // The tightest, and of equals the one given back last, which is the one in the cache.
        let tightest = fitting.min_by_key(|(index, b)| (b.capacity(), usize::MAX - index));
        if let Some((index, _)) = tightest {
            let mut buffer = self.0.remove(index);
            buffer.resize(len, 0.0);
            return buffer;
        }
        // None is large enough: the largest gives way to a larger one.
        let largest = self.0.iter().enumerate().max_by_key(|(_, buffer)| buffer.capacity());
        if let Some((index, _)) = largest {
            self.0.remove(index);
        }
        vec![0.0; len]
    }

    pub(super) fn give(&mut self, buffer: Vec<f32>) {
        self.0.push(buffer);
    }
}

/// What a layer owns by name.
#[derive(Default)]
pub(super) struct Parameters {
    pub(super) weight: Option<Trained>,
    pub(super) bias: Option<Trained>,
    /// Running mean and variance.
    pub(super) running: [Vec<f32>; 2],
    /// Ranges of activations.
    pub(super) ranges: Vec<f32>,
    /// The weights as the layer uses them, perhaps quantized.
    pub(super) used: Vec<f32>,
    /// What they are quantized within, once that has been found.
    pub(super) clips: Option<Vec<f32>>,
}

impl Parameters {
    /// The parameter of this role, where the optimizer adjusts it.
    pub(super) fn trained(&self, role: ParameterRole) -> Option<&Trained> {
        match role {
            ParameterRole::Weight => self.weight.as_ref(),
            ParameterRole::Bias => self.bias.as_ref(),
            ParameterRole::RunningMean | ParameterRole::RunningVar | ParameterRole::Ranges => None,
        }
    }

    /// As [`trained`](Self::trained), to change it.
    pub(super) fn trained_mut(&mut self, role: ParameterRole) -> Option<&mut Trained> {
        match role {
            ParameterRole::Weight => self.weight.as_mut(),
            ParameterRole::Bias => self.bias.as_mut(),
            ParameterRole::RunningMean | ParameterRole::RunningVar | ParameterRole::Ranges => None,
        }
    }
}

/// Trained numbers, their gradient, their optimizer's memory.
pub(super) struct Trained {
    pub(super) values: Vec<f32>,
    pub(super) gradient: Vec<f32>,
    pub(super) velocity: Vec<f32>,
}

impl Trained {
    pub(super) fn new(values: Vec<f32>) -> Self {
        // Two of `vec!`: memory of zeros costs nothing until a training step writes it, a copy of it does.
        let len = values.len();
        Self { values, gradient: vec![0.0; len], velocity: vec![0.0; len] }
    }

    pub(super) fn step(&mut self, sgd: Sgd) {
        let state = self.values.iter_mut().zip(&mut self.velocity);
        for ((value, velocity), gradient) in state.zip(&self.gradient) {
            *velocity = sgd.momentum * *velocity + (gradient + sgd.weight_decay * *value);
            *value -= sgd.learning_rate * *velocity;
        }
    }
}

/// Channels of a pixel and pixels of an image; a vector is one pixel.
pub(super) fn pixels(shape: Shape) -> (usize, usize) {
    match shape {
        Shape::Image { channels, height, width } => (channels, height * width),
        Shape::Vector { features } => (features, 1),
    }
}

/// `[rows, columns]` to `[columns, rows]`.
pub(super) fn transpose(from: &[f32], columns: usize, to: &mut [f32]) {
    let rows = from.len() / columns;
    for (column, values) in to.chunks_exact_mut(rows).enumerate() {
        for (value, row) in values.iter_mut().zip(from.chunks_exact(columns)) {
            *value = row[column];
        }
    }
}

/// `[batch, channels, area]` to `[batch, area, channels]`.
pub(super) fn to_channels_last(from: &[f32], channels: usize, area: usize, to: &mut [f32]) {
    for (from, to) in from.chunks_exact(channels * area).zip(to.chunks_exact_mut(channels * area)) {
        transpose(from, area, to);
    }
}

/// `[batch, area, channels]` to `[batch, channels, area]`.
pub(super) fn to_channels_first(from: &[f32], channels: usize, area: usize, to: &mut [f32]) {
    // The transpose with the roles of the two sides changed.
    to_channels_last(from, area, channels, to);
}
