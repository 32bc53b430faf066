//! What the runtime computes, in loops that are short enough to verify by reading. [`Model`](crate::Model) gives the same codes
//! on every instruction set; where a layer is in single precision, both agree to within its rounding.
//!
//! A tensor of codes stands for `scale * (code - zero_point)`. In every layer on integers, the sum is exact in 32 bits:
//!
//! - convolutions and fully connected layers: `sum((code - zero_point) * weight) + bias`, where `bias` is a whole number, pixels
//!   outside of the image are zero, and the factor is `scale * weight_scale`;
//! - means of windows: `sum(code - zero_point)`, and the factor is `scale / pixels`;
//! - a product of two tensors, or of an image and a factor for every channel: `(a - a_zero_point) * (b - b_zero_point)`, and the factor
//!   is `a_scale * b_scale`;
//! - a sum of two tensors: `(a - a_zero_point) * a_scale + (b - b_zero_point) * b_scale`, and the factor is 1.
//!
//! The code is `round(sum * (factor / output_scale)) + output_zero_point`, half to even, where the rectifier and then the ends of
//! the codes clamp before rounding. All factors, products and quotients are rounded to single precision one after the other. A
//! sum of two tensors is multiplied by `1 / output_scale`.

use releq_format::{Codes, packed::Packed};
use releq_kernels::{
    ConvShape, FloatAxis, FloatConvShape, FloatMap, Isa, LayerShape, PoolShape, Rectifier,
};
use releq_quant::ActivationGrid;

use crate::{
    Activation, RuntimeError,
    float::windows,
    graph::{FloatOp, Joined, Node, Op, Product, Value},
    lower::{self, rectified_value},
};

/// A tensor.
enum Tensor {
    Codes(Vec<u8>, ActivationGrid),
    Values(Vec<f32>),
}

impl Tensor {
    fn view(&self) -> Activation<'_> {
        match self {
            Self::Codes(codes, grid) => Activation::Codes { codes, grid: *grid },
            Self::Values(values) => Activation::Values(values),
        }
    }

    /// Codes without their zero point.
    fn integers(&self) -> Vec<i32> {
        match self {
            Self::Codes(codes, grid) => {
                codes.iter().map(|&code| i32::from(code) - i32::from(grid.zero_point)).collect()
            }
            Self::Values(_) => Vec::new(),
        }
    }

    fn values(&self) -> Vec<f32> {
        match self {
            Self::Codes(_, grid) => {
                self.integers().into_iter().map(|code| grid.scale * code as f32).collect()
            }
            Self::Values(values) => values.clone(),
        }
    }

    fn scale(&self) -> f32 {
        match self {
            Self::Codes(_, grid) => grid.scale,
            Self::Values(_) => 1.0,
        }
    }
}

/// Computes the outputs for one image, as [`Model::run_observed`](crate::Model::run_observed) does.
///
/// # Errors
/// [`RuntimeError`] as [`Model::compile`](crate::Model::compile), and for an image of another size.
pub fn run<C: Codes>(
    packed: &Packed<C>,
    image: &[f32],
    observe: &mut dyn FnMut(&str, Activation<'_>),
) -> Result<Vec<f32>, RuntimeError> {
    let graph = lower::lower(packed, None)?;
    let Value { channels, height, width, grid } = graph.values[0];
    if image.len() != channels * height * width {
        let (expected, got) = (channels * height * width, image.len());
        return Err(RuntimeError::Image { channels, height, width, expected, got });
    }
    let area = height * width;
    let values: Vec<f32> =
        (0..image.len()).map(|at| image[at % channels * area + at / channels]).collect();
    let mut tensors: Vec<Option<Tensor>> = graph.values.iter().map(|_| None).collect();
    tensors[0] = Some(rounded(values, grid));
    for node in &graph.nodes {
        let inputs: Vec<&Tensor> =
            node.inputs.iter().filter_map(|&input| tensors[input].as_ref()).collect();
        let sizes = [graph.values[node.inputs[0]], graph.values[node.output]];
        let tensor = compute(node, &inputs, sizes)?;
        observe(&node.layer, tensor.view());
        tensors[node.output] = Some(tensor);
    }
    let values = tensors[graph.output].as_ref().map_or_else(Vec::new, Tensor::values);
    let channels = graph.values[graph.output].channels;
    let area = values.len() / channels;
    let mut outputs: Vec<f32> =
        (0..values.len()).map(|at| values[at % area * channels + at / area]).collect();
    packed.frame.end.apply(&mut outputs);
    Ok(outputs)
}

/// Values on a grid, if there is one.
fn rounded(values: Vec<f32>, grid: Option<ActivationGrid>) -> Tensor {
    let Some(grid) = grid else { return Tensor::Values(values) };
    let code = |value: f32| {
        ((value / grid.scale).round_ties_even() + f32::from(grid.zero_point))
            .clamp(0.0, grid.highest().into()) as u8
    };
    Tensor::Codes(values.into_iter().map(code).collect(), grid)
}

/// Sums with a factor as codes of `grid`, or as values.
fn scaled(
    sums: &[i32],
    grid: Option<ActivationGrid>,
    rectifier: Rectifier,
    factor_and_bias: impl Fn(usize) -> (f32, f32),
) -> Tensor {
    let to = grid.map_or(1.0, |grid| grid.scale);
    let rectifier = match rectifier {
        Rectifier::Clipped { ceiling } => Rectifier::Clipped { ceiling: ceiling / to },
        other => other,
    };
    let value = |(at, sum): (usize, &i32)| {
        let (factor, bias) = factor_and_bias(at);
        rectified_value(rectifier, *sum as f32 * (factor / to) + bias / to)
    };
    let values = sums.iter().enumerate().map(value);
    let Some(grid) = grid else { return Tensor::Values(values.collect()) };
    let zero = f32::from(grid.zero_point);
    let highest = f32::from(grid.highest());
    let code = |value: f32| (value.clamp(-zero, highest - zero).round_ties_even() + zero) as u8;
    Tensor::Codes(values.map(code).collect(), grid)
}

fn compute(
    node: &Node<'_>,
    inputs: &[&Tensor],
    [input, output]: [Value; 2],
) -> Result<Tensor, RuntimeError> {
    let first = inputs[0];
    Ok(match &node.op {
        Op::Product(product) => {
            let sums = product_sums(product, &product.weights.all()?, &first.integers());
            let factor_and_bias = |at: usize| {
                let channel = at % product.scales.len();
                let bias = product.float_bias.get(channel).copied().unwrap_or(0.0);
                (first.scale() * product.scales[channel], bias)
            };
            scaled(&sums, output.grid, product.rectifier, factor_and_bias)
        }
        Op::Add => {
            let (a, b) = (first.integers(), inputs[1].integers());
            let factor = 1.0 / output.grid.map_or(1.0, |grid| grid.scale);
            let sums = a
                .iter()
                .zip(&b)
                .map(|(&a, &b)| (a as f32 * first.scale() + b as f32 * inputs[1].scale()) * factor);
            let grid = output.grid.map(|grid| ActivationGrid { scale: 1.0, ..grid });
            match (rounded(sums.collect(), grid), output.grid) {
                (Tensor::Codes(codes, _), Some(grid)) => Tensor::Codes(codes, grid),
                (tensor, _) => tensor,
            }
        }
        Op::Mul => {
            let (a, b) = (first.integers(), inputs[1].integers());
            let products: Vec<i32> =
                a.iter().enumerate().map(|(at, a)| a * b[at % b.len()]).collect();
            let factor = first.scale() * inputs[1].scale();
            scaled(&products, output.grid, Rectifier::None, |_| (factor, 0.0))
        }
        Op::Concat(parts) => {
            let part = |(tensor, part): (&&Tensor, &Joined)| {
                let Tensor::Codes(codes, _) = tensor else { return (part.channels, Vec::new()) };
                let code = |&code: &u8| part.table.as_ref().map_or(code, |t| t[usize::from(code)]);
                (part.channels, codes.iter().map(code).collect())
            };
            let parts: Vec<(usize, Vec<u8>)> = inputs.iter().zip(parts).map(part).collect();
            let codes = joined(&parts);
            output.grid.map_or(Tensor::Values(Vec::new()), |grid| Tensor::Codes(codes, grid))
        }
        Op::Select(from) => {
            let pick = |at: usize| at / from.len() * input.channels + from[at % from.len()];
            match first {
                Tensor::Codes(codes, grid) => {
                    Tensor::Codes((0..output.len()).map(|at| codes[pick(at)]).collect(), *grid)
                }
                Tensor::Values(values) => {
                    Tensor::Values((0..output.len()).map(|at| values[pick(at)]).collect())
                }
            }
        }
        Op::ChannelTables(tables) => match (first, output.grid) {
            (Tensor::Codes(codes, _), Some(grid)) => {
                let table =
                    |(at, &code): (usize, &u8)| tables[at % tables.len()][usize::from(code)];
                Tensor::Codes(codes.iter().enumerate().map(table).collect(), grid)
            }
            _ => Tensor::Values(first.values()),
        },
        Op::Table(table) => match (first, output.grid) {
            (Tensor::Codes(codes, _), Some(grid)) => {
                Tensor::Codes(codes.iter().map(|&code| table[usize::from(code)]).collect(), grid)
            }
            _ => Tensor::Values(first.values()),
        },
        Op::MaxPool(shape) => {
            let codes = first.integers();
            let largest = each_window(*shape).map(|window| window.map(|at| codes[at]).max());
            let zero = output.grid.map_or(0, |grid| i32::from(grid.zero_point));
            let codes = largest.map(|code| (code.unwrap_or(0) + zero) as u8).collect();
            output.grid.map_or(Tensor::Values(Vec::new()), |grid| Tensor::Codes(codes, grid))
        }
        Op::MeanPool(shape) => {
            let codes = first.integers();
            let sums: Vec<i32> =
                each_window(*shape).map(|window| window.map(|at| codes[at]).sum()).collect();
            let count = (shape.kernel * shape.kernel) as f32;
            scaled(&sums, output.grid, Rectifier::None, |_| (first.scale() / count, 0.0))
        }
        Op::Pad { top, left } => {
            let values = first.values();
            let inside = |at: usize| {
                let (pixel, channel) = (at / output.channels, at % output.channels);
                let (row, column) = (pixel / output.width, pixel % output.width);
                let (row, column) = (row.checked_sub(*top)?, column.checked_sub(*left)?);
                (row < input.height && column < input.width)
                    .then(|| values[(row * input.width + column) * input.channels + channel])
            };
            let values = (0..output.len()).map(|at| inside(at).unwrap_or(0.0));
            rounded(values.collect(), output.grid)
        }
        Op::Shortcut { stride, before } => {
            let values = first.values();
            let moved = (0..output.len()).map(|at| {
                let (pixel, channel) = (at / output.channels, at % output.channels);
                let (row, column) = (pixel / output.width, pixel % output.width);
                let from = channel.checked_sub(*before).filter(|&from| from < input.channels);
                from.map_or(0.0, |from| {
                    values[(row * input.width + column) * stride * input.channels + from]
                })
            });
            rounded(moved.collect(), output.grid)
        }
        Op::Float(op, _) => {
            let inputs: Vec<Vec<f32>> = inputs.iter().map(|input| input.values()).collect();
            rounded(float(op, &inputs, [input, output]), output.grid)
        }
    })
}

/// The channels of tensors, of which each has so many, pixel by pixel.
fn joined<T: Copy>(parts: &[(usize, Vec<T>)]) -> Vec<T> {
    let pixels = parts.first().map_or(0, |(channels, values)| values.len() / channels);
    let of_pixel = |pixel: usize| {
        parts.iter().flat_map(move |(channels, values)| &values[pixel * channels..][..*channels])
    };
    (0..pixels).flat_map(of_pixel).copied().collect()
}

fn product_sums(product: &Product<'_>, weights: &[i8], input: &[i32]) -> Vec<i32> {
    let (conv, inputs_of) = match product.shape {
        LayerShape::Conv(conv) => (conv, conv.channels),
        LayerShape::Depthwise(conv) => (conv, 1),
        // A window that is the whole input.
        _ => {
            let (channels, outputs) = (input.len(), product.scales.len());
            let conv = ConvShape {
                channels,
                height: 1,
                width: 1,
                outputs,
                kernel: 1,
                stride: 1,
                padding: 0,
            };
            (conv, channels)
        }
    };
    let ConvShape { channels, height, width, outputs, kernel, stride, padding } = conv;
    let mut sums = Vec::new();
    for row in 0..conv.out_height() {
        for column in 0..conv.out_width() {
            for output in 0..outputs {
                let mut sum = product.bias.get(output).copied().unwrap_or(0);
                for (ky, kx) in (0..kernel * kernel).map(|tap| (tap / kernel, tap % kernel)) {
                    let (y, x) = (row * stride + ky, column * stride + kx);
                    if y < padding || x < padding || y - padding >= height || x - padding >= width {
                        continue;
                    }
                    let pixel = (y - padding) * width + x - padding;
                    for channel in 0..inputs_of {
                        let weight = ((output * kernel + ky) * kernel + kx) * inputs_of + channel;
                        let from = if inputs_of == channels { channel } else { output };
                        sum += input[pixel * channels + from] * i32::from(weights[weight]);
                    }
                }
                sums.push(sum);
            }
        }
    }
    sums
}

/// For every window and channel, the places of its values.
fn each_window(shape: PoolShape) -> impl Iterator<Item = impl Iterator<Item = usize>> {
    let PoolShape { channels, height, width, kernel, stride, padding } = shape;
    let windows = (0..shape.out_height()).flat_map(move |row| {
        (0..shape.out_width()).flat_map(move |column| (0..channels).map(move |c| (row, column, c)))
    });
    windows.map(move |(row, column, channel)| {
        (0..kernel * kernel).filter_map(move |tap| {
            let y = (row * stride + tap / kernel).checked_sub(padding)?;
            let x = (column * stride + tap % kernel).checked_sub(padding)?;
            (y < height && x < width).then_some((y * width + x) * channels + channel)
        })
    })
}

/// The pixels under a window along one axis, where they are inside the image.
fn under(axis: FloatAxis, window: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..axis.kernel).filter_map(move |tap| {
        let at = (window * axis.stride + tap * axis.dilation).checked_sub(axis.padding[0])?;
        (at < axis.size).then_some((tap, at))
    })
}

/// An operation in single precision, with sums in double precision.
fn float(op: &FloatOp, inputs: &[Vec<f32>], [input, output]: [Value; 2]) -> Vec<f32> {
    let x = &inputs[0];
    let each = |function: &dyn Fn(f32) -> f32| x.iter().map(|&value| function(value)).collect();
    match op {
        FloatOp::Product { shape, weights, bias, rectifier } => {
            float_product(*shape, x, weights, bias.as_deref(), *rectifier)
        }
        FloatOp::Add(rectifier) => (0..x.len())
            .map(|at| rectified_value(*rectifier, inputs.iter().map(|input| input[at]).sum()))
            .collect(),
        FloatOp::Relu => each(&|value| value.max(0.0)),
        FloatOp::Map(function) => {
            let mut out = vec![0.0; x.len()];
            if let Ok(map) = FloatMap::new(*function, Isa::Portable) {
                map.forward(x, &mut out);
            }
            out
        }
        FloatOp::Affine { scale, shift, rectifier } => {
            let affine = |(at, x): (usize, &f32)| {
                let value = x * scale[at % scale.len()] + shift[at % scale.len()];
                rectified_value(*rectifier, value)
            };
            x.iter().enumerate().map(affine).collect()
        }
        FloatOp::Mul => {
            let factors = &inputs[1];
            x.iter().enumerate().map(|(at, x)| x * factors[at % factors.len()]).collect()
        }
        FloatOp::Concat(channels) => {
            joined(&channels.iter().copied().zip(inputs.iter().cloned()).collect::<Vec<_>>())
        }
        FloatOp::ResponseNorm { size, alpha, beta, bias } => {
            let [alpha, beta, bias] = [*alpha, *beta, *bias].map(f64::from);
            let norm = |(at, &x_here): (usize, &f32)| {
                let channel = at % input.channels;
                let near =
                    channel.saturating_sub(size / 2)..input.channels.min(channel + size / 2 + 1);
                let square = |other: usize| f64::from(x[at - channel + other]).powi(2);
                let mean = near.map(square).sum::<f64>() / *size as f64;
                (f64::from(x_here) / (bias + alpha * mean).powf(beta)) as f32
            };
            x.iter().enumerate().map(norm).collect()
        }
        FloatOp::GlobalMean => {
            let (channels, area) = (input.channels, input.height * input.width);
            let sum = |channel: usize| -> f64 {
                x.iter().skip(channel).step_by(channels).map(|&value| f64::from(value)).sum()
            };
            (0..channels).map(|channel| (sum(channel) / area as f64) as f32).collect()
        }
        FloatOp::MaxPool(pool) | FloatOp::MeanPool(pool) => {
            let shape = windows(*pool, input, output);
            let is_max = matches!(op, FloatOp::MaxPool(_));
            // Padding that counts in a mean; what a rounded up window lacks beyond it does not.
            let counted = |axis: FloatAxis, before: usize, behind: usize, window: usize| {
                let (start, end) = (window * axis.stride, window * axis.stride + axis.kernel);
                let low = axis.padding[0] - if pool.count_include_pad { before } else { 0 };
                let high =
                    axis.padding[0] + axis.size + if pool.count_include_pad { behind } else { 0 };
                end.min(high) - start.max(low)
            };
            let mut out = Vec::new();
            for at in 0..output.len() {
                let (pixel, channel) = (at / output.channels, at % output.channels);
                let (row, column) = (pixel / output.width, pixel % output.width);
                let taps = under(shape.rows, row).flat_map(|(_, y)| {
                    under(shape.columns, column)
                        .map(move |(_, x)| (y * input.width + x) * input.channels + channel)
                });
                let pad = pool.padding;
                out.push(if is_max {
                    taps.map(|at| x[at]).fold(f32::NEG_INFINITY, f32::max)
                } else {
                    let count = counted(shape.rows, pad.top, pad.bottom, row)
                        * counted(shape.columns, pad.left, pad.right, column);
                    (taps.map(|at| f64::from(x[at])).sum::<f64>() / count as f64) as f32
                });
            }
            out
        }
    }
}

fn float_product(
    shape: FloatConvShape,
    x: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    rectifier: Rectifier,
) -> Vec<f32> {
    let FloatConvShape { channels, outputs, groups, rows, columns } = shape;
    let (inputs, per_group) = (channels / groups, outputs / groups);
    let mut out = Vec::new();
    for (row, column) in
        (0..rows.windows()).flat_map(|row| (0..columns.windows()).map(move |c| (row, c)))
    {
        for output in 0..outputs {
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias[output]));
            for (ky, y) in under(rows, row) {
                for (kx, column) in under(columns, column) {
                    for input in 0..inputs {
                        let weight =
                            ((output * inputs + input) * rows.kernel + ky) * columns.kernel + kx;
                        let channel = output / per_group * inputs + input;
                        let value = x[(y * columns.size + column) * channels + channel];
                        sum += f64::from(value) * f64::from(weights[weight]);
                    }
                }
            }
            out.push(rectified_value(rectifier, sum as f32));
        }
    }
    out
}
