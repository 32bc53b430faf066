//! From the layers of a packed network to a graph.

mod channels;

use releq_core::{
    Activation as Function, Axes, Bitwidth, Conv2d, Network, Op as Layer, Pool2d, Shape, Sides,
};
use releq_format::{Codes, FloatLayer, IntegerLayer, packed::Packed};
use releq_kernels::{
    BitPair, ConvShape, FloatAxis, FloatConvShape, FloatFunction, GemmShape, LayerShape, PoolShape,
    Rectifier,
};
use releq_quant::{ActivationGrid, ActivationGrids};

use crate::{
    RuntimeError, float,
    graph::{FloatOp, Graph, Node, Op, Product, Value},
    weights::{Totals, Weights, channels_last, unread},
};

/// Why all layers of a file without grids are in single precision.
pub(crate) const NO_GRIDS: &str = "the file has no grids of activations; `releq export --form packed --activation-bits 8` finds them";

/// The most values in a tensor: an image of 16,384 x 16,384 pixels. Few bytes of a file can name any size, and tables for windows
/// are in proportion to it.
const MOST_VALUES: usize = 1 << 28;
/// The most channels of a shortcut, which are not bounded by weights as others are.
const MOST_CHANNELS: usize = 1 << 20;

/// A graph in which every layer computes with integers that can, or in which none does if `floats` says why.
///
/// Weights of integer layers stay where they are until they are asked for.
pub(crate) fn lower<'a, C: Codes>(
    packed: &'a Packed<C>,
    floats: Option<&'static str>,
) -> Result<Graph<'a>, RuntimeError> {
    let (grids, why_float) = match (floats, &packed.activations) {
        (None, Some(grids)) => (Some(grids), ""),
        (None, None) => (None, NO_GRIDS),
        (Some(why), _) => (None, why),
    };
    let network = packed.model.network();
    let [channels, height, width] = network.input();
    let too_large = |layer: &str, values: usize| match values > MOST_VALUES {
        false => Ok(()),
        true => Err(RuntimeError::TooLarge { layer: layer.to_owned(), values, most: MOST_VALUES }),
    };
    too_large("input", channels * height * width)?;
    for (index, node) in network.nodes().iter().enumerate() {
        too_large(&node.name, network.shape(index).len())?;
    }
    let input = Value { channels, height, width, grid: grids.map(|grids| grids.input) };
    let mut lowering = Lowering {
        packed,
        network,
        grids,
        why_float,
        values: vec![input],
        nodes: Vec::new(),
        tensors: vec![None; network.nodes().len()],
    };
    for index in 0..network.nodes().len() {
        if lowering.tensors[index].is_none() {
            lowering.layer(index)?;
        }
    }
    // A checked network has a layer, and every layer has a tensor by now.
    let output = lowering.tensors.last().copied().flatten().unwrap_or(0);
    Ok(Graph { values: lowering.values, nodes: lowering.nodes, output })
}

struct Lowering<'a, C> {
    packed: &'a Packed<C>,
    network: &'a Network,
    grids: Option<&'a ActivationGrids>,
    why_float: &'static str,
    values: Vec<Value>,
    nodes: Vec<Node<'a>>,
    /// What each layer gives, once it is lowered.
    tensors: Vec<Option<usize>>,
}

/// A layer with what follows it as part of it.
struct Chain {
    /// The norm.
    norm: Option<usize>,
    rectifier: Rectifier,
    /// The last layer, whose tensor this is.
    last: usize,
}

impl<'a, C: Codes> Lowering<'a, C> {
    fn layer(&mut self, index: usize) -> Result<(), RuntimeError> {
        let node = &self.network.nodes()[index];
        match node.op {
            Layer::Conv2d(_) | Layer::Linear { .. } => self.product(index),
            Layer::Add => self.add(index),
            Layer::Mul => self.mul(index),
            Layer::Concat => self.concat(index),
            Layer::ChannelSlice { .. } | Layer::ChannelShuffle { .. } => self.select(index),
            Layer::LocalResponseNorm { size, alpha, beta, bias } => {
                if self.reads_flattened(index) {
                    return Err(self.unsupported(index, "of a flattened image"));
                }
                let op = FloatOp::ResponseNorm { size, alpha, beta, bias };
                let why = match self.grids {
                    Some(_) => "it has no kernel on integers",
                    None => self.why_float,
                };
                self.push(index, &Self::alone(index), Op::Float(op, why));
                Ok(())
            }
            Layer::Flatten | Layer::Dropout { .. } => {
                self.tensors[index] = Some(self.source(index, 0));
                Ok(())
            }
            Layer::Relu => self.function(index, None),
            Layer::Activation(function) => match float::function_of(function) {
                Some(function) => self.function(index, Some(function)),
                None => Err(self.unsupported(index, "at all")),
            },
            Layer::MaxPool(pool) => self.max_pool(index, pool),
            Layer::AvgPool(pool) => self.mean_pool(index, Some(pool)),
            Layer::GlobalAvgPool => self.mean_pool(index, None),
            Layer::BatchNorm { .. } | Layer::ScaleShift => self.affine(index),
            Layer::PaddedShortcut { out_channels, stride } => {
                self.shortcut(index, out_channels, stride)
            }
            _ => Err(self.unsupported(index, "at all")),
        }
    }

    fn unsupported(&self, index: usize, reason: &'static str) -> RuntimeError {
        let node = &self.network.nodes()[index];
        RuntimeError::Unsupported { layer: node.name.clone(), op: node.op.kind(), reason }
    }

    /// The tensor that layer `index` reads by an input.
    fn source(&self, index: usize, input: usize) -> usize {
        let source = self.network.sources(index)[input];
        source.and_then(|source| self.tensors[source]).unwrap_or(0)
    }

    /// The grid of what a layer gives. The logits have none.
    fn grid(&self, index: usize) -> Option<ActivationGrid> {
        let is_last = index + 1 == self.network.nodes().len();
        let grid = self.grids?.layers.get(&self.network.nodes()[index].name);
        grid.copied().filter(|_| !is_last)
    }

    /// The only layer that reads layer `index`, unless that is rounded or the last one.
    fn follower(&self, index: usize) -> Option<usize> {
        if self
            .grids
            .is_some_and(|grids| grids.layers.contains_key(&self.network.nodes()[index].name))
        {
            return None;
        }
        let count = self.network.nodes().len();
        let mut readers = (index + 1..count)
            .filter(|&reader| self.network.sources(reader).contains(&Some(index)));
        readers.next().filter(|_| readers.next().is_none())
    }

    fn chain(&self, index: usize, takes_norm: bool) -> Chain {
        let mut chain = Chain { norm: None, rectifier: Rectifier::None, last: index };
        while let Some(next) = self.follower(chain.last) {
            match self.network.nodes()[next].op {
                Layer::BatchNorm { .. } | Layer::ScaleShift
                    if takes_norm && chain.norm.is_none() && chain.rectifier == Rectifier::None =>
                {
                    chain.norm = Some(next);
                }
                Layer::Relu if chain.rectifier == Rectifier::None => {
                    chain.rectifier = Rectifier::Relu;
                }
                Layer::Activation(Function::Clip { min, max })
                    if chain.rectifier == Rectifier::None
                        && min == 0.0
                        && max > 0.0
                        && max.is_finite() =>
                {
                    chain.rectifier = Rectifier::Clipped { ceiling: max };
                }
                _ => break,
            }
            chain.last = next;
        }
        chain
    }

    /// Adds a node whose tensor is that of all layers from `first` to the last one of the chain.
    fn push(&mut self, first: usize, chain: &Chain, op: Op<'a>) -> usize {
        let inputs =
            (0..self.network.sources(first).len()).map(|input| self.source(first, input)).collect();
        let node = &self.network.nodes()[first];
        let bits = node.op.is_quantizable().then(|| {
            self.packed.model.codes(&node.name).map_or(Bitwidth::FLOAT, |codes| codes.bits())
        });
        let (channels, height, width) = match self.network.shape(chain.last) {
            Shape::Image { channels, height, width } => (channels, height, width),
            // Functions of a flattened image leave it an image.
            Shape::Vector { features } => match self.values[self.source(first, 0)] {
                Value { channels, height, width, .. }
                    if channels * height * width == features && !node.op.is_quantizable() =>
                {
                    (channels, height, width)
                }
                _ => (features, 1, 1),
            },
        };
        let output = self.values.len();
        self.values.push(Value { channels, height, width, grid: self.grid(chain.last) });
        let (layer, kind) = (node.name.clone(), node.op.kind());
        self.nodes.push(Node { layer, kind, bits, inputs, output, op });
        for index in [Some(first), chain.norm, Some(chain.last)].into_iter().flatten() {
            self.tensors[index] = Some(output);
        }
        output
    }

    fn alone(index: usize) -> Chain {
        Chain { norm: None, rectifier: Rectifier::None, last: index }
    }

    /// Whether a layer reads an image that was flattened, whose values are in another order than a vector's.
    fn reads_flattened(&self, index: usize) -> bool {
        let Value { height, width, .. } = self.values[self.source(index, 0)];
        matches!(self.network.input_shape(index), Shape::Vector { .. }) && height * width > 1
    }

    fn product(&mut self, index: usize) -> Result<(), RuntimeError> {
        let chain = self.chain(index, true);
        let input = self.values[self.source(index, 0)];
        let op = self.network.nodes()[index].op;
        if let (Layer::Conv2d(conv), Some(_)) = (op, input.grid)
            && conv.padding.equal().is_none()
        {
            let Sides { top, left, bottom, right } = conv.padding;
            let height = top.saturating_add(input.height).saturating_add(bottom);
            let width = left.saturating_add(input.width).saturating_add(right);
            let padded = Value { height, width, ..input };
            let bare = Layer::Conv2d(conv.padding(0));
            let len = input.channels.checked_mul(height).and_then(|len| len.checked_mul(width));
            if len.is_some_and(|len| len <= MOST_VALUES)
                && let Ok(product) = self.integer_product(index, bare, padded, &chain)?
            {
                let margin = self.push(index, &Self::alone(index), Op::Pad { top, left });
                self.values[margin] = padded;
                if let Some(node) = self.nodes.last_mut() {
                    (node.kind, node.bits) = ("padding", None);
                }
                self.push(index, &chain, Op::Product(product));
                if let Some(node) = self.nodes.last_mut() {
                    node.inputs = vec![margin];
                }
                return Ok(());
            }
        }
        let op = match self.integer_product(index, op, input, &chain)? {
            Ok(product) => Op::Product(product),
            Err(why) => Op::Float(self.float_product(index, &chain)?, why),
        };
        self.push(index, &chain, op);
        Ok(())
    }

    /// A layer on integers, or the reason why it cannot be one.
    fn integer_product(
        &self,
        index: usize,
        op: Layer,
        input: Value,
        chain: &Chain,
    ) -> Result<Result<Product<'a>, &'static str>, RuntimeError> {
        let Some(grid) = input.grid else {
            return Ok(Err(if self.grids.is_some() {
                "what it reads is not rounded"
            } else {
                self.why_float
            }));
        };
        let layer = match self.packed.model.integer_layer(index, chain.norm, Some(grid)) {
            Ok(Some(layer)) => layer,
            Ok(None) => return Ok(Err("its weights are not quantized")),
            Err(_) => return Ok(Err("whole numbers cannot express its weights")),
        };
        let shape = match op {
            Layer::Conv2d(conv) => conv_shape(conv, input),
            _ => Ok(LayerShape::Gemm(GemmShape {
                pixels: 1,
                outputs: self.network.shape(index).channels(),
                depth: input.len(),
            })),
        };
        let shape = match shape {
            Ok(shape) => shape,
            Err(why) => return Ok(Err(why)),
        };
        let name = &self.network.nodes()[index].name;
        integers(name, shape, input, layer, grid, chain.rectifier)
    }

    fn float_product(&self, index: usize, chain: &Chain) -> Result<FloatOp, RuntimeError> {
        let input = self.values[self.source(index, 0)];
        let FloatLayer { weights, bias } = self
            .packed
            .model
            .float_layer(index, chain.norm)
            .map_err(|error| unread(&self.network.nodes()[index].name, error))?;
        let (shape, weights) = match self.network.nodes()[index].op {
            Layer::Conv2d(conv) => (float_shape(conv, input), weights),
            _ => {
                let one = FloatAxis::new(1, 1);
                let (channels, outputs) = (input.len(), self.network.shape(index).channels());
                let shape =
                    FloatConvShape { channels, outputs, groups: 1, rows: one, columns: one };
                let mut moved = vec![0.0; weights.len()];
                let rows = moved.chunks_exact_mut(channels).zip(weights.chunks_exact(channels));
                for (to, from) in rows {
                    channels_last(from, input.channels, to, |weight| weight);
                }
                (shape, moved)
            }
        };
        let bias = bias.map(|bias| bias.into_iter().map(|bias| bias as f32).collect());
        Ok(FloatOp::Product { shape, weights, bias, rectifier: chain.rectifier })
    }

    fn add(&mut self, index: usize) -> Result<(), RuntimeError> {
        let chain = self.chain(index, false);
        let values = self.inputs(index);
        let size = |value: &Value| [value.channels, value.height, value.width];
        if values.iter().any(|value| size(value) != size(&values[0])) {
            return Err(self.unsupported(index, "of a flattened image and a vector"));
        }
        let grid = self.grid(chain.last);
        let on_codes =
            values.len() == 2 && grid.is_some() && values.iter().all(|value| value.grid.is_some());
        let why = if self.grids.is_none() { self.why_float } else { "it adds what is not rounded" };
        match (grid, chain.rectifier) {
            // The ends of the grid rectify.
            (Some(grid), rectifier) if on_codes && is_within(grid, rectifier) => {
                self.push(index, &chain, Op::Add);
            }
            (Some(grid), rectifier) if on_codes => {
                let sum = self.push(index, &chain, Op::Add);
                let rectified = self.values.len();
                self.values.push(self.values[sum]);
                let function = |value: f32| rectified_value(rectifier, value);
                let node = Node {
                    layer: self.network.nodes()[chain.last].name.clone(),
                    kind: self.network.nodes()[chain.last].op.kind(),
                    bits: None,
                    inputs: vec![sum],
                    output: rectified,
                    op: Op::Table(float::table(grid, grid, function)),
                };
                self.nodes.push(node);
                self.tensors[index] = Some(rectified);
                self.tensors[chain.last] = Some(rectified);
            }
            (_, rectifier) => {
                self.push(index, &chain, Op::Float(FloatOp::Add(rectifier), why));
            }
        }
        Ok(())
    }

    /// A function of every value: ReLU, if none is named.
    fn function(
        &mut self,
        index: usize,
        function: Option<FloatFunction>,
    ) -> Result<(), RuntimeError> {
        let float = function.map_or(FloatOp::Relu, FloatOp::Map);
        let op = match (self.values[self.source(index, 0)].grid, self.grid(index)) {
            (Some(from), Some(to)) => match function {
                Some(function) => {
                    let table = float::function_table(from, to, function);
                    Op::Table(table.map_err(RuntimeError::Isa)?)
                }
                None => Op::Table(float::table(from, to, |value| value.max(0.0))),
            },
            _ => Op::Float(float, self.why(index)),
        };
        self.push(index, &Self::alone(index), op);
        Ok(())
    }

    /// Why a layer other than a product is in single precision.
    fn why(&self, index: usize) -> &'static str {
        match (self.grids, self.values[self.source(index, 0)].grid) {
            (None, _) => self.why_float,
            (_, None) => "what it reads is not rounded",
            _ => "what it gives is not rounded",
        }
    }

    fn max_pool(&mut self, index: usize, pool: Pool2d) -> Result<(), RuntimeError> {
        let (input, grid) = (self.values[self.source(index, 0)], self.grid(index));
        let op = match pool_shape(pool, input, self.network.shape(index)) {
            Some(shape) if input.grid.is_some() && input.grid == grid => Op::MaxPool(shape),
            Some(_) if input.grid.is_some() && grid.is_some() => {
                Op::Float(FloatOp::MaxPool(pool), "its grid is another than that of what it reads")
            }
            Some(_) => Op::Float(FloatOp::MaxPool(pool), self.why(index)),
            None => Op::Float(FloatOp::MaxPool(pool), NOT_SQUARE),
        };
        self.push(index, &Self::alone(index), op);
        Ok(())
    }

    /// Means of windows, or of whole images.
    fn mean_pool(&mut self, index: usize, pool: Option<Pool2d>) -> Result<(), RuntimeError> {
        let input = self.values[self.source(index, 0)];
        let shape = match pool {
            Some(pool) => pool_shape(pool, input, self.network.shape(index))
                .filter(|shape| shape.padding == 0),
            None => (input.height == input.width).then_some(PoolShape {
                channels: input.channels,
                height: input.height,
                width: input.width,
                kernel: input.height,
                stride: 1,
                padding: 0,
            }),
        };
        // The sum of 2^22 codes of either sign still fits in 32 bits.
        let shape = shape.filter(|shape| shape.kernel <= 1 << 11);
        let op = match shape {
            Some(shape) if input.grid.is_some() => Op::MeanPool(shape),
            _ => {
                let why = if input.grid.is_none() { self.why(index) } else { NOT_SQUARE };
                Op::Float(pool.map_or(FloatOp::GlobalMean, FloatOp::MeanPool), why)
            }
        };
        self.push(index, &Self::alone(index), op);
        Ok(())
    }

    fn shortcut(
        &mut self,
        index: usize,
        channels: usize,
        stride: usize,
    ) -> Result<(), RuntimeError> {
        if channels > MOST_CHANNELS {
            return Err(self.unsupported(index, "with as many channels"));
        }
        let input = self.values[self.source(index, 0)];
        let output = self.push(
            index,
            &Self::alone(index),
            Op::Shortcut { stride, before: (channels - input.channels) / 2 },
        );
        // It moves codes, whatever the grid that a file gives it.
        self.values[output].grid = input.grid;
        Ok(())
    }
}

const NOT_SQUARE: &str = "its windows are not square, not whole or not padded alike";

/// Whether the codes of a grid are none that the rectifier would change.
fn is_within(grid: ActivationGrid, rectifier: Rectifier) -> bool {
    let highest = grid.scale * f32::from(grid.highest().saturating_sub(grid.zero_point));
    match rectifier {
        Rectifier::None => true,
        Rectifier::Relu => grid.zero_point == 0,
        Rectifier::Clipped { ceiling } => grid.zero_point == 0 && highest <= ceiling,
    }
}

/// A rectifier's function.
pub(crate) fn rectified_value(rectifier: Rectifier, value: f32) -> f32 {
    match rectifier {
        Rectifier::None => value,
        Rectifier::Relu => value.max(0.0),
        Rectifier::Clipped { ceiling } => value.max(0.0).min(ceiling),
    }
}

/// The shape of an integer convolution, or the reason why there is none.
fn conv_shape(conv: Conv2d, input: Value) -> Result<LayerShape, &'static str> {
    let Value { channels, height, width, .. } = input;
    let (Some(kernel), Some(stride), Some(padding)) =
        (conv.kernel.equal(), conv.stride.equal(), conv.padding.equal())
    else {
        return Err("its kernel, stride or padding differs by axis or side");
    };
    if conv.dilation != Axes::new(1, 1) {
        return Err("its kernel is dilated");
    }
    let outputs = conv.out_channels;
    let shape = ConvShape { channels, height, width, outputs, kernel, stride, padding };
    match conv.groups {
        1 => Ok(LayerShape::Conv(shape)),
        groups if groups == channels && outputs == channels => Ok(LayerShape::Depthwise(shape)),
        _ => Err("it has groups of several channels"),
    }
}

pub(crate) fn float_axes(
    input: Value,
    kernel: Axes,
    stride: Axes,
    padding: Sides,
) -> [FloatAxis; 2] {
    let axis =
        |size, kernel, stride, padding| FloatAxis { size, kernel, stride, dilation: 1, padding };
    let Sides { top, left, bottom, right } = padding;
    [
        axis(input.height, kernel.height, stride.height, [top, bottom]),
        axis(input.width, kernel.width, stride.width, [left, right]),
    ]
}

fn float_shape(conv: Conv2d, input: Value) -> FloatConvShape {
    let [rows, columns] = float_axes(input, conv.kernel, conv.stride, conv.padding);
    FloatConvShape {
        channels: input.channels,
        outputs: conv.out_channels,
        groups: conv.groups,
        rows: FloatAxis { dilation: conv.dilation.height, ..rows },
        columns: FloatAxis { dilation: conv.dilation.width, ..columns },
    }
}

/// The shape of windows on codes; `None` for those that have no kernel.
fn pool_shape(pool: Pool2d, input: Value, output: Shape) -> Option<PoolShape> {
    let Value { channels, height, width, .. } = input;
    let (kernel, stride) = (pool.kernel.equal()?, pool.stride.equal()?);
    let shape =
        PoolShape { channels, height, width, kernel, stride, padding: pool.padding.equal()? };
    shape.check().ok()?;
    // A last window that reaches beyond the padding is in another number of windows.
    let windows = Shape::Image { channels, height: shape.out_height(), width: shape.out_width() };
    (windows == output).then_some(shape)
}

/// The weights of a layer for integer kernels, or the reason why it has none.
fn integers<'a, C: Codes>(
    name: &'a str,
    shape: LayerShape,
    input: Value,
    layer: IntegerLayer<'a, C>,
    grid: ActivationGrid,
    rectifier: Rectifier,
) -> Result<Result<Product<'a>, &'static str>, RuntimeError> {
    let (outputs, row) = (shape.outputs(), shape.depth());
    let channels = match shape {
        LayerShape::Conv(conv) => conv.channels,
        LayerShape::Depthwise(_) => 1,
        _ => input.channels,
    };
    let scales = (0..outputs).map(|channel| layer.scale(channel)).collect();
    let (bias, float_bias) = match layer.bias_codes(grid.scale) {
        Some(codes) => (codes, Vec::new()),
        None => {
            let bias = layer.bias.iter().flatten();
            (Vec::new(), bias.map(|&bias| bias as f32).collect())
        }
    };
    let weights = Weights::new(name, layer, [outputs, row, channels]);
    let ([low, high], totals) = weights.survey()?;
    if low < i8::MIN.into() || high > i8::MAX.into() {
        return Ok(Err("its levels exceed 8 bits"));
    }
    let exceeds = |(channel, totals): (usize, &Totals)| {
        let bias = bias.get(channel).map_or(0, |&bias: &i32| i64::from(bias).abs());
        // Codes, and the zero point that is taken from them.
        totals.magnitude * 2 * 255 + bias > i64::from(i32::MAX)
    };
    let fits = |bits: &u8| {
        let half = 1_i16 << (bits - 1);
        low >= -half && high < half
    };
    // Eight bits hold every one.
    let bits = (1..=8).find(fits).unwrap_or(8);
    let is_deep = BitPair::new(bits, 8).and_then(|pair| pair.check_depth(row)).is_err();
    if is_deep || totals.iter().enumerate().any(exceeds) {
        return Ok(Err("its sums could exceed 32 bits"));
    }
    Ok(Ok(Product { shape, weights, totals, bits, bias, float_bias, scales, rectifier }))
}
