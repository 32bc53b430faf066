//! A network as data: a graph of named layers, checked and shape-inferred once.

use std::{collections::HashMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{LayerKind, LayerProfile};

/// Name under which layers refer to the network's input.
const INPUT: &str = "input";

/// Shape of one sample between two layers, without the batch dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `[channels, height, width]`.
    Image {
        /// Number of channels.
        channels: usize,
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
    /// `[features]`.
    Vector {
        /// Number of features.
        features: usize,
    },
}

impl Shape {
    /// Number of values in one sample.
    #[must_use]
    pub fn len(&self) -> usize {
        match *self {
            Self::Image { channels, height, width } => channels * height * width,
            Self::Vector { features } => features,
        }
    }

    /// Whether a sample of this shape holds no value. Shapes of a checked network never are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { channels, height, width } => write!(f, "[{channels}, {height}, {width}]"),
            Self::Vector { features } => write!(f, "[{features}]"),
        }
    }
}

/// Square two-dimensional convolution; the input channels come from shape inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv2d {
    /// Number of output channels.
    pub out_channels: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Distance between windows.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Groups that the channels are split into; the number of input channels makes it depthwise.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Conv2d {
    /// Stride 1, no padding, one group, with bias.
    #[must_use]
    pub const fn new(out_channels: usize, kernel: usize) -> Self {
        Self { out_channels, kernel, stride: 1, padding: 0, groups: 1, bias: true }
    }

    /// Sets the distance between windows.
    #[must_use]
    pub const fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Sets the zeros added on every side.
    #[must_use]
    pub const fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Sets the number of groups.
    #[must_use]
    pub const fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Leaves the bias out, as before a batch norm.
    #[must_use]
    pub const fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }
}

/// Window of a pooling layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool2d {
    /// Side of the window.
    pub kernel: usize,
    /// Distance between windows.
    pub stride: usize,
    /// Padding on every side: never the maximum, and not counted in an average.
    pub padding: usize,
}

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Convolution over an image.
    Conv2d(Conv2d),
    /// Fully connected layer over a vector.
    Linear {
        /// Number of output features.
        out_features: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// Normalization of every channel (or feature) over the batch.
    BatchNorm {
        /// Added to the variance.
        epsilon: f64,
        /// Weight of the newest batch in the running statistics.
        momentum: f64,
    },
    /// `max(x, 0)`.
    Relu,
    /// Largest value of every window.
    MaxPool(Pool2d),
    /// Mean value of every window.
    AvgPool(Pool2d),
    /// Mean of every channel; gives a vector.
    GlobalAvgPool,
    /// Image to vector, channel by channel.
    Flatten,
    /// Zeroes values at random while training.
    Dropout {
        /// Share of values that are zeroed.
        probability: f64,
    },
    /// Sum of its inputs, as in a residual block.
    Add,
    /// Shortcut without parameters: every `stride`-th pixel of every `stride`-th row, and channels of
    /// zeros around the ones that came, half of them (rounded down) before.
    ///
    /// # Source
    /// Option A of He et al. 2015 (arXiv 1512.03385), section 4.1; the halves before and after are
    /// those of the ResNets for CIFAR-10 in akamaster/pytorch_resnet_cifar10.
    PaddedShortcut {
        /// Channels that leave it, not fewer than come.
        out_channels: usize,
        /// Distance between the pixels that are kept.
        stride: usize,
    },
}

impl Op {
    /// Word for this operation in errors and tables.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Conv2d(_) => "conv2d",
            Self::Linear { .. } => "linear",
            Self::BatchNorm { .. } => "batch_norm",
            Self::Relu => "relu",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Flatten => "flatten",
            Self::Dropout { .. } => "dropout",
            Self::Add => "add",
            Self::PaddedShortcut { .. } => "padded_shortcut",
        }
    }

    /// Whether the layer has weights that a quantizer can act on.
    #[must_use]
    pub const fn is_quantizable(&self) -> bool {
        matches!(self, Self::Conv2d(_) | Self::Linear { .. })
    }
}

/// One named layer and where its inputs come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// What it computes.
    #[serde(flatten)]
    pub op: Op,
    /// Names of the layers it reads, all earlier in the list; empty means the layer before it, and
    /// `input` is the network's input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
}

/// A network that cannot be, and the layer where it breaks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No layer at all, or none with weights.
    #[error("network `{network}` has no layer with quantizable weights")]
    NothingToQuantize {
        /// Name of the network.
        network: String,
    },
    /// The input image has a side of zero, or is absurdly large.
    #[error("network `{network}`: input {shape} must have positive sides and fit in memory")]
    BadInput {
        /// Name of the network.
        network: String,
        /// The declared input.
        shape: Shape,
    },
    /// Two layers of one name, or one named `input`, or no name.
    #[error("layer `{layer}`: the name is empty, taken or reserved")]
    BadName {
        /// The name.
        layer: String,
    },
    /// An input that is no earlier layer.
    #[error("layer `{layer}`: input `{input}` is not an earlier layer")]
    UnknownInput {
        /// Name of the layer.
        layer: String,
        /// The name it asked for.
        input: String,
    },
    /// Too few or too many inputs.
    #[error("layer `{layer}`: {op} takes {expected}, got {got}")]
    InputCount {
        /// Name of the layer.
        layer: String,
        /// Kind of operation.
        op: &'static str,
        /// What it takes.
        expected: &'static str,
        /// How many came.
        got: usize,
    },
    /// The operation does not apply to the shape it gets.
    #[error("layer `{layer}`: {op} cannot take an input of shape {shape}: {reason}")]
    Shape {
        /// Name of the layer.
        layer: String,
        /// Kind of operation.
        op: &'static str,
        /// Shape of the (first unfitting) input.
        shape: Shape,
        /// What is wrong.
        reason: String,
    },
    /// A parameter outside its range.
    #[error("layer `{layer}`: {reason}")]
    Parameter {
        /// Name of the layer.
        layer: String,
        /// What is wrong.
        reason: String,
    },
}

/// A checked network: every layer has a unique name, known inputs and an inferred shape.
///
/// The last layer is the output. Read back through `serde`, it is checked again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawNetwork", into = "RawNetwork")]
pub struct Network {
    name: String,
    input: [usize; 3],
    nodes: Vec<Node>,
    /// For every node, the indices of its inputs; `None` is the network's input.
    sources: Vec<Vec<Option<usize>>>,
    shapes: Vec<Shape>,
}

#[derive(Serialize, Deserialize)]
struct RawNetwork {
    name: String,
    /// `[channels, height, width]`.
    input: [usize; 3],
    layers: Vec<Node>,
}

impl TryFrom<RawNetwork> for Network {
    type Error = NetworkError;
    fn try_from(raw: RawNetwork) -> Result<Self, NetworkError> {
        Self::new(raw.name, raw.input, raw.layers)
    }
}

impl From<Network> for RawNetwork {
    fn from(network: Network) -> Self {
        Self { name: network.name, input: network.input, layers: network.nodes }
    }
}

impl Network {
    /// Starts a network for images of `[channels, height, width]`.
    #[must_use]
    pub fn builder(name: impl Into<String>, input: [usize; 3]) -> NetworkBuilder {
        NetworkBuilder { name: name.into(), input, nodes: Vec::new() }
    }

    /// Checks the layers and infers every shape.
    ///
    /// # Errors
    /// [`NetworkError`], naming the first layer that does not fit.
    pub fn new(name: String, input: [usize; 3], nodes: Vec<Node>) -> Result<Self, NetworkError> {
        let [channels, height, width] = input;
        let input_shape = Shape::Image { channels, height, width };
        let in_memory = input.iter().try_fold(1usize, |size, &side| size.checked_mul(side));
        if !in_memory.is_some_and(|size| size > 0 && size <= MAX_VALUES) {
            return Err(NetworkError::BadInput { network: name, shape: input_shape });
        }
        let mut index_of: HashMap<&str, Option<usize>> = HashMap::from([(INPUT, None)]);
        let mut sources = Vec::with_capacity(nodes.len());
        let mut shapes: Vec<Shape> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let from: Vec<Option<usize>> = if node.inputs.is_empty() {
                vec![index.checked_sub(1)]
            } else {
                let find = |input: &String| {
                    index_of.get(input.as_str()).copied().ok_or_else(|| {
                        NetworkError::UnknownInput {
                            layer: node.name.clone(),
                            input: input.clone(),
                        }
                    })
                };
                node.inputs.iter().map(find).collect::<Result<_, _>>()?
            };
            let in_shapes: Vec<Shape> =
                from.iter().map(|source| source.map_or(input_shape, |i| shapes[i])).collect();
            shapes.push(infer(node, &in_shapes)?);
            sources.push(from);
            if node.name.is_empty() || index_of.insert(&node.name, Some(index)).is_some() {
                return Err(NetworkError::BadName { layer: node.name.clone() });
            }
        }
        if !nodes.iter().any(|node| node.op.is_quantizable()) {
            return Err(NetworkError::NothingToQuantize { network: name });
        }
        Ok(Self { name, input, nodes, sources, shapes })
    }

    /// Name of the network.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `[channels, height, width]` of one input image.
    #[must_use]
    pub const fn input(&self) -> [usize; 3] {
        self.input
    }

    /// The layers, each after all of its inputs.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Indices of the layers that layer `index` reads; `None` is the network's input.
    ///
    /// # Panics
    /// If there is no such layer.
    #[must_use]
    pub fn sources(&self, index: usize) -> &[Option<usize>] {
        &self.sources[index]
    }

    /// Shape of one sample as it enters layer `index` by its first input.
    ///
    /// # Panics
    /// If there is no such layer.
    #[must_use]
    pub fn input_shape(&self, index: usize) -> Shape {
        let [channels, height, width] = self.input;
        self.sources[index][0]
            .map_or(Shape::Image { channels, height, width }, |source| self.shapes[source])
    }

    /// Shape of one sample as it leaves layer `index`.
    ///
    /// # Panics
    /// If there is no such layer.
    #[must_use]
    pub fn shape(&self, index: usize) -> Shape {
        self.shapes[index]
    }

    /// Number of values that the last layer gives: the classes of a classifier.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.shapes.last().map_or(0, Shape::len)
    }

    /// Number of layers with quantizable weights.
    #[must_use]
    pub fn quantizable_layers(&self) -> usize {
        self.nodes.iter().filter(|node| node.op.is_quantizable()).count()
    }

    /// Profiles of the layers with quantizable weights, in order.
    #[must_use]
    pub fn profiles(&self) -> Vec<LayerProfile> {
        (0..self.nodes.len()).filter_map(|index| self.profile(index)).collect()
    }

    fn profile(&self, index: usize) -> Option<LayerProfile> {
        let (input, output) = (self.input_shape(index), self.shapes[index]);
        let name = self.nodes[index].name.clone();
        let batch_norm = self.nodes.iter().zip(&self.sources).any(|(node, sources)| {
            matches!(node.op, Op::BatchNorm { .. }) && sources.contains(&Some(index))
        });
        match (self.nodes[index].op, input, output) {
            (
                Op::Conv2d(conv),
                Shape::Image { channels, height, width },
                Shape::Image { height: out_height, width: out_width, .. },
            ) => Some(LayerProfile {
                name,
                kind: if conv.groups > 1 && conv.groups == channels {
                    LayerKind::DepthwiseConv2d
                } else {
                    LayerKind::Conv2d
                },
                in_channels: channels,
                in_height: height,
                in_width: width,
                out_channels: conv.out_channels,
                kernel: conv.kernel,
                stride: conv.stride,
                padding: conv.padding,
                groups: conv.groups,
                out_height,
                out_width,
                bias: conv.bias,
                batch_norm,
            }),
            (Op::Linear { out_features, bias }, Shape::Vector { features }, _) => {
                let linear = LayerProfile::linear(name, features, out_features);
                Some(LayerProfile { bias, batch_norm, ..linear })
            }
            _ => None,
        }
    }
}

/// Largest number of values between two layers, or of weights in one: 2^34, more than any real one.
const MAX_VALUES: usize = 1 << 34;

fn infer(node: &Node, inputs: &[Shape]) -> Result<Shape, NetworkError> {
    let op = node.op.kind();
    let wrong = |shape: Shape, reason: String| NetworkError::Shape {
        layer: node.name.clone(),
        op,
        shape,
        reason,
    };
    let parameter = |reason: String| NetworkError::Parameter { layer: node.name.clone(), reason };
    if matches!(node.op, Op::Add) {
        if inputs.len() < 2 {
            return Err(NetworkError::InputCount {
                layer: node.name.clone(),
                op,
                expected: "two or more inputs",
                got: inputs.len(),
            });
        }
        return match inputs.iter().find(|&&shape| shape != inputs[0]) {
            Some(&other) => Err(wrong(other, format!("its first input has shape {}", inputs[0]))),
            None => Ok(inputs[0]),
        };
    }
    let [input] = *inputs else {
        return Err(NetworkError::InputCount {
            layer: node.name.clone(),
            op,
            expected: "one input",
            got: inputs.len(),
        });
    };
    let window = |kernel: usize, stride: usize, padding: usize| {
        let Shape::Image { channels, height, width } = input else {
            return Err(wrong(input, "it needs an image; put it before `flatten`".into()));
        };
        if kernel == 0 || stride == 0 {
            return Err(parameter("kernel and stride must be positive".into()));
        }
        if padding >= kernel && padding > 0 {
            return Err(parameter(format!("padding {padding} must be below the kernel {kernel}")));
        }
        let out = |side: usize| {
            let padded = side.saturating_add(padding.saturating_mul(2));
            padded.checked_sub(kernel).map(|room| room / stride + 1).ok_or_else(|| {
                wrong(input, format!("a kernel of {kernel} with padding {padding} does not fit"))
            })
        };
        Ok((channels, out(height)?, out(width)?))
    };
    let fits = |factors: &[usize]| {
        let size = factors.iter().try_fold(1usize, |size, &factor| size.checked_mul(factor));
        if size.is_some_and(|size| size > 0 && size <= MAX_VALUES) {
            Ok(())
        } else {
            Err(parameter(format!("sizes {factors:?} must be positive and fit in memory")))
        }
    };
    match node.op {
        Op::Conv2d(conv) => {
            let (channels, height, width) = window(conv.kernel, conv.stride, conv.padding)?;
            let groups = conv.groups;
            if groups == 0 || channels % groups != 0 || conv.out_channels % groups != 0 {
                return Err(wrong(
                    input,
                    format!(
                        "{groups} groups do not divide {channels} input and {} output channels",
                        conv.out_channels
                    ),
                ));
            }
            fits(&[conv.out_channels, channels / groups, conv.kernel, conv.kernel])?;
            fits(&[conv.out_channels, height, width])?;
            Ok(Shape::Image { channels: conv.out_channels, height, width })
        }
        Op::Linear { out_features, .. } => match input {
            Shape::Vector { features } => {
                fits(&[features, out_features])?;
                Ok(Shape::Vector { features: out_features })
            }
            Shape::Image { .. } => {
                Err(wrong(input, "it needs a vector; put `flatten` before it".into()))
            }
        },
        Op::BatchNorm { epsilon, momentum } => {
            if epsilon > 0.0 && (0.0..=1.0).contains(&momentum) {
                Ok(input)
            } else {
                Err(parameter(format!(
                    "batch norm needs a positive epsilon and a momentum in [0, 1], got {epsilon} and {momentum}"
                )))
            }
        }
        Op::Dropout { probability } => {
            if (0.0..1.0).contains(&probability) {
                Ok(input)
            } else {
                Err(parameter(format!("dropout probability {probability} is not in [0, 1)")))
            }
        }
        Op::Relu | Op::Add => Ok(input),
        Op::MaxPool(pool) | Op::AvgPool(pool) => {
            let (channels, height, width) = window(pool.kernel, pool.stride, pool.padding)?;
            Ok(Shape::Image { channels, height, width })
        }
        Op::GlobalAvgPool => match input {
            Shape::Image { channels, .. } => Ok(Shape::Vector { features: channels }),
            Shape::Vector { .. } => Err(wrong(input, "it needs an image".into())),
        },
        Op::Flatten => Ok(Shape::Vector { features: input.len() }),
        Op::PaddedShortcut { out_channels, stride } => {
            let (channels, height, width) = window(1, stride, 0)?;
            if out_channels < channels {
                let reason = format!("it cannot leave {out_channels} channels of {channels}");
                return Err(wrong(input, reason));
            }
            fits(&[out_channels, height, width])?;
            Ok(Shape::Image { channels: out_channels, height, width })
        }
    }
}

/// Lists layers one after the other; [`from`](Self::from) and [`add`](Self::add) make it a graph.
#[derive(Clone, Debug)]
pub struct NetworkBuilder {
    name: String,
    input: [usize; 3],
    nodes: Vec<Node>,
}

impl NetworkBuilder {
    /// Appends any layer; empty `inputs` mean the layer before it.
    #[must_use]
    pub fn layer(mut self, name: impl Into<String>, op: Op, inputs: &[&str]) -> Self {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.nodes.push(Node { name: name.into(), op, inputs });
        self
    }

    /// Makes the layer appended last read the layer named `input` instead of the one before it.
    #[must_use]
    pub fn from(mut self, input: impl Into<String>) -> Self {
        if let Some(node) = self.nodes.last_mut() {
            node.inputs = vec![input.into()];
        }
        self
    }

    /// Convolution with stride 1, no padding and a bias; for others see [`conv`](Self::conv).
    #[must_use]
    pub fn conv2d(self, name: impl Into<String>, out_channels: usize, kernel: usize) -> Self {
        self.conv(name, Conv2d::new(out_channels, kernel))
    }

    /// Convolution.
    #[must_use]
    pub fn conv(self, name: impl Into<String>, conv: Conv2d) -> Self {
        self.layer(name, Op::Conv2d(conv), &[])
    }

    /// Fully connected layer with a bias.
    #[must_use]
    pub fn linear(self, name: impl Into<String>, out_features: usize) -> Self {
        self.layer(name, Op::Linear { out_features, bias: true }, &[])
    }

    /// Batch normalization with PyTorch's defaults: epsilon 1e-5, momentum 0.1.
    #[must_use]
    pub fn batch_norm(self, name: impl Into<String>) -> Self {
        self.layer(name, Op::BatchNorm { epsilon: 1e-5, momentum: 0.1 }, &[])
    }

    /// `max(x, 0)`.
    #[must_use]
    pub fn relu(self, name: impl Into<String>) -> Self {
        self.layer(name, Op::Relu, &[])
    }

    /// Max pooling without padding.
    #[must_use]
    pub fn max_pool(self, name: impl Into<String>, kernel: usize, stride: usize) -> Self {
        self.layer(name, Op::MaxPool(Pool2d { kernel, stride, padding: 0 }), &[])
    }

    /// Average pooling without padding.
    #[must_use]
    pub fn avg_pool(self, name: impl Into<String>, kernel: usize, stride: usize) -> Self {
        self.layer(name, Op::AvgPool(Pool2d { kernel, stride, padding: 0 }), &[])
    }

    /// Mean of every channel.
    #[must_use]
    pub fn global_avg_pool(self, name: impl Into<String>) -> Self {
        self.layer(name, Op::GlobalAvgPool, &[])
    }

    /// Image to vector.
    #[must_use]
    pub fn flatten(self, name: impl Into<String>) -> Self {
        self.layer(name, Op::Flatten, &[])
    }

    /// Dropout while training.
    #[must_use]
    pub fn dropout(self, name: impl Into<String>, probability: f64) -> Self {
        self.layer(name, Op::Dropout { probability }, &[])
    }

    /// Sum of the named layers.
    #[must_use]
    pub fn add(self, name: impl Into<String>, inputs: &[&str]) -> Self {
        self.layer(name, Op::Add, inputs)
    }

    /// Shortcut without parameters, see [`Op::PaddedShortcut`].
    #[must_use]
    pub fn padded_shortcut(
        self,
        name: impl Into<String>,
        out_channels: usize,
        stride: usize,
    ) -> Self {
        self.layer(name, Op::PaddedShortcut { out_channels, stride }, &[])
    }

    /// Checks everything and infers the shapes.
    ///
    /// # Errors
    /// [`NetworkError`], naming the first layer that does not fit.
    pub fn build(self) -> Result<Network, NetworkError> {
        Network::new(self.name, self.input, self.nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn residual() -> NetworkBuilder {
        let conv =
            |channels, stride| Conv2d::new(channels, 3).stride(stride).padding(1).without_bias();
        Network::builder("block", [3, 32, 32])
            .conv("conv1", conv(16, 1))
            .batch_norm("bn1")
            .relu("relu1")
            .conv("conv2", conv(32, 2))
            .batch_norm("bn2")
            .conv("shortcut", Conv2d::new(32, 1).stride(2).without_bias())
            .from("relu1")
            .add("sum", &["bn2", "shortcut"])
            .conv("depthwise", Conv2d::new(32, 3).padding(1).groups(32))
            .global_avg_pool("pool")
            .dropout("drop", 0.5)
            .linear("fc", 10)
    }

    #[test]
    fn a_residual_block_with_projection_and_depthwise_infers_its_shapes() {
        let network = residual().build().unwrap();
        let profiles = network.profiles();
        let names: Vec<_> = profiles.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["conv1", "conv2", "shortcut", "depthwise", "fc"]);
        // By hand: 3x3x3x16 weights over 32x32; 3x3x16x32 over 16x16; 1x1x16x32 over 16x16; 3x3x32.
        let weights: Vec<_> = profiles.iter().map(LayerProfile::weights).collect();
        assert_eq!(weights, [432, 4608, 512, 288, 320]);
        let macs: Vec<_> = profiles.iter().map(LayerProfile::macs).collect();
        assert_eq!(macs, [442_368, 1_179_648, 131_072, 73_728, 320]);
        assert_eq!(profiles[3].kind, LayerKind::DepthwiseConv2d);
        let batch_norms: Vec<_> = profiles.iter().map(|p| p.batch_norm).collect();
        assert_eq!(batch_norms, [true, true, false, false, false]);
        assert_eq!(network.outputs(), 10);
        assert_eq!(network.sources(6), [Some(4), Some(5)]);
    }

    #[test]
    fn a_padded_shortcut_keeps_every_other_pixel_and_has_no_profile() {
        let network = Network::builder("shortcut", [3, 5, 4])
            .padded_shortcut("shortcut", 8, 2)
            .flatten("flatten")
            .linear("fc", 2)
            .build()
            .unwrap();
        assert_eq!(network.shape(0), Shape::Image { channels: 8, height: 3, width: 2 });
        assert_eq!(network.quantizable_layers(), 1);
        let json = serde_json::to_string(&network).unwrap();
        assert!(json.contains(r#""op":"padded_shortcut","out_channels":8,"stride":2"#), "{json}");
        assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
    }

    #[test]
    fn json_round_trips_and_is_checked_again() {
        let network = residual().build().unwrap();
        let json = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
        let broken = json.replace("\"bn2\",\"shortcut\"", "\"bn2\",\"nowhere\"");
        let message = serde_json::from_str::<Network>(&broken).unwrap_err().to_string();
        assert!(message.contains("layer `sum`: input `nowhere`"), "{message}");
    }

    #[test]
    fn every_error_names_its_layer() {
        let start = || Network::builder("bad", [1, 8, 8]);
        let check = |builder: NetworkBuilder, expected: &str| {
            let message = builder.build().unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        check(start(), "network `bad` has no layer");
        check(start().relu("r"), "network `bad` has no layer");
        check(Network::builder("bad", [0, 8, 8]).linear("fc", 1), "input [0, 8, 8]");
        check(Network::builder("bad", [usize::MAX, 8, 8]).linear("fc", 1), "input");
        check(
            start().linear("fc", 1),
            "layer `fc`: linear cannot take an input of shape [1, 8, 8]",
        );
        check(start().conv2d("c", 4, 9), "layer `c`: conv2d cannot take");
        check(start().conv2d("c", 0, 3), "layer `c`: sizes [0, 1, 3, 3]");
        check(start().conv2d("c", usize::MAX, 3), "layer `c`: sizes");
        check(start().conv("c", Conv2d::new(4, 3).stride(0)), "layer `c`: kernel and stride");
        check(start().conv("c", Conv2d::new(4, 3).groups(2)), "2 groups do not divide 1");
        check(start().conv("c", Conv2d::new(4, 3).groups(0)), "0 groups");
        check(start().conv("c", Conv2d::new(4, 3).padding(3)), "padding 3 must be below");
        check(start().flatten("f").max_pool("p", 2, 2), "layer `p`: max_pool cannot take");
        check(start().flatten("f").linear("fc", 0), "layer `fc`: sizes [64, 0]");
        check(start().relu("r").relu("r").flatten("f"), "layer `r`: the name is empty, taken");
        check(start().relu("input"), "layer `input`: the name");
        check(start().relu(""), "layer ``: the name");
        check(start().relu("r").from("later"), "layer `r`: input `later`");
        check(start().relu("r").add("a", &["r"]), "layer `a`: add takes two or more inputs, got 1");
        check(
            start().relu("r").max_pool("p", 2, 2).add("a", &["r", "p"]),
            "layer `a`: add cannot take an input of shape [1, 4, 4]",
        );
        check(start().padded_shortcut("s", 2, 0), "layer `s`: kernel and stride");
        check(start().relu("r").padded_shortcut("s", 0, 2), "it cannot leave 0 channels of 1");
        check(start().padded_shortcut("s", usize::MAX, 2), "layer `s`: sizes");
        check(start().flatten("f").padded_shortcut("s", 64, 2), "padded_shortcut cannot take");
        check(start().dropout("d", 1.0), "dropout probability 1 is not in [0, 1)");
        check(start().dropout("d", f64::NAN), "dropout probability NaN");
    }
}
