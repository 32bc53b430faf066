//! A network as data: a graph of named layers, checked and shape-inferred once.

mod builder;
mod channel_groups;
mod error;
mod fake_quantize;
mod infer;
mod op;
mod shape;

use std::collections::HashMap;

pub use builder::NetworkBuilder;
pub use error::NetworkError;
use infer::{MAX_VALUES, infer};
use op::is_false;
pub use op::{Activation, Axes, Conv2d, Op, Pool2d, Sides};
pub(crate) use op::{is_no_dilation, no_dilation};
use serde::{Deserialize, Serialize};
pub use shape::Shape;

use crate::{LayerKind, LayerProfile};

/// Name under which layers refer to the network's input.
const INPUT: &str = "input";

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

impl Node {
    /// The shape that leaves the layer, from those that enter it, in the order of its inputs.
    ///
    /// # Errors
    /// [`NetworkError`], naming the layer, if it does not take them.
    pub fn infer(&self, inputs: &[Shape]) -> Result<Shape, NetworkError> {
        infer(self, inputs)
    }
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
    softmax: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    name: String,
    /// `[channels, height, width]`.
    input: [usize; 3],
    layers: Vec<Node>,
    #[serde(default, skip_serializing_if = "is_false")]
    softmax: bool,
}

impl TryFrom<RawNetwork> for Network {
    type Error = NetworkError;
    fn try_from(raw: RawNetwork) -> Result<Self, NetworkError> {
        let network = Self::new(raw.name, raw.input, raw.layers)?;
        Ok(network.with_softmax(raw.softmax))
    }
}

impl From<Network> for RawNetwork {
    fn from(network: Network) -> Self {
        let Network { name, input, nodes, softmax, .. } = network;
        Self { name, input, layers: nodes, softmax }
    }
}

impl Network {
    /// Starts a network for images of `[channels, height, width]`.
    #[must_use]
    pub fn builder(name: impl Into<String>, input: [usize; 3]) -> NetworkBuilder {
        NetworkBuilder::new(name.into(), input)
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
        if !nodes.iter().any(|node| node.op.has_weights()) {
            return Err(NetworkError::NothingToQuantize { network: name });
        }
        Ok(Self { name, input, nodes, sources, shapes, softmax: false })
    }

    /// Sets [`has_softmax`](Self::has_softmax).
    #[must_use]
    pub fn with_softmax(self, softmax: bool) -> Self {
        Self { softmax, ..self }
    }

    /// Whether users of the network see probabilities: the softmax of what the last layer gives.
    ///
    /// It is no layer, because training, accuracies and distillation work on the logits, and the softmax leaves
    /// their order as it is.
    #[must_use]
    pub const fn has_softmax(&self) -> bool {
        self.softmax
    }

    /// The same network with another number of outputs of its last layer: classes of a classifier.
    ///
    /// # Errors
    /// [`NetworkError`] unless the last layer is fully connected and `outputs` is positive.
    pub fn with_outputs(mut self, outputs: usize) -> Result<Self, NetworkError> {
        match self.nodes.last_mut() {
            Some(Node { op: Op::Linear { out_features, .. }, .. }) => *out_features = outputs,
            last => {
                let layer = last.map_or_else(String::new, |node| node.name.clone());
                let reason =
                    "only the outputs of a fully connected layer can be changed".to_owned();
                return Err(NetworkError::Parameter { layer, reason });
            }
        }
        let nodes = std::mem::take(&mut self.nodes);
        self.with_nodes(nodes)
    }

    /// The network of these layers, under the same name and on the same input.
    fn with_nodes(&self, nodes: Vec<Node>) -> Result<Self, NetworkError> {
        let network = Self::new(self.name.clone(), self.input, nodes)?;
        Ok(network.with_softmax(self.softmax))
    }

    /// The same layers under another name.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
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

    /// Number of layers that a bitwidth acts on: those with weights, and [`Op::FakeQuantize`].
    #[must_use]
    pub fn quantizable_layers(&self) -> usize {
        self.nodes.iter().filter(|node| node.op.is_quantizable()).count()
    }

    /// Profiles of the layers that a bitwidth acts on, in order.
    #[must_use]
    pub fn profiles(&self) -> Vec<LayerProfile> {
        (0..self.nodes.len()).filter_map(|index| self.profile(index)).collect()
    }

    fn profile(&self, index: usize) -> Option<LayerProfile> {
        let (input, output) = (self.input_shape(index), self.shapes[index]);
        let name = self.nodes[index].name.clone();
        let batch_norm = self.nodes.iter().zip(&self.sources).any(|(node, sources)| {
            matches!(node.op, Op::BatchNorm { .. } | Op::ScaleShift)
                && sources.iter().any(|&source| self.unrounded(source) == Some(index))
        });
        let reads = self
            .unmoved(self.sources[index][0])
            .filter(|&source| self.nodes[source].op == Op::FakeQuantize)
            .map(|source| self.nodes[source].name.clone());
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
                dilation: conv.dilation,
                groups: conv.groups,
                out_height,
                out_width,
                bias: conv.bias,
                batch_norm,
                reads,
            }),
            (Op::Linear { out_features, bias }, Shape::Vector { features }, _) => {
                let linear = LayerProfile::linear(name, features, out_features);
                Some(LayerProfile { bias, batch_norm, reads, ..linear })
            }
            (Op::FakeQuantize, shape, _) => Some(LayerProfile::activations(name, shape)),
            _ => None,
        }
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
    fn geometry_may_differ_by_axis_and_side() {
        let image = |channels, height, width| Shape::Image { channels, height, width };
        let check = |op: Op, expected: Shape| {
            let network = Network::builder("geometry", [4, 13, 9])
                .layer("layer", op, &[])
                .flatten("flatten")
                .linear("fc", 2)
                .build()
                .unwrap();
            assert_eq!(network.shape(0), expected, "{op:?}");
            let json = serde_json::to_string(&network).unwrap();
            assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network, "{json}");
        };
        // PyTorch's shapes.
        let conv = Conv2d::new(8, [1, 7]).padding(Axes::new(0, 3));
        check(Op::Conv2d(conv), image(8, 13, 9));
        check(Op::Conv2d(conv.stride([2, 1])), image(8, 7, 9));
        check(Op::Conv2d(Conv2d::new(8, 3).stride(2).padding([0, 0, 1, 1])), image(8, 6, 4));
        check(
            Op::Conv2d(Conv2d::new(8, 3).dilation([2, 3]).padding([4, 6, 0, 0])),
            image(8, 13, 9),
        );
        check(Op::MaxPool(Pool2d::new([3, 2], [2, 3]).padding([1, 0, 1, 0])), image(4, 7, 3));
        let pool = Pool2d::new(3, 4);
        check(Op::AvgPool(pool), image(4, 3, 2));
        check(Op::AvgPool(pool.ceil_mode(true)), image(4, 4, 3));
        // A sixth window down would begin in the padding below.
        let pool = Pool2d::new(2, [3, 4]).padding([1, 1, 1, 1]).ceil_mode(true);
        check(Op::MaxPool(pool), image(4, 5, 3));
        check(Op::MaxPool(Pool2d::new(2, 7).padding(1).ceil_mode(true)), image(4, 2, 2));
    }

    #[test]
    fn profiles_count_kernels_that_are_not_square() {
        let profile = LayerProfile::conv2d(
            "conv",
            [6, 13, 9],
            Conv2d::new(8, [1, 7]).padding(Axes::new(0, 3)).stride([2, 1]).groups(2),
        )
        .unwrap();
        assert_eq!((profile.weights(), profile.macs()), (8 * 3 * 7, 8 * 3 * 7 * 7 * 9));
        let json = serde_json::to_string(&profile).unwrap();
        assert!(json.contains(r#""kernel":[1,7],"stride":[2,1],"padding":[0,3,0,3],"groups""#));
        assert_eq!(serde_json::from_str::<LayerProfile>(&json).unwrap(), profile);
    }

    /// A block with squeeze and excitation beside a branch that is concatenated.
    fn branches() -> NetworkBuilder {
        Network::builder("branches", [3, 8, 8])
            .conv2d("conv", 6, 3)
            .activation("act", Activation::RELU6)
            .global_avg_pool("squeeze")
            .linear("fc1", 2)
            .relu("relu")
            .linear("fc2", 6)
            .activation("gate", Activation::HardSigmoid { alpha: 0.2, beta: 0.5 })
            .mul("scaled", ["act", "gate"])
            .mul("squared", ["scaled", "scaled"])
            .concat("joined", &["act", "squared", "scaled"])
            .scale_shift("affine")
            .layer("shuffle", Op::ChannelShuffle { groups: 3 }, &[])
            .layer("part", Op::ChannelSlice { start: 2, channels: 7 }, &[])
            .layer(
                "lrn",
                Op::LocalResponseNorm { size: 5, alpha: 1e-4, beta: 0.75, bias: 1.0 },
                &[],
            )
            .flatten("flatten")
            .linear("fc", 4)
            .concat("ends", &["fc", "fc2"])
            .softmax()
    }

    #[test]
    fn branches_join_by_channels_and_by_products() {
        let network = branches().build().unwrap();
        let shape = |name: &str| {
            let index = network.nodes().iter().position(|node| node.name == name).unwrap();
            network.shape(index)
        };
        let image = |channels| Shape::Image { channels, height: 6, width: 6 };
        assert_eq!((shape("scaled"), shape("joined")), (image(6), image(18)));
        assert_eq!((shape("affine"), shape("shuffle")), (image(18), image(18)));
        assert_eq!((shape("part"), shape("lrn")), (image(7), image(7)));
        assert_eq!(network.outputs(), 10);
        assert!(network.has_softmax());
        let parameters: Vec<_> = crate::parameter_shapes(&network).collect();
        assert!(parameters.contains(&("affine.weight".to_owned(), vec![18])));
        assert!(parameters.contains(&("affine.bias".to_owned(), vec![18])));

        let json = serde_json::to_string(&network).unwrap();
        for part in [
            r#""op":"activation","function":"clip","min":0.0,"max":6.0"#,
            r#""op":"activation","function":"hard_sigmoid","alpha":0.2,"beta":0.5"#,
            r#""op":"scale_shift""#,
            r#""softmax":true"#,
        ] {
            assert!(json.contains(part), "`{json}` lacks `{part}`");
        }
        assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
    }

    #[test]
    fn the_number_of_outputs_can_be_changed_where_a_linear_layer_gives_them() {
        let network = residual().softmax().build().unwrap().with_outputs(7).unwrap();
        assert_eq!((network.outputs(), network.has_softmax()), (7, true));
        let message = network.with_outputs(0).unwrap_err().to_string();
        assert!(message.contains("layer `fc`: sizes [32, 0]"), "{message}");
        let message = residual().relu("end").build().unwrap().with_outputs(7).unwrap_err();
        assert!(message.to_string().contains("layer `end`: only the outputs"), "{message}");
    }

    #[test]
    fn json_is_as_before_where_nothing_new_is_used() {
        let network = Network::builder("plain", [1, 8, 8])
            .conv("conv", Conv2d::new(4, 3).stride(2).padding(1))
            .layer("pool", Op::MaxPool(Pool2d::new(2, 2)), &[])
            .flatten("flatten")
            .linear("fc", 2)
            .build()
            .unwrap();
        let json = r#"{"name":"plain","input":[1,8,8],"layers":[{"name":"conv","op":"conv2d","out_channels":4,"kernel":3,"stride":2,"padding":1,"groups":1,"bias":true},{"name":"pool","op":"max_pool","kernel":2,"stride":2,"padding":0},{"name":"flatten","op":"flatten"},{"name":"fc","op":"linear","out_features":2,"bias":true}]}"#;
        assert_eq!(serde_json::to_string(&network).unwrap(), json);
        assert_eq!(serde_json::from_str::<Network>(json).unwrap(), network);
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
        check(start().conv("c", Conv2d::new(4, 3).stride(0)), "layer `c`: kernel, stride");
        check(start().conv("c", Conv2d::new(4, 3).groups(2)), "2 groups do not divide 1");
        check(start().conv("c", Conv2d::new(4, 3).groups(0)), "0 groups");
        let pool = |kernel: [usize; 2], padding: [usize; 4]| {
            Op::MaxPool(Pool2d::new(kernel, 1).padding(padding))
        };
        check(
            start().layer("p", pool([3, 3], [3; 4]), &[]),
            "padding 3 must be below the kernel 3",
        );
        check(start().layer("p", pool([1, 3], [0, 0, 1, 1]), &[]), "padding [0, 0, 1, 1] must be");
        check(
            start().conv("c", Conv2d::new(4, 3).padding(1 << 20)),
            "layer `c`: sizes [1, 2097160,",
        );
        check(start().conv("c", Conv2d::new(4, 3).padding(usize::MAX)), "layer `c`: sizes");
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
        check(start().padded_shortcut("s", 2, 0), "layer `s`: kernel, stride");
        check(start().relu("r").padded_shortcut("s", 0, 2), "it cannot leave 0 channels of 1");
        check(start().padded_shortcut("s", usize::MAX, 2), "layer `s`: sizes");
        check(start().flatten("f").padded_shortcut("s", 64, 2), "padded_shortcut cannot take");
        check(
            start().conv("c", Conv2d::new(4, 3).dilation([1, 0])),
            "layer `c`: kernel, stride and",
        );
        check(start().conv("c", Conv2d::new(4, 3).dilation(4)), "a kernel of 9 with padding 0");
        check(start().conv("c", Conv2d::new(4, 3).dilation(usize::MAX)), "does not fit");
        check(
            start().max_pool("p", 2, 2).mul("m", ["p", "input"]),
            "layer `m`: mul cannot take an input of shape [1, 8, 8]: its first input has shape [1, 4, 4]",
        );
        check(start().relu("r").layer("m", Op::Mul, &["r"]), "mul takes two inputs, got 1");
        check(start().flatten("f").mul("m", ["input", "f"]), "a factor for every channel");
        check(start().relu("r").concat("c", &["r"]), "concat takes two or more inputs, got 1");
        check(
            start().max_pool("p", 2, 2).concat("c", &["input", "p"]),
            "layer `c`: concat cannot take an input of shape [1, 4, 4]",
        );
        let slice = |start, channels| Op::ChannelSlice { start, channels };
        check(start().layer("s", slice(0, 2), &[]), "layer `s`: channel_slice cannot take");
        check(
            start().layer("s", slice(usize::MAX, 1), &[]),
            "from channel 18446744073709551615 on",
        );
        check(start().layer("s", slice(0, 0), &[]), "it has no 0 channels");
        check(
            start().layer("s", Op::ChannelShuffle { groups: 2 }, &[]),
            "2 groups do not divide 1",
        );
        let clip = |min, max| Activation::Clip { min, max };
        check(start().activation("a", clip(1.0, 1.0)), "layer `a`: Clip { min: 1.0, max: 1.0 }");
        check(start().activation("a", clip(0.0, f32::INFINITY)), "must be finite");
        check(start().activation("a", Activation::LeakyRelu { slope: f32::NAN }), "must be finite");
        let lrn = |size, bias| Op::LocalResponseNorm { size, alpha: 1e-4, beta: 0.75, bias };
        check(start().layer("n", lrn(4, 1.0), &[]), "must be odd, got 4");
        check(start().layer("n", lrn(usize::MAX, 1.0), &[]), "at most 4095 of them");
        check(start().layer("n", lrn(5, 0.0), &[]), "a positive bias");
        check(start().flatten("f").layer("n", lrn(5, 1.0), &[]), "local_response_norm cannot take");
        check(start().dropout("d", 1.0), "dropout probability 1.0 is not in [0, 1)");
        check(start().dropout("d", f64::NAN), "dropout probability NaN");
    }
}
