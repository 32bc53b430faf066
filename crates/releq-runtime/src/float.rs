//! Functions of codes as tables, and operations in single precision.

use releq_core::{Activation, Pool2d, Sides};
use releq_kernels::{
    AvgPool, FloatAxis, FloatConv, FloatDepthwise, FloatFunction, FloatMap, FloatPoolShape,
    FloatScratch, Isa, KernelError, MaxPool, Rectifier,
};
use releq_quant::ActivationGrid;

use crate::{
    graph::{FloatOp, Value},
    lower::float_axes,
};

/// A function from the codes of one grid to those of another.
pub(crate) fn table(
    from: ActivationGrid,
    to: ActivationGrid,
    function: impl Fn(f32) -> f32,
) -> Box<[u8; 256]> {
    let mut table = Box::new([0; 256]);
    for (code, out) in table.iter_mut().enumerate() {
        let value = from.scale * (code as f32 - f32::from(from.zero_point));
        let rounded = (function(value) / to.scale).round_ties_even() + f32::from(to.zero_point);
        // Saturates; NaN becomes 0.
        *out = (rounded as u8).min(to.highest());
    }
    table
}

/// As [`table`], of one of the kernels' functions.
pub(crate) fn function_table(
    from: ActivationGrid,
    to: ActivationGrid,
    function: FloatFunction,
) -> Result<Box<[u8; 256]>, KernelError> {
    // On every instruction set, the table is that of plain Rust.
    let map = FloatMap::new(function, Isa::Portable)?;
    Ok(table(from, to, |value| {
        let mut out = [0.0];
        map.forward(&[value], &mut out);
        out[0]
    }))
}

/// The kernels' name of a function, if they have it.
pub(crate) const fn function_of(function: Activation) -> Option<FloatFunction> {
    Some(match function {
        Activation::Clip { min, max } => FloatFunction::Clip { min, max },
        Activation::Sigmoid => FloatFunction::Sigmoid,
        Activation::HardSigmoid { alpha, beta } => FloatFunction::HardSigmoid { alpha, beta },
        Activation::Silu => FloatFunction::Silu,
        Activation::HardSwish => FloatFunction::HardSwish,
        Activation::LeakyRelu { slope } => FloatFunction::LeakyRelu { slope },
        Activation::Tanh => FloatFunction::Tanh,
        Activation::Gelu => FloatFunction::Gelu,
        _ => return None,
    })
}

/// An operation in single precision with its weights, ready to run.
#[derive(Clone, Debug)]
pub(crate) enum FloatStep {
    Conv(Box<FloatConv>, Rectifier),
    Depthwise(Box<FloatDepthwise>, Rectifier),
    Add(Rectifier),
    Map(FloatMap),
    Relu,
    MaxPool(MaxPool),
    MeanPool(AvgPool),
    Affine { scale: Vec<f32>, shift: Vec<f32>, rectifier: Rectifier },
    Mul,
    Concat(Vec<usize>),
    ResponseNorm { channels: usize, size: usize, alpha: f32, beta: f32, bias: f32 },
}

impl FloatStep {
    pub(crate) fn new(
        op: &FloatOp,
        input: Value,
        output: Value,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        Ok(match op {
            FloatOp::Product { shape, weights, bias, rectifier } => {
                if FloatDepthwise::fits(*shape) && shape.channels > 1 {
                    let mut conv = FloatDepthwise::new(*shape, isa)?;
                    conv.load(weights, bias.as_deref());
                    Self::Depthwise(Box::new(conv), *rectifier)
                } else {
                    let mut conv = FloatConv::new(*shape, isa)?;
                    conv.load(weights, bias.as_deref());
                    Self::Conv(Box::new(conv), *rectifier)
                }
            }
            FloatOp::Add(rectifier) => Self::Add(*rectifier),
            FloatOp::Map(function) => Self::Map(FloatMap::new(*function, isa)?),
            FloatOp::Relu => Self::Relu,
            FloatOp::MaxPool(pool) => {
                Self::MaxPool(MaxPool::new(windows(*pool, input, output), isa)?)
            }
            FloatOp::MeanPool(pool) => {
                let Sides { top, left, bottom, right } = pool.padding;
                let counted = match pool.count_include_pad {
                    true => [[top, bottom], [left, right]],
                    false => [[0; 2]; 2],
                };
                Self::MeanPool(AvgPool::new(windows(*pool, input, output), counted, isa)?)
            }
            FloatOp::GlobalMean => {
                let all = |size| FloatAxis::new(size, size);
                let (rows, columns) = (all(input.height), all(input.width));
                let shape = FloatPoolShape { channels: input.channels, rows, columns };
                Self::MeanPool(AvgPool::new(shape, [[0; 2]; 2], isa)?)
            }
            FloatOp::Affine { scale, shift, rectifier } => {
                Self::Affine { scale: scale.clone(), shift: shift.clone(), rectifier: *rectifier }
            }
            FloatOp::Mul => Self::Mul,
            FloatOp::Concat(channels) => Self::Concat(channels.clone()),
            FloatOp::ResponseNorm { size, alpha, beta, bias } => Self::ResponseNorm {
                channels: input.channels,
                size: *size,
                alpha: *alpha,
                beta: *beta,
                bias: *bias,
            },
        })
    }

    /// Name of what computes it.
    pub(crate) const fn kernel(&self) -> &'static str {
        match self {
            Self::Conv(..) | Self::Depthwise(..) => "float",
            _ => "float, in one pass",
        }
    }

    /// Bytes of its weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Conv(conv, _) => 4 * conv.shape().weights(),
            Self::Depthwise(conv, _) => 4 * conv.shape().weights(),
            Self::Affine { scale, shift, .. } => 4 * (scale.len() + shift.len()),
            _ => 0,
        }
    }

    /// Computes it from `count` inputs.
    pub(crate) fn run<'a>(
        &self,
        count: usize,
        input: impl Fn(usize) -> &'a [f32],
        out: &mut [f32],
        scratch: &mut FloatScratch,
    ) {
        match self {
            Self::Conv(conv, rectifier) => conv.forward(input(0), *rectifier, out, scratch),
            Self::Depthwise(conv, rectifier) => conv.forward(input(0), *rectifier, out),
            Self::Add(rectifier) => {
                out.copy_from_slice(input(0));
                for addend in (1..count).map(input) {
                    out.iter_mut().zip(addend).for_each(|(out, value)| *out += value);
                }
                rectifier.rectify(out);
            }
            Self::Map(map) => map.forward(input(0), out),
            Self::Relu => {
                out.copy_from_slice(input(0));
                Rectifier::Relu.rectify(out);
            }
            Self::MaxPool(pool) => pool.forward(input(0), out, None),
            Self::MeanPool(pool) => pool.forward(input(0), out),
            Self::Affine { scale, shift, rectifier } => {
                let channels = scale.len();
                for (out, x) in out.chunks_exact_mut(channels).zip(input(0).chunks_exact(channels))
                {
                    for (channel, (out, x)) in out.iter_mut().zip(x).enumerate() {
                        *out = x * scale[channel] + shift[channel];
                    }
                }
                rectifier.rectify(out);
            }
            Self::Mul => {
                let (image, factors) = (input(0), input(1));
                let pixels = out.chunks_exact_mut(factors.len());
                for (out, image) in pixels.zip(image.chunks_exact(factors.len())) {
                    for (out, (value, factor)) in out.iter_mut().zip(image.iter().zip(factors)) {
                        *out = value * factor;
                    }
                }
            }
            Self::Concat(channels) => {
                let all = channels.iter().sum();
                let mut before = 0;
                for (&count, from) in channels.iter().zip((0..).map(input)) {
                    join(from, count, before, out.chunks_exact_mut(all));
                    before += count;
                }
            }
            Self::ResponseNorm { channels, size, alpha, beta, bias } => {
                let weight = alpha / *size as f32;
                let pixels = input(0).chunks_exact(*channels);
                for (out, pixel) in out.chunks_exact_mut(*channels).zip(pixels) {
                    for (channel, out) in out.iter_mut().enumerate() {
                        let end = (*channels).min(channel + size / 2 + 1);
                        let near = &pixel[channel.saturating_sub(size / 2)..end];
                        let squares: f32 = near.iter().map(|value| value * value).sum();
                        *out = pixel[channel] / (bias + weight * squares).powf(*beta);
                    }
                }
            }
        }
    }
}

/// Writes the `count` channels of each pixel of a tensor to those of `pixels`, from channel `before` on.
pub(crate) fn join<'a, T: Copy + 'a>(
    from: &[T],
    count: usize,
    before: usize,
    pixels: impl Iterator<Item = &'a mut [T]>,
) {
    for (pixel, from) in pixels.zip(from.chunks_exact(count)) {
        pixel[before..][..count].copy_from_slice(from);
    }
}

/// Windows, of which a last one that is rounded up has the padding behind the image that it needs to be whole.
pub(crate) fn windows(pool: Pool2d, input: Value, output: Value) -> FloatPoolShape {
    let [rows, columns] = float_axes(input, pool.kernel, pool.stride, pool.padding);
    let whole = |axis: FloatAxis, windows: usize| {
        let FloatAxis { size, kernel, stride, padding: [before, behind], .. } = axis;
        let needed = ((windows - 1) * stride + kernel).saturating_sub(before + size);
        FloatAxis { padding: [before, behind.max(needed)], ..axis }
    };
    FloatPoolShape {
        channels: input.channels,
        rows: whole(rows, output.height),
        columns: whole(columns, output.width),
    }
}
