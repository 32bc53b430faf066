//! A network as data: a graph of named layers, checked and shape-inferred once.

mod builder;
mod error;
mod infer;
mod op;
mod shape;

use std::collections::HashMap;

pub use builder::NetworkBuilder;
pub use error::NetworkError;
use infer::{MAX_VALUES, infer};
pub use op::{Conv2d, Op, Pool2d};
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
#[serde(deny_unknown_fields)]
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
        check(start().dropout("d", 1.0), "dropout probability 1.0 is not in [0, 1)");
        check(start().dropout("d", f64::NAN), "dropout probability NaN");
    }
}
