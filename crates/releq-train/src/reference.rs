//! The slow, obvious twin of all trainers: plain loops in double precision, gradients by central
//! differences.

use std::collections::BTreeMap;

use releq_core::{Activation, Conv2d, Network, Op, ParameterRole, Pool2d, Shape, Weights};

use releq_data::Label;

use crate::{Sgd, dropout::dropout_mask};

/// Parameters in double precision, by name.
pub(crate) type Values = BTreeMap<String, Vec<f64>>;

pub(crate) fn values(state: &Weights) -> Values {
    let widen = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
    state.0.iter().map(|(name, p)| (name.clone(), widen(&p.values))).collect()
}

/// Outputs of the network; `training` is the number of the step, `None` in inference.
///
/// In training, the batch's mean and biased variance of every batch norm are given as well.
///
/// # Shapes
/// - `images`: `[batch, channels, height, width]`, output: `[batch, outputs]`
pub(crate) fn forward(
    network: &Network,
    values: &Values,
    images: &[f32],
    training: Option<u64>,
) -> (Vec<f64>, BTreeMap<String, [Vec<f64>; 2]>) {
    let sample: usize = network.input().iter().product();
    let batch = images.len() / sample;
    let input: Vec<f64> = images.iter().map(|&x| f64::from(x)).collect();
    let mut statistics = BTreeMap::new();
    let mut outputs: Vec<Vec<f64>> = Vec::new();
    for (index, node) in network.nodes().iter().enumerate() {
        let inputs: Vec<&[f64]> = network
            .sources(index)
            .iter()
            .map(|source| source.map_or(input.as_slice(), |source| outputs[source].as_slice()))
            .collect();
        let x = inputs[0];
        let (from, to) = (network.input_shape(index), network.shape(index));
        let parameter = |role: ParameterRole| values.get(&role.name(&node.name)).map(Vec::as_slice);
        let output = match node.op {
            Op::Conv2d(conv) => {
                let weight = parameter(ParameterRole::Weight).unwrap();
                convolve(x, batch, from, to, conv, weight, parameter(ParameterRole::Bias))
            }
            Op::Linear { out_features, .. } => {
                let weight = parameter(ParameterRole::Weight).unwrap();
                let rows = |x: &[f64]| -> Vec<f64> {
                    let dot = |o: usize| -> f64 {
                        let row = &weight[o * x.len()..][..x.len()];
                        row.iter().zip(x).map(|(w, x)| w * x).sum()
                    };
                    let bias =
                        |o: usize| parameter(ParameterRole::Bias).map_or(0.0, |bias| bias[o]);
                    (0..out_features).map(|o| dot(o) + bias(o)).collect()
                };
                x.chunks_exact(from.len()).flat_map(rows).collect()
            }
            Op::BatchNorm { epsilon, .. } => {
                let (channels, plane) = match from {
                    Shape::Image { channels, height, width } => (channels, height * width),
                    Shape::Vector { features } => (features, 1),
                };
                let of = |channel: usize| {
                    let samples = x.chunks_exact(from.len());
                    samples.flat_map(move |s| s[channel * plane..][..plane].iter().copied())
                };
                let count = (batch * plane) as f64;
                let [mean, variance] = if training.is_some() {
                    let mean: Vec<f64> =
                        (0..channels).map(|c| of(c).sum::<f64>() / count).collect();
                    let spread = |c: usize| of(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>();
                    let variance = (0..channels).map(|c| spread(c) / count).collect();
                    statistics.insert(node.name.clone(), [mean.clone(), variance]);
                    statistics[&node.name].clone()
                } else {
                    [ParameterRole::RunningMean, ParameterRole::RunningVar]
                        .map(|r| parameter(r).unwrap().to_vec())
                };
                let (weight, bias) = (
                    parameter(ParameterRole::Weight).unwrap(),
                    parameter(ParameterRole::Bias).unwrap(),
                );
                let normalize = |(position, x): (usize, &f64)| {
                    let c = position / plane % channels;
                    (x - mean[c]) / (variance[c] + epsilon).sqrt() * weight[c] + bias[c]
                };
                x.iter().enumerate().map(normalize).collect()
            }
            Op::Relu => x.iter().map(|x| x.max(0.0)).collect(),
            Op::MaxPool(pool) => {
                windows(x, batch, from, to, pool, |window| window.fold(f64::NEG_INFINITY, f64::max))
            }
            Op::AvgPool(pool) => average(x, batch, from, to, pool),
            Op::GlobalAvgPool => {
                let plane = from.len() / to.len();
                x.chunks_exact(plane).map(|p| p.iter().sum::<f64>() / plane as f64).collect()
            }
            // Without a bitwidth, which this does not know.
            Op::Flatten | Op::FakeQuantize => x.to_vec(),
            Op::Dropout { probability } => match training {
                None => x.to_vec(),
                Some(step) => {
                    let mask = dropout_mask(step, index, probability, x.len());
                    x.iter().zip(mask).map(|(x, m)| x * f64::from(m)).collect()
                }
            },
            Op::PaddedShortcut { stride, .. } => {
                let ([channels, height, width], [outputs, ..]) = (image(from), image(to));
                let before = (outputs - channels) / 2;
                let pixels = (0..height)
                    .step_by(stride)
                    .flat_map(|y| (0..width).step_by(stride).map(move |x| (y, x)));
                let value = |sample: &[f64], channel: usize, (y, x): (usize, usize)| {
                    let channel = channel.checked_sub(before).filter(|&c| c < channels);
                    channel.map_or(0.0, |c| sample[(c * height + y) * width + x])
                };
                let mut output = Vec::new();
                for sample in x.chunks_exact(from.len()) {
                    for channel in 0..outputs {
                        output.extend(pixels.clone().map(|at| value(sample, channel, at)));
                    }
                }
                output
            }
            Op::Add => (0..x.len()).map(|i| inputs.iter().map(|input| input[i]).sum()).collect(),
            Op::ScaleShift => {
                let plane = from.len() / from.channels();
                let [weight, bias] = [ParameterRole::Weight, ParameterRole::Bias]
                    .map(|role| parameter(role).unwrap());
                let of = |(i, x): (usize, &f64)| {
                    let channel = i / plane % from.channels();
                    weight[channel] * x + bias[channel]
                };
                x.iter().enumerate().map(of).collect()
            }
            Op::Activation(activation) => x.iter().map(|&x| activate(activation, x)).collect(),
            Op::Mul => {
                let second = inputs[1];
                if x.len() == second.len() {
                    x.iter().zip(second).map(|(x, y)| x * y).collect()
                } else {
                    let (image, vector) =
                        if x.len() > second.len() { (x, second) } else { (second, x) };
                    let plane = image.len() / vector.len();
                    (0..image.len()).map(|i| image[i] * vector[i / plane]).collect()
                }
            }
            Op::Concat => {
                let mut output = Vec::new();
                for n in 0..batch {
                    for input in &inputs {
                        let sample = input.len() / batch;
                        output.extend_from_slice(&input[n * sample..][..sample]);
                    }
                }
                output
            }
            Op::ChannelSlice { start, channels } => {
                let plane = from.len() / from.channels();
                let samples = x.chunks_exact(from.len());
                samples.flat_map(|x| x[start * plane..][..channels * plane].to_vec()).collect()
            }
            Op::ChannelShuffle { groups } => {
                let (channels, plane) = (from.channels(), from.len() / from.channels());
                let of = |i: usize| {
                    let (channel, at) = (i / plane % channels, i % plane);
                    let before = channel % groups * (channels / groups) + channel / groups;
                    x[i - i % from.len() + before * plane + at]
                };
                (0..x.len()).map(of).collect()
            }
            Op::LocalResponseNorm { size, alpha, beta, bias } => {
                let (channels, plane) = (from.channels(), from.len() / from.channels());
                let [alpha, beta, bias] = [alpha, beta, bias].map(f64::from);
                let of = |i: usize| {
                    let channel = i / plane % channels;
                    let near =
                        channel.saturating_sub(size / 2)..channels.min(channel + size / 2 + 1);
                    let squares = near.map(|c| x[i - channel * plane + c * plane].powi(2));
                    let mean = squares.sum::<f64>() / size as f64;
                    x[i] / (bias + alpha * mean).powf(beta)
                };
                (0..x.len()).map(of).collect()
            }
            op => unimplemented!("{op:?}"),
        };
        assert_eq!(output.len(), batch * to.len(), "layer `{}`", node.name);
        outputs.push(output);
    }
    (outputs.pop().unwrap(), statistics)
}

fn image(shape: Shape) -> [usize; 3] {
    match shape {
        Shape::Image { channels, height, width } => [channels, height, width],
        Shape::Vector { .. } => unreachable!(),
    }
}

fn convolve(
    x: &[f64],
    batch: usize,
    from: Shape,
    to: Shape,
    conv: Conv2d,
    weight: &[f64],
    bias: Option<&[f64]>,
) -> Vec<f64> {
    let ([channels, height, width], [_, out_height, out_width]) = (image(from), image(to));
    let (inputs, outputs) = (channels / conv.groups, conv.out_channels / conv.groups);
    let [rows, columns]: [usize; 2] = conv.kernel.into();
    let mut output = Vec::new();
    for n in 0..batch {
        for o in 0..conv.out_channels {
            for (out_y, out_x) in (0..out_height).flat_map(|y| (0..out_width).map(move |x| (y, x)))
            {
                let mut sum = bias.map_or(0.0, |bias| bias[o]);
                for i in 0..inputs {
                    let channel = o / outputs * inputs + i;
                    for ky in 0..rows {
                        for kx in 0..columns {
                            let y = out_y * conv.stride.height + ky * conv.dilation.height;
                            let x_ = out_x * conv.stride.width + kx * conv.dilation.width;
                            let y = y.wrapping_sub(conv.padding.top);
                            let x_ = x_.wrapping_sub(conv.padding.left);
                            if y < height && x_ < width {
                                sum += x[((n * channels + channel) * height + y) * width + x_]
                                    * weight[((o * inputs + i) * rows + ky) * columns + kx];
                            }
                        }
                    }
                }
                output.push(sum);
            }
        }
    }
    output
}

fn windows(
    x: &[f64],
    batch: usize,
    from: Shape,
    to: Shape,
    pool: Pool2d,
    reduce: impl Fn(&mut dyn Iterator<Item = f64>) -> f64,
) -> Vec<f64> {
    let ([channels, height, width], [_, out_height, out_width]) = (image(from), image(to));
    let mut output = Vec::new();
    for plane in x.chunks_exact(height * width).take(batch * channels) {
        for (out_y, out_x) in (0..out_height).flat_map(|y| (0..out_width).map(move |x| (y, x))) {
            let (top, left) = (pool.padding.top, pool.padding.left);
            let mut window = under(out_y, [pool.kernel.height, pool.stride.height, top], height)
                .flat_map(|y| {
                    let columns = under(out_x, [pool.kernel.width, pool.stride.width, left], width);
                    columns.map(move |x| plane[y * width + x])
                });
            output.push(reduce(&mut window));
        }
    }
    output
}

/// The places of window `out` that are below `size`, in one dimension.
fn under(
    out: usize,
    [kernel, stride, before]: [usize; 3],
    size: usize,
) -> impl Iterator<Item = usize> {
    (0..kernel).map(move |k| (out * stride + k).wrapping_sub(before)).filter(move |&at| at < size)
}

fn average(x: &[f64], batch: usize, from: Shape, to: Shape, pool: Pool2d) -> Vec<f64> {
    let sum = |window: &mut dyn Iterator<Item = f64>| window.sum::<f64>();
    let mut output = windows(x, batch, from, to, pool, sum);
    // What counts is found by averaging ones, over the image or the padded image.
    let [_, mut height, mut width] = image(from);
    let mut counted = pool;
    if pool.count_include_pad {
        height += pool.padding.top + pool.padding.bottom;
        width += pool.padding.left + pool.padding.right;
        counted = counted.padding(0);
    }
    let plane = Shape::Image { channels: 1, height, width };
    let counts = windows(&vec![1.0; height * width], 1, plane, to, counted, sum);
    let [_, rows, columns] = image(to);
    for plane in output.chunks_exact_mut(rows * columns) {
        plane.iter_mut().zip(&counts).for_each(|(sum, count)| *sum /= count);
    }
    output
}

/// By its definition, in double precision.
fn activate(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Clip { min, max } => x.clamp(min.into(), max.into()),
        Activation::Sigmoid => sigmoid(x),
        Activation::HardSigmoid { alpha, beta } => {
            (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0)
        }
        Activation::Silu => x * sigmoid(x),
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Activation::LeakyRelu { slope } => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x * normal_cdf(x),
        other => unimplemented!("{other:?}"),
    }
}

/// Standard normal distribution function: half, and the density times `x + x^3 / 3 + x^5 / (3 * 5) + ...`.
fn normal_cdf(x: f64) -> f64 {
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let mut term = x;
    let mut sum = 0.0;
    for odd in (3..).step_by(2) {
        sum += term;
        term *= x * x / f64::from(odd);
        if term.abs() <= 1e-18 * sum.abs() {
            break;
        }
    }
    0.5 + density * sum
}

/// Mean cross-entropy.
pub(crate) fn cross_entropy(logits: &[f64], labels: &[Label]) -> f64 {
    let classes = logits.len() / labels.len();
    let of = |(logits, &label): (&[f64], &Label)| {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
        largest + sum.ln() - logits[usize::from(label)]
    };
    logits.chunks_exact(classes).zip(labels).map(of).sum::<f64>() / labels.len() as f64
}

/// Gradient of the training loss by every trained value, by central differences.
pub(crate) fn gradients(
    network: &Network,
    values: &Values,
    images: &[f32],
    labels: &[Label],
    step: u64,
) -> Values {
    // Rounding is some 1e-16 over the distance. The smaller that is, the fewer values pass an edge of ReLU on it.
    const DISTANCE: f64 = 1e-7;
    let mut moved = values.clone();
    let mut gradients = Values::new();
    for (name, old) in values.iter().filter(|(name, _)| !name.contains(".running_")) {
        let gradient = (0..old.len()).map(|index| {
            let mut loss = |distance: f64| {
                moved.get_mut(name).unwrap()[index] = old[index] + distance;
                let (logits, _) = forward(network, &moved, images, Some(step));
                cross_entropy(&logits, labels)
            };
            let slope = (loss(DISTANCE) - loss(-DISTANCE)) / (2.0 * DISTANCE);
            moved.get_mut(name).unwrap()[index] = old[index];
            slope
        });
        let gradient = gradient.collect();
        gradients.insert(name.clone(), gradient);
    }
    gradients
}

/// One value after two steps along the given gradients, by the definition of [`Sgd`].
pub(crate) fn two_sgd_steps(w: f64, gradients: [f64; 2], sgd: Sgd) -> f64 {
    let [rate, momentum, decay] =
        [sgd.learning_rate, sgd.momentum, sgd.weight_decay].map(f64::from);
    let mut velocity = 0.0;
    gradients.into_iter().fold(w, |w, gradient| {
        velocity = momentum * velocity + (gradient + decay * w);
        w - rate * velocity
    })
}
