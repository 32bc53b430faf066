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
        *out = rounded as u8;
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
    Affine { scale: Vec<f32>, shift: Vec<f32> },
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
            FloatOp::Affine { scale, shift } => {
                Self::Affine { scale: scale.clone(), shift: shift.clone() }
            }
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
            Self::Affine { scale, shift } => 4 * (scale.len() + shift.len()),
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
            Self::Affine { scale, shift } => {
                let channels = scale.len();
                for (out, x) in out.chunks_exact_mut(channels).zip(input(0).chunks_exact(channels))
                {
                    for (channel, (out, x)) in out.iter_mut().zip(x).enumerate() {
                        *out = x * scale[channel] + shift[channel];
                    }
                }
            }
        }
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
