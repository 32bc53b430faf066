//! A network as a runtime sees it: tensors, and what computes one from others. Norms, rectifiers and dropouts are part of the
//! layers before them, and a flattened image is the image.

use releq_core::{Bitwidth, Pool2d};
use releq_kernels::{FloatConvShape, FloatFunction, LayerShape, PoolShape, Rectifier};
use releq_quant::ActivationGrid;

use crate::weights::{Totals, Weights};

/// A tensor between two layers: `[height][width][channels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Of its codes; `None` for values in single precision.
    pub(crate) grid: Option<ActivationGrid>,
}

impl Value {
    pub(crate) const fn len(&self) -> usize {
        self.channels * self.height * self.width
    }
}

/// What leaves a layer, `[height][width][channels]`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation<'a> {
    /// Codes of up to 8 bits, a byte each.
    Codes {
        /// The codes.
        codes: &'a [u8],
        /// What they stand for.
        grid: ActivationGrid,
    },
    /// Single precision.
    Values(&'a [f32]),
}

/// A network; tensor 0 is its input.
pub(crate) struct Graph<'a> {
    pub(crate) values: Vec<Value>,
    /// In the order in which they are computed.
    pub(crate) nodes: Vec<Node<'a>>,
    pub(crate) output: usize,
}

/// What computes a tensor.
pub(crate) struct Node<'a> {
    /// Name of the layer.
    pub(crate) layer: String,
    /// Word for its operation.
    pub(crate) kind: &'static str,
    /// Bitwidth of its weights, if it has any.
    pub(crate) bits: Option<Bitwidth>,
    pub(crate) inputs: Vec<usize>,
    pub(crate) output: usize,
    pub(crate) op: Op<'a>,
}

pub(crate) enum Op<'a> {
    /// On codes, with sums of 32 bits.
    Product(Product<'a>),
    /// Sum of two tensors of codes.
    Add,
    /// Products of two tensors of codes: of one size, or the second has a factor for every channel.
    Mul,
    /// The channels of all tensors of codes.
    Concat(Vec<Joined>),
    /// Channels of a tensor, by their numbers there. On codes or values.
    Select(Vec<usize>),
    /// A function of every code, another one for each channel.
    ChannelTables(Vec<[u8; 256]>),
    /// A function of every code.
    Table(Box<[u8; 256]>),
    /// Largest code of every window.
    MaxPool(PoolShape),
    /// Mean of every window.
    MeanPool(PoolShape),
    /// Every `stride`-th pixel of every `stride`-th row, `before` channels of zeros before those that came, and as many behind
    /// as there is room for. On codes or values.
    Shortcut { stride: usize, before: usize },
    /// A margin of zeros, for windows that are not padded alike on all sides. On codes.
    Pad { top: usize, left: usize },
    /// In single precision, and why.
    Float(FloatOp, &'static str),
}

/// A tensor of codes whose channels are joined with those of others.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) channels: usize,
    /// What its codes become, where its grid is another than that of the whole.
    pub(crate) table: Option<Box<[u8; 256]>>,
}

/// A convolution or fully connected layer on integers.
pub(crate) struct Product<'a> {
    pub(crate) shape: LayerShape,
    pub(crate) weights: Weights<'a>,
    /// Of the weights of every output channel.
    pub(crate) totals: Vec<Totals>,
    /// Bits that hold all weights in two's complement.
    pub(crate) bits: u8,
    /// Of every output channel, in units of the product of both scales. Empty if there is none.
    pub(crate) bias: Vec<i32>,
    /// What is added after scaling, where a bias is too large to be a whole number. Empty if there is none.
    pub(crate) float_bias: Vec<f32>,
    /// Of the weights of every output channel.
    pub(crate) scales: Vec<f32>,
    /// The rectifier behind it.
    pub(crate) rectifier: Rectifier,
}

/// An operation in single precision.
#[derive(Clone, Debug)]
pub(crate) enum FloatOp {
    Product {
        shape: FloatConvShape,
        weights: Vec<f32>,
        bias: Option<Vec<f32>>,
        rectifier: Rectifier,
    },
    Add(Rectifier),
    /// As [`Op::Mul`].
    Mul,
    /// The channels of all tensors: how many each has.
    Concat(Vec<usize>),
    /// Every value divided by a power of the mean square of `size` channels around it.
    ResponseNorm {
        size: usize,
        alpha: f32,
        beta: f32,
        bias: f32,
    },
    Map(FloatFunction),
    Relu,
    MaxPool(Pool2d),
    MeanPool(Pool2d),
    GlobalMean,
    /// A factor and a summand for every channel, and a rectifier behind them.
    Affine {
        scale: Vec<f32>,
        shift: Vec<f32>,
        rectifier: Rectifier,
    },
}
