//! From a graph to steps with packed weights.

use releq_kernels::{
    BitPair, Choice, Epilogue, Kernel, KernelError, Layer, LayerShape, PoolShape, Rectifier,
};

use crate::{
    Mode, Options, RuntimeError,
    float::FloatStep,
    graph::{Node, Op, Product, Value},
    step::Step,
    weights::Totals,
};

/// The step of a node, which reads and gives some of these tensors.
pub(crate) fn step(
    values: &[Value],
    node: &Node<'_>,
    options: &Options,
) -> Result<Step, RuntimeError> {
    let (input, output) = (values[node.inputs[0]], values[node.output]);
    let of_layer = |source| RuntimeError::Layer { layer: node.layer.clone(), source };
    let epilogue = |result: Result<Epilogue, KernelError>| {
        result.map_err(|source| match source {
            KernelError::NotFinite { .. } => RuntimeError::Scale { layer: node.layer.clone() },
            source => of_layer(source),
        })
    };
    Ok(match &node.op {
        Op::Product(product) => {
            let shift = if options.mode == Mode::Int8 { eight_bits(product) } else { 0 };
            Step::Product {
                epilogue: epilogue(product_epilogue(product, shift, input, output))?,
                layer: Box::new(layer(product, shift, input, options).map_err(|refused| {
                    match refused {
                        Refused::Kernel(source) => of_layer(source),
                        Refused::Weights(error) => error,
                    }
                })?),
            }
        }
        Op::Add => {
            let scale = output.grid.map_or(1.0, |grid| grid.scale);
            Step::Add { factor: 1.0 / scale }
        }
        Op::Mul => {
            let second = values[node.inputs[1]];
            let [a, b] = [input, second].map(|value| value.grid.map_or(1.0, |grid| grid.scale));
            let scale = a * b / output.grid.map_or(1.0, |grid| grid.scale);
            if !scale.is_finite() {
                return Err(RuntimeError::Scale { layer: node.layer.clone() });
            }
            Step::Mul { scale }
        }
        Op::Concat(inputs) => Step::Concat(inputs.clone()),
        Op::Select(from) => Step::Select { from: from.clone(), channels: input.channels },
        Op::ChannelTables(tables) => Step::ChannelTables(tables.clone()),
        Op::Table(table) => Step::Table(table.clone()),
        Op::MaxPool(shape) => Step::MaxPool(*shape),
        Op::MeanPool(shape) => {
            Step::MeanPool(*shape, epilogue(mean_epilogue(*shape, input, output))?)
        }
        Op::Pad { top, left } => Step::Pad { top: *top, left: *left, input, output },
        Op::Shortcut { stride, before } => {
            Step::Shortcut { stride: *stride, before: *before, input, output }
        }
        Op::Float(op, why) => {
            Step::Float(FloatStep::new(op, input, output, options.isa).map_err(of_layer)?, why)
        }
    })
}

/// By how many bits the weights of a layer can be shifted so that they fill 8. Scales are divided by as much, which changes
/// no result: both are powers of two.
fn eight_bits(product: &Product<'_>) -> u32 {
    let shift = u32::from(8 - product.bits);
    let fits = product.totals.iter().enumerate().all(|(channel, totals)| {
        let bias = product.bias.get(channel).map_or(0, |&bias| i64::from(bias).abs());
        (totals.magnitude * 2 * 255 + bias) << shift <= i64::from(i32::MAX)
    });
    if fits { shift } else { 0 }
}

/// Why the weights of a layer are not packed.
enum Refused {
    Kernel(KernelError),
    Weights(RuntimeError),
}

impl From<KernelError> for Refused {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

fn layer(
    product: &Product<'_>,
    shift: u32,
    input: Value,
    options: &Options,
) -> Result<Layer, Refused> {
    let zero_point = input.grid.map_or(0, |grid| grid.zero_point);
    let (choice, bits) = match (options.mode, product.shape) {
        (Mode::Int8, LayerShape::Depthwise(_)) => (Some(Choice::requested(Kernel::Depthwise)), 8),
        (Mode::Int8, _) => (Some(Choice::requested(Kernel::Int8)), 8),
        _ => (None, product.bits),
    };
    let weights = |output: usize, out: &mut [i8]| {
        product.weights.write(output, out).map_err(Refused::Weights)?;
        if shift > 0 {
            out.iter_mut().for_each(|weight| *weight <<= shift);
        }
        Ok(())
    };
    let activation_bits = match options.mode {
        Mode::Int8 => 8,
        _ => input.grid.map_or(8, |grid| grid.bits.get()),
    };
    let bits = BitPair::new(bits, activation_bits)?;
    let mut choice = match choice {
        Some(choice) => choice,
        None => Choice::of(product.shape, bits, options.isa)?,
    };
    let is_padded = matches!(product.shape, LayerShape::Conv(shape) if shape.padding > 0);
    if choice.kernel == Kernel::BitSerial && is_padded && zero_point != 0 {
        choice = Choice {
            kernel: Kernel::Int8,
            reason: "bit planes are padded with the code 0, and zero has another code here",
        };
    }
    let layer =
        Layer::pack_rows::<Refused>(Some(choice), product.shape, bits, options.isa, weights)?;
    Ok(layer.with_padding_code(zero_point)?)
}

/// Sums of products to codes or values: `sum((code - zero point) * weight)` is `sum(code * weight)` and a number that is the
/// same for all pixels.
fn product_epilogue(
    product: &Product<'_>,
    shift: u32,
    input: Value,
    output: Value,
) -> Result<Epilogue, KernelError> {
    let (scale, zero_point) = input.grid.map_or((1.0, 0), |grid| (grid.scale, grid.zero_point));
    let to = output.grid.map_or(1.0, |grid| grid.scale);
    let offset = |(channel, totals): (usize, &Totals)| {
        // Lowering bounds the sum of magnitudes.
        let sum = totals.sum as i32;
        (product.bias.get(channel).copied().unwrap_or(0) - i32::from(zero_point) * sum) << shift
    };
    let offsets: Vec<i32> = product.totals.iter().enumerate().map(offset).collect();
    let parts = (1_u32 << shift) as f32;
    let scales: Vec<f32> =
        product.scales.iter().map(|weight| scale * weight / to / parts).collect();
    let bias = |channel: usize| product.float_bias.get(channel).map_or(0.0, |bias| bias / to);
    let biases: Vec<f32> = (0..scales.len()).map(bias).collect();
    let relu = product.rectifier != Rectifier::None;
    let epilogue = Epilogue::new(&scales, &biases, relu)?
        .with_offsets(&offsets)?
        .with_zero_point(output.grid.map_or(0, |grid| grid.zero_point));
    match product.rectifier {
        Rectifier::Clipped { ceiling } => epilogue.with_ceiling(ceiling / to),
        Rectifier::None | Rectifier::Relu => Ok(epilogue),
    }
}

/// Sums of windows to codes or values of their means.
fn mean_epilogue(shape: PoolShape, input: Value, output: Value) -> Result<Epilogue, KernelError> {
    let (scale, zero_point) = input.grid.map_or((1.0, 0), |grid| (grid.scale, grid.zero_point));
    let to = output.grid.map_or(1.0, |grid| grid.scale);
    let count = shape.kernel * shape.kernel;
    // Lowering bounds the windows: neither is beyond 30 bits.
    let offset = -(count as i32) * i32::from(zero_point);
    let (channels, factor) = (shape.channels, scale / count as f32 / to);
    Epilogue::new(&vec![factor; channels], &vec![0.0; channels], false)?
        .with_offsets(&vec![offset; channels])
        .map(|epilogue| epilogue.with_zero_point(output.grid.map_or(0, |grid| grid.zero_point)))
}
