//! A CPU trainer without a tensor library: channels-last buffers that are allocated once.

use std::fmt;

use releq_core::{Bitwidth, BitwidthAssignment, Conv2d, Network, Op, Pool2d, Shape};
use releq_kernels::{Matrix, matmul};
use releq_quant::Quantizer;

use super::{
    NetworkState, Parameter, Sgd, TrainError, Trainer,
    dropout::dropout_mask,
    state::{Role, layer_parameters},
};

/// Values of one im2col buffer: with 4 bytes each it stays in the second-level cache.
const COLUMNS: usize = 1 << 16;
/// Images in one forward pass without gradients; more are split, which bounds the memory.
const INFERENCE_BATCH: usize = 64;

/// Trains a network on one thread of the CPU, several times faster than general tensors do.
///
/// Images lie channels-last between the layers; convolutions and linear layers are matrix products;
/// weights are quantized once in a step. It covers ungrouped convolutions, linear layers, ReLU, max
/// pooling, flatten and dropout in a chain; [`BurnTrainer`](super::BurnTrainer) covers the rest.
pub struct NativeTrainer {
    network: Network,
    quantizer: Box<dyn Quantizer>,
    layers: Vec<Layer>,
    steps: u64,
    /// The input of the first layer, channels-last.
    input: Vec<f32>,
    columns: Vec<f32>,
}

impl fmt::Debug for NativeTrainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeTrainer")
            .field("network", &self.network.name())
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// One layer with its buffers.
struct Layer {
    op: Op,
    input: Shape,
    output: Shape,
    weight: Option<Trained>,
    bias: Option<Trained>,
    bits: Option<Bitwidth>,
    /// The weights as the layer uses them, perhaps quantized; as the network has them.
    used: Vec<f32>,
    /// The same as a matrix of `[in, out]`, for convolutions.
    kernel: Vec<f32>,
    /// Gradient with respect to `kernel`.
    kernel_gradient: Vec<f32>,
    /// What leaves the layer, channels-last.
    out: Vec<f32>,
    /// Gradient with respect to what leaves the layer.
    gradient: Vec<f32>,
    /// For max pooling, where each maximum came from; for dropout, which values stay.
    chosen: Vec<u32>,
    mask: Vec<f32>,
}

/// Trained numbers, their gradient, their optimizer's memory.
struct Trained {
    shape: Vec<usize>,
    values: Vec<f32>,
    gradient: Vec<f32>,
    velocity: Vec<f32>,
}

impl Trained {
    fn step(&mut self, sgd: Sgd) {
        let state = self.values.iter_mut().zip(&mut self.velocity);
        for ((value, velocity), gradient) in state.zip(&self.gradient) {
            *velocity = sgd.momentum * *velocity + (gradient + sgd.weight_decay * *value);
            *value -= sgd.learning_rate * *velocity;
        }
    }
}

impl NativeTrainer {
    /// A trainer of `network`, with the weights of [`NetworkState::init`] for seed 0.
    ///
    /// # Errors
    /// [`TrainError::Unsupported`], naming the first layer that this trainer does not cover.
    pub fn new(network: &Network, quantizer: Box<dyn Quantizer>) -> Result<Self, TrainError> {
        let mut layers = Vec::with_capacity(network.nodes().len());
        for (index, node) in network.nodes().iter().enumerate() {
            let unsupported = |what: &str| TrainError::Unsupported {
                layer: node.name.clone(),
                trainer: "native",
                what: what.to_owned(),
            };
            match node.op {
                Op::Conv2d(conv) if conv.groups > 1 => {
                    return Err(unsupported("grouped convolutions; the flex backend does"));
                }
                Op::Conv2d(_)
                | Op::Linear { .. }
                | Op::Relu
                | Op::MaxPool(_)
                | Op::Flatten
                | Op::Dropout { .. } => {}
                other => {
                    return Err(unsupported(&format!("{}; the flex backend does", other.kind())));
                }
            }
            if network.sources(index) != [index.checked_sub(1)] {
                return Err(unsupported("branches; the flex backend does"));
            }
            layers.push(Layer {
                op: node.op,
                input: network.input_shape(index),
                output: network.shape(index),
                weight: None,
                bias: None,
                bits: None,
                used: Vec::new(),
                kernel: Vec::new(),
                kernel_gradient: Vec::new(),
                out: Vec::new(),
                gradient: Vec::new(),
                chosen: Vec::new(),
                mask: Vec::new(),
            });
        }
        let mut trainer = Self {
            network: network.clone(),
            quantizer,
            layers,
            steps: 0,
            input: Vec::new(),
            columns: Vec::new(),
        };
        trainer.load(&NetworkState::init(network, 0))?;
        Ok(trainer)
    }

    fn batch_len(&self, images: &[f32]) -> Result<usize, TrainError> {
        let sample: usize = self.network.input().iter().product();
        if images.len().is_multiple_of(sample) {
            Ok(images.len() / sample)
        } else {
            let labels = images.len().div_ceil(sample);
            Err(TrainError::Batch { labels, expected: labels * sample, got: images.len() })
        }
    }

    /// Quantizes the weights of every layer that has a bitwidth and lays them out.
    fn prepare(&mut self) -> Result<(), TrainError> {
        for layer in &mut self.layers {
            let Some(weight) = &layer.weight else { continue };
            layer.used.resize(weight.values.len(), 0.0);
            match layer.bits {
                Some(bits) => {
                    self.quantizer.fake_quantize(&weight.values, bits, &mut layer.used)?;
                }
                None => layer.used.copy_from_slice(&weight.values),
            }
            if let Op::Conv2d(conv) = layer.op {
                layer.kernel.resize(weight.values.len(), 0.0);
                let inputs = weight.values.len() / conv.out_channels;
                let area = conv.kernel * conv.kernel;
                for (out, filter) in layer.used.chunks_exact(inputs).enumerate() {
                    for (index, value) in filter.iter().enumerate() {
                        let row = index % area * (inputs / area) + index / area;
                        layer.kernel[row * conv.out_channels + out] = *value;
                    }
                }
            }
        }
        Ok(())
    }

    /// Fills the outputs of all layers; `training` turns dropout on.
    fn forward(&mut self, images: &[f32], batch: usize, training: bool) {
        let [channels, height, width] = self.network.input();
        to_channels_last(images, batch, channels, height * width, &mut self.input);
        for index in 0..self.layers.len() {
            let (before, after) = self.layers.split_at_mut(index);
            let input = before.last().map_or(&self.input, |layer| &layer.out);
            let layer = &mut after[0];
            layer.out.resize(batch * layer.output.len(), 0.0);
            match layer.op {
                Op::Conv2d(conv) => {
                    if let Some(bias) = &layer.bias {
                        for pixel in layer.out.chunks_exact_mut(conv.out_channels) {
                            pixel.copy_from_slice(&bias.values);
                        }
                    } else {
                        layer.out.fill(0.0);
                    }
                    let geometry = Geometry::new(conv, layer.input, layer.output);
                    for chunk in geometry.chunks(batch) {
                        geometry.im2col(input, &chunk, &mut self.columns);
                        let pixels = chunk.len() * geometry.out_pixels;
                        let columns = Matrix::new(&self.columns, pixels, geometry.patch);
                        let kernel = Matrix::new(&layer.kernel, geometry.patch, conv.out_channels);
                        let from = chunk.start * geometry.out_pixels * conv.out_channels;
                        let out = &mut layer.out[from..from + pixels * conv.out_channels];
                        matmul(columns, kernel, out, true);
                    }
                }
                Op::Linear { out_features, .. } => {
                    if let Some(bias) = &layer.bias {
                        for row in layer.out.chunks_exact_mut(out_features) {
                            row.copy_from_slice(&bias.values);
                        }
                    } else {
                        layer.out.fill(0.0);
                    }
                    let inputs = layer.input.len();
                    let weight = Matrix::new(&layer.used, out_features, inputs).transposed();
                    matmul(Matrix::new(input, batch, inputs), weight, &mut layer.out, true);
                }
                Op::Relu => {
                    for (out, value) in layer.out.iter_mut().zip(input) {
                        *out = value.max(0.0);
                    }
                }
                Op::MaxPool(pool) => max_pool(pool, input, layer, batch),
                Op::Flatten => match layer.input {
                    Shape::Image { channels, height, width } => {
                        to_channels_first(input, batch, channels, height * width, &mut layer.out);
                    }
                    Shape::Vector { .. } => layer.out.copy_from_slice(input),
                },
                Op::Dropout { probability } if training => {
                    let mask = dropout_mask(self.steps, index, probability, layer.out.len());
                    // The mask is in the network's order, the values are channels-last.
                    match layer.output {
                        Shape::Image { channels, height, width } => {
                            to_channels_last(
                                &mask,
                                batch,
                                channels,
                                height * width,
                                &mut layer.mask,
                            );
                        }
                        Shape::Vector { .. } => layer.mask = mask,
                    }
                    for ((out, value), mask) in layer.out.iter_mut().zip(input).zip(&layer.mask) {
                        *out = value * mask;
                    }
                }
                _ => layer.out.copy_from_slice(input),
            }
        }
    }

    /// From the gradient of the last layer's output to the gradients of all parameters.
    fn backward(&mut self, batch: usize) -> Result<(), TrainError> {
        for index in (0..self.layers.len()).rev() {
            let (before, after) = self.layers.split_at_mut(index);
            let layer = &mut after[0];
            let (input, mut upstream) = match before.last_mut() {
                Some(previous) => {
                    previous.gradient.resize(previous.out.len(), 0.0);
                    (&previous.out, Some(&mut previous.gradient))
                }
                None => (&self.input, None),
            };
            if let Some(bias) = &mut layer.bias {
                bias.gradient.fill(0.0);
                for row in layer.gradient.chunks_exact(bias.values.len()) {
                    for (sum, gradient) in bias.gradient.iter_mut().zip(row) {
                        *sum += gradient;
                    }
                }
            }
            match layer.op {
                Op::Conv2d(conv) => {
                    let geometry = Geometry::new(conv, layer.input, layer.output);
                    layer.kernel_gradient.clear();
                    layer.kernel_gradient.resize(layer.kernel.len(), 0.0);
                    if let Some(upstream) = upstream.as_deref_mut() {
                        upstream.fill(0.0);
                    }
                    let out = conv.out_channels;
                    for chunk in geometry.chunks(batch) {
                        let pixels = chunk.len() * geometry.out_pixels;
                        let from = chunk.start * geometry.out_pixels * out;
                        let gradient = &layer.gradient[from..from + pixels * out];
                        let gradient = Matrix::new(gradient, pixels, out);
                        geometry.im2col(input, &chunk, &mut self.columns);
                        let columns = Matrix::new(&self.columns, pixels, geometry.patch);
                        matmul(columns.transposed(), gradient, &mut layer.kernel_gradient, true);
                        if let Some(upstream) = upstream.as_deref_mut() {
                            let kernel = Matrix::new(&layer.kernel, geometry.patch, out);
                            matmul(gradient, kernel.transposed(), &mut self.columns, false);
                            geometry.col2im(&self.columns, &chunk, upstream);
                        }
                    }
                    if let Some(weight) = &mut layer.weight {
                        let inputs = geometry.patch;
                        let area = conv.kernel * conv.kernel;
                        for (filter, gradients) in
                            weight.gradient.chunks_exact_mut(inputs).enumerate()
                        {
                            for (index, gradient) in gradients.iter_mut().enumerate() {
                                let row = index % area * (inputs / area) + index / area;
                                *gradient = layer.kernel_gradient[row * out + filter];
                            }
                        }
                    }
                }
                Op::Linear { out_features, .. } => {
                    let inputs = layer.input.len();
                    let gradient = Matrix::new(&layer.gradient, batch, out_features);
                    if let Some(weight) = &mut layer.weight {
                        let input = Matrix::new(input, batch, inputs);
                        matmul(gradient.transposed(), input, &mut weight.gradient, false);
                    }
                    if let Some(upstream) = upstream.as_deref_mut() {
                        let weight = Matrix::new(&layer.used, out_features, inputs);
                        matmul(gradient, weight, upstream, false);
                    }
                }
                Op::Relu => {
                    if let Some(upstream) = upstream.as_deref_mut() {
                        let gradients = layer.gradient.iter().zip(&layer.out);
                        for (up, (gradient, out)) in upstream.iter_mut().zip(gradients) {
                            *up = if *out > 0.0 { *gradient } else { 0.0 };
                        }
                    }
                }
                Op::MaxPool(_) => {
                    if let Some(upstream) = upstream.as_deref_mut() {
                        upstream.fill(0.0);
                        for (gradient, &place) in layer.gradient.iter().zip(&layer.chosen) {
                            upstream[place as usize] += gradient;
                        }
                    }
                }
                Op::Flatten => {
                    if let Some(upstream) = upstream.as_deref_mut() {
                        match layer.input {
                            Shape::Image { channels, height, width } => {
                                let area = height * width;
                                to_channels_last(&layer.gradient, batch, channels, area, upstream);
                            }
                            Shape::Vector { .. } => upstream.copy_from_slice(&layer.gradient),
                        }
                    }
                }
                Op::Dropout { .. } => {
                    if let Some(upstream) = upstream {
                        let gradients = layer.gradient.iter().zip(&layer.mask);
                        for (up, (gradient, mask)) in upstream.iter_mut().zip(gradients) {
                            *up = gradient * mask;
                        }
                    }
                }
                _ => {}
            }
            if let (Some(weight), Some(bits)) = (&mut layer.weight, layer.bits) {
                // `used` is made anew before its next use: it takes the gradient here.
                layer.used.copy_from_slice(&weight.gradient);
                self.quantizer.backward(&weight.values, bits, &layer.used, &mut weight.gradient)?;
            }
        }
        Ok(())
    }
}

impl Trainer for NativeTrainer {
    fn load(&mut self, state: &NetworkState) -> Result<(), TrainError> {
        state.check(&self.network)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let name = &self.network.nodes()[index].name;
            for (role, _) in layer_parameters(&self.network, index) {
                let Some(Parameter { shape, values }) = state.0.get(&role.name(name)) else {
                    continue;
                };
                let trained = Some(Trained {
                    shape: shape.clone(),
                    values: values.clone(),
                    gradient: vec![0.0; values.len()],
                    velocity: vec![0.0; values.len()],
                });
                match role {
                    Role::Weight => layer.weight = trained,
                    Role::Bias => layer.bias = trained,
                    // Batch norm was refused when the trainer was made.
                    _ => {}
                }
            }
        }
        self.steps = 0;
        Ok(())
    }

    fn state(&self) -> NetworkState {
        let mut state = NetworkState::default();
        for (layer, node) in self.layers.iter().zip(self.network.nodes()) {
            for (role, trained) in [(Role::Weight, &layer.weight), (Role::Bias, &layer.bias)] {
                if let Some(Trained { shape, values, .. }) = trained {
                    let parameter = Parameter { shape: shape.clone(), values: values.clone() };
                    state.0.insert(role.name(&node.name), parameter);
                }
            }
        }
        state
    }

    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        let layers = self.network.quantizable_layers();
        if let Some(bits) = bits {
            if bits.len() != layers {
                return Err(TrainError::AssignmentLength { layers, bits: bits.len() });
            }
            for &bits in bits.iter() {
                self.quantizer.quantize(&[0.5], bits)?;
            }
        }
        let mut given = bits.into_iter().flat_map(|bits| bits.iter().copied());
        for layer in self.layers.iter_mut().filter(|layer| layer.op.is_quantizable()) {
            layer.bits = given.next();
        }
        Ok(())
    }

    fn train_step(&mut self, images: &[f32], labels: &[u8], sgd: Sgd) -> Result<f32, TrainError> {
        let sample: usize = self.network.input().iter().product();
        if images.len() != labels.len() * sample {
            return Err(TrainError::Batch {
                labels: labels.len(),
                expected: labels.len() * sample,
                got: images.len(),
            });
        }
        let outputs = self.network.outputs();
        if labels.is_empty() {
            return Err(TrainError::EmptyBatch);
        }
        if let Some(&label) = labels.iter().find(|&&label| usize::from(label) >= outputs) {
            return Err(TrainError::Label { label, outputs });
        }
        self.prepare()?;
        self.forward(images, labels.len(), true);
        let Some(last) = self.layers.last_mut() else { return Err(TrainError::EmptyBatch) };
        last.gradient.resize(last.out.len(), 0.0);
        let loss = cross_entropy(&last.out, labels, &mut last.gradient);
        self.backward(labels.len())?;
        for layer in &mut self.layers {
            for trained in layer.weight.iter_mut().chain(&mut layer.bias) {
                trained.step(sgd);
            }
        }
        self.steps += 1;
        Ok(loss)
    }

    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        self.batch_len(images)?;
        self.prepare()?;
        let sample: usize = self.network.input().iter().product();
        let mut logits = Vec::with_capacity(images.len() / sample * self.network.outputs());
        for images in images.chunks(INFERENCE_BATCH * sample) {
            self.forward(images, images.len() / sample, false);
            logits.extend(self.layers.last().map_or(&[][..], |layer| &layer.out));
        }
        Ok(logits)
    }
}

/// Mean cross-entropy of `[batch, outputs]` logits, and its gradient.
fn cross_entropy(logits: &[f32], labels: &[u8], gradient: &mut [f32]) -> f32 {
    let outputs = logits.len() / labels.len();
    let share = 1.0 / labels.len() as f32;
    let mut loss = 0.0f64;
    let rows = logits.chunks_exact(outputs).zip(gradient.chunks_exact_mut(outputs));
    for ((logits, gradient), &label) in rows.zip(labels) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (gradient, logit) in gradient.iter_mut().zip(logits) {
            *gradient = (logit - max).exp();
            sum += *gradient;
        }
        let label = usize::from(label);
        loss += f64::from(sum.ln() + max - logits[label]);
        gradient.iter_mut().for_each(|gradient| *gradient *= share / sum);
        gradient[label] -= share;
    }
    (loss * f64::from(share)) as f32
}

/// `[batch, channels, area]` to `[batch, area, channels]`.
fn to_channels_last(from: &[f32], batch: usize, channels: usize, area: usize, to: &mut Vec<f32>) {
    to.resize(batch * channels * area, 0.0);
    for (from, to) in from.chunks_exact(channels * area).zip(to.chunks_exact_mut(channels * area)) {
        for (pixel, values) in to.chunks_exact_mut(channels).enumerate() {
            for (channel, value) in values.iter_mut().enumerate() {
                *value = from[channel * area + pixel];
            }
        }
    }
}

/// `[batch, area, channels]` to `[batch, channels, area]`.
fn to_channels_first(from: &[f32], batch: usize, channels: usize, area: usize, to: &mut Vec<f32>) {
    // The transpose with the roles of the two sides changed.
    to_channels_last(from, batch, area, channels, to);
}

/// Writes the maximum of each window and where it came from; the first of equals, as PyTorch does.
fn max_pool(pool: Pool2d, input: &[f32], layer: &mut Layer, batch: usize) {
    let (
        Shape::Image { channels, height, width },
        Shape::Image { height: out_height, width: out_width, .. },
    ) = (layer.input, layer.output)
    else {
        return;
    };
    layer.chosen.resize(layer.out.len(), 0);
    let window = |out: usize, side: usize| {
        let from = (out * pool.stride).saturating_sub(pool.padding);
        let to = (out * pool.stride + pool.kernel).saturating_sub(pool.padding).min(side);
        from..to
    };
    let outputs = layer.out.chunks_exact_mut(channels).zip(layer.chosen.chunks_exact_mut(channels));
    for (index, (out, chosen)) in outputs.enumerate().take(batch * out_height * out_width) {
        let image = index / (out_height * out_width);
        let (oy, ox) = (index / out_width % out_height, index % out_width);
        out.fill(f32::NEG_INFINITY);
        for y in window(oy, height) {
            for x in window(ox, width) {
                let from = ((image * height + y) * width + x) * channels;
                let pixel = &input[from..from + channels];
                for (channel, ((out, chosen), value)) in
                    out.iter_mut().zip(chosen.iter_mut()).zip(pixel).enumerate()
                {
                    if *value > *out || value.is_nan() {
                        *out = *value;
                        *chosen = (from + channel) as u32;
                    }
                }
            }
        }
    }
}

/// Sizes of a convolution as a matrix product.
struct Geometry {
    conv: Conv2d,
    channels: usize,
    height: usize,
    width: usize,
    out_width: usize,
    out_pixels: usize,
    /// Values under one window: kernel rows, kernel columns, channels.
    patch: usize,
}

impl Geometry {
    fn new(conv: Conv2d, input: Shape, output: Shape) -> Self {
        let (channels, height, width) = match input {
            Shape::Image { channels, height, width } => (channels, height, width),
            Shape::Vector { features } => (features, 1, 1),
        };
        let (out_height, out_width) = match output {
            Shape::Image { height, width, .. } => (height, width),
            Shape::Vector { .. } => (1, 1),
        };
        Self {
            conv,
            channels,
            height,
            width,
            out_width,
            out_pixels: out_height * out_width,
            patch: conv.kernel * conv.kernel * channels,
        }
    }

    /// Runs of images whose columns fit in the cache.
    fn chunks(&self, batch: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let step = (COLUMNS / (self.out_pixels * self.patch)).max(1);
        (0..batch).step_by(step).map(move |start| start..(start + step).min(batch))
    }

    /// Calls `f(row of the patch matrix, its columns from, input from, values)` for every run of
    /// values that a window shares with the image.
    fn runs(&self, images: &std::ops::Range<usize>, mut f: impl FnMut(usize, usize, usize)) {
        let Conv2d { kernel, stride, padding, .. } = self.conv;
        let mut row = 0;
        for image in images.clone() {
            for pixel in 0..self.out_pixels {
                let (oy, ox) = (pixel / self.out_width, pixel % self.out_width);
                // Columns of the kernel that lie inside the image.
                let left = ox * stride;
                let first = padding.saturating_sub(left).min(kernel);
                let last = (self.width + padding).saturating_sub(left).min(kernel).max(first);
                for ky in 0..kernel {
                    let y = oy * stride + ky;
                    if y >= padding && y < self.height + padding && first < last {
                        let x = left + first - padding;
                        let from =
                            ((image * self.height + y - padding) * self.width + x) * self.channels;
                        let to = row * self.patch + (ky * kernel + first) * self.channels;
                        f(to, from, (last - first) * self.channels);
                    }
                }
                row += 1;
            }
        }
    }

    fn im2col(&self, input: &[f32], images: &std::ops::Range<usize>, columns: &mut Vec<f32>) {
        columns.resize(images.len() * self.out_pixels * self.patch, 0.0);
        if self.conv.padding > 0 {
            columns.fill(0.0);
        }
        self.runs(images, |to, from, len| {
            columns[to..to + len].copy_from_slice(&input[from..from + len]);
        });
    }

    fn col2im(&self, columns: &[f32], images: &std::ops::Range<usize>, out: &mut [f32]) {
        self.runs(images, |to, from, len| {
            for (out, value) in out[from..from + len].iter_mut().zip(&columns[to..to + len]) {
                *out += value;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use releq_core::Pool2d;
    use releq_quant::QuantizerKind;

    use super::*;
    use crate::{
        networks::lenet,
        train::conformance::{batch, check_trainer, networks, state},
    };

    fn native(network: &Network, quantizer: QuantizerKind) -> Box<dyn Trainer> {
        Box::new(NativeTrainer::new(network, quantizer.build()).unwrap())
    }

    #[test]
    fn agrees_with_the_oracle_on_all_it_covers() {
        let mut covered: Vec<Network> = networks()
            .into_iter()
            .filter(|network| NativeTrainer::new(network, QuantizerKind::Wrpn.build()).is_ok())
            .collect();
        assert_eq!(covered.len(), 2);
        let strided = Network::builder("strided chain", [3, 9, 11])
            .conv("conv1", Conv2d::new(8, 3).stride(2).padding(1))
            .relu("relu1")
            .conv("conv2", Conv2d::new(5, 4).padding(3).without_bias())
            .layer("pool1", Op::MaxPool(Pool2d { kernel: 3, stride: 2, padding: 1 }), &[])
            .conv("conv3", Conv2d::new(7, 1).stride(3))
            .flatten("flatten")
            .layer("fc", Op::Linear { out_features: 4, bias: false }, &[]);
        covered.push(strided.build().unwrap());
        check_trainer(&covered, &mut native);
    }

    #[test]
    fn what_it_does_not_cover_is_refused_by_name() {
        let names: Vec<String> = networks()
            .iter()
            .filter_map(|network| NativeTrainer::new(network, QuantizerKind::Wrpn.build()).err())
            .map(|error| error.to_string())
            .collect();
        assert!(names[0].contains("layer `grouped`") && names[0].contains("flex"), "{names:?}");
        assert!(names[1].contains("layer `bn1`: the native trainer"), "{names:?}");
    }

    #[test]
    #[ignore = "a measurement; run with --ignored --nocapture"]
    fn lenet_images_per_second() {
        let network = lenet();
        let mut trainer = native(&network, QuantizerKind::WrpnScaled);
        trainer.load(&state(&network, 1)).unwrap();
        let sgd = Sgd { learning_rate: 0.01, momentum: 0.9, weight_decay: 0.0 };
        for bits in [None, Some("2-2-3-2".parse().unwrap())] {
            trainer.set_bits(bits.as_ref()).unwrap();
            let (images, labels) = batch(&network, 128, 1);
            let best = |work: &mut dyn FnMut()| {
                (0..20)
                    .map(|_| {
                        let start = Instant::now();
                        work();
                        start.elapsed().as_secs_f64()
                    })
                    .fold(f64::INFINITY, f64::min)
            };
            let train = best(&mut || drop(trainer.train_step(&images, &labels, sgd)));
            let infer = best(&mut || drop(trainer.logits(&images)));
            println!("{bits:?}: train {:.0}/s, infer {:.0}/s", 128.0 / train, 128.0 / infer);
        }
    }
}
