//! Layers whose output channels are in groups, each with a bitwidth of its own.

use std::num::NonZeroUsize;

use super::{Network, NetworkError, Node, Op};
use crate::{Bitwidth, BitwidthAssignment, BitwidthError};

/// A layer that was divided, together with what follows it and treats channels alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Divided {
    /// The layer with weights first; behind it at most a norm and functions of single values.
    pub(crate) stages: Vec<DividedNode>,
    /// Output channels of each group.
    pub(crate) sizes: Vec<usize>,
    /// Index of the concatenation of the groups.
    concat: usize,
}

/// One of the nodes that were divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DividedNode {
    /// Its name before.
    pub(crate) name: String,
    /// Indices of its parts, group by group.
    pub(crate) parts: Vec<usize>,
}

/// The name of a part.
pub(crate) fn part_name(name: &str, group: usize) -> String {
    format!("{name}.group{}", group + 1)
}

/// A layer with weights, and those behind it that are divided with it; indices.
type Chain = Vec<usize>;

impl Network {
    /// The same network with the output channels of every layer with weights in this many groups, as equal as can be, so that
    /// each has a bitwidth of its own: `conv1` becomes `conv1.group1`, `conv1.group2` and so on. Norms, ReLUs and other
    /// functions of single values behind it are divided with it, and a concatenation has the name of the last of them, so that
    /// the network computes what it did.
    ///
    /// Layers with fewer outputs than groups get a group for each. Convolutions that are in groups themselves, such as depthwise
    /// ones, stay as they are. A network that is divided already is divided anew. [`Weights::into_channel_groups`](crate::Weights::into_channel_groups) divides the weights, and
    /// [`grouped_bits`](Self::grouped_bits) gives the bitwidths of the groups.
    ///
    /// # Errors
    /// [`NetworkError::BadName`] if a layer has the name of a part already.
    pub fn with_channel_groups(&self, groups: NonZeroUsize) -> Result<Self, NetworkError> {
        if groups == NonZeroUsize::MIN {
            return self.without_channel_groups();
        }
        if self.has_channel_groups() {
            return self.without_channel_groups()?.with_channel_groups(groups);
        }
        let chains: Vec<Chain> =
            (0..self.nodes.len()).filter_map(|index| self.chain(index)).collect();
        let of = |index: usize| {
            chains.iter().find_map(|chain| {
                let stage = chain.iter().position(|&node| node == index)?;
                Some((chain, stage))
            })
        };
        let mut nodes = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let inputs = self.input_names(index);
            let Some((chain, stage)) =
                of(index).filter(|(chain, _)| self.shapes[chain[0]].channels() > 1)
            else {
                nodes.push(Node { inputs, ..node.clone() });
                continue;
            };
            let sizes = divide(self.shapes[index].channels(), groups);
            for (group, &size) in sizes.iter().enumerate() {
                let inputs = match stage.checked_sub(1) {
                    None => inputs.clone(),
                    Some(before) => vec![part_name(&self.nodes[chain[before]].name, group)],
                };
                let op = with_outputs(node.op, size);
                nodes.push(Node { name: part_name(&node.name, group), op, inputs });
            }
            if stage + 1 == chain.len() {
                let parts = (0..sizes.len()).map(|group| part_name(&node.name, group));
                let (name, inputs) = (node.name.clone(), parts.collect());
                nodes.push(Node { name, op: Op::Concat, inputs });
            }
        }
        self.with_nodes(nodes)
    }

    /// The same network with [divided](Self::with_channel_groups) layers whole again; one that has none is given back as it is.
    ///
    /// # Errors
    /// None: what is left is a network.
    pub fn without_channel_groups(&self) -> Result<Self, NetworkError> {
        let divided = self.divided();
        if divided.is_empty() {
            return Ok(self.clone());
        }
        let stage_of = |index: usize| {
            divided.iter().find_map(|divided| {
                let stage = divided.stages.iter().position(|stage| stage.parts.contains(&index))?;
                Some((divided, stage))
            })
        };
        let mut nodes = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if divided.iter().any(|divided| divided.concat == index) {
                continue;
            }
            let mut inputs = self.input_names(index);
            match stage_of(index) {
                None => nodes.push(Node { inputs, ..node.clone() }),
                Some((divided, stage)) if divided.stages[stage].parts[0] == index => {
                    if let Some(before) = stage.checked_sub(1) {
                        inputs = vec![divided.stages[before].name.clone()];
                    }
                    let op = with_outputs(node.op, divided.sizes.iter().sum());
                    nodes.push(Node { name: divided.stages[stage].name.clone(), op, inputs });
                }
                Some(_) => {}
            }
        }
        self.with_nodes(nodes)
    }

    /// The names by which a layer reads, written out.
    fn input_names(&self, index: usize) -> Vec<String> {
        self.sources[index].iter().map(|&source| self.source_name(source).to_owned()).collect()
    }

    /// Whether output channels are [in groups](Self::with_channel_groups).
    #[must_use]
    pub fn has_channel_groups(&self) -> bool {
        !self.divided().is_empty()
    }

    /// The layers that a bitwidth acts on, of those that this layer of the [whole network](Self::without_channel_groups) was
    /// divided into; the layer itself, if it was not.
    #[must_use]
    pub fn groups_of(&self, layer: &str) -> Vec<String> {
        let divided = self.divided();
        match divided.iter().find(|divided| divided.stages[0].name == layer) {
            None => vec![layer.to_owned()],
            Some(divided) => {
                divided.stages[0].parts.iter().map(|&part| self.nodes[part].name.clone()).collect()
            }
        }
    }

    /// The bitwidths of this network where the layers of the [whole one](Self::without_channel_groups) have these: every group
    /// has that of its layer.
    ///
    /// # Errors
    /// [`BitwidthError`] if there are none.
    pub fn grouped_bits(&self, whole: &[Bitwidth]) -> Result<BitwidthAssignment, BitwidthError> {
        let divided = self.divided();
        let mut whole = whole.iter();
        let mut bits = Vec::new();
        for (index, _) in self.nodes.iter().enumerate().filter(|(_, node)| node.op.is_quantizable())
        {
            let first = divided.iter().any(|divided| divided.stages[0].parts[0] == index);
            let other =
                !first && divided.iter().any(|divided| divided.stages[0].parts.contains(&index));
            let next = if other { bits.last() } else { whole.next() };
            bits.extend(next.copied());
        }
        BitwidthAssignment::new(bits)
    }

    /// What is divided, from the names and the structure.
    pub(crate) fn divided(&self) -> Vec<Divided> {
        (0..self.nodes.len()).filter_map(|index| self.divided_at(index)).collect()
    }

    fn divided_at(&self, concat: usize) -> Option<Divided> {
        if self.nodes[concat].op != Op::Concat {
            return None;
        }
        let parts: Vec<usize> = self.sources[concat].iter().copied().collect::<Option<_>>()?;
        // Group by group, the nodes from the last one up to the layer with weights.
        let chains = parts.iter().enumerate().map(|(group, &last)| {
            let mut chain = Vec::new();
            let mut next = last;
            loop {
                let node = &self.nodes[next];
                let name = node.name.strip_suffix(&part_name("", group))?;
                let mut readers =
                    self.sources.iter().filter(|sources| sources.contains(&Some(next)));
                if readers.next().is_none() || readers.next().is_some() {
                    return None;
                }
                chain.push((name.to_owned(), next));
                if node.op.has_weights() {
                    return Some(chain);
                }
                next = treats_channels_alike(node.op).then(|| self.sources[next][0]).flatten()?;
            }
        });
        let chains: Vec<Vec<(String, usize)>> = chains.collect::<Option<_>>()?;
        let first = chains.first().filter(|first| first[0].0 == self.nodes[concat].name)?;
        let alike = |chain: &Vec<(String, usize)>| {
            chain.len() == first.len()
                && chain.iter().zip(first).all(|((name, part), (other, of_first))| {
                    let ops = [*part, *of_first].map(|index| with_outputs(self.nodes[index].op, 1));
                    name == other && ops[0] == ops[1]
                })
                && chain.last().zip(first.last()).is_some_and(|((_, part), (_, of_first))| {
                    self.sources[*part] == self.sources[*of_first]
                })
        };
        if !chains.iter().all(alike) {
            return None;
        }
        let stages = (0..first.len()).rev().map(|stage| DividedNode {
            name: first[stage].0.clone(),
            parts: chains.iter().map(|chain| chain[stage].1).collect(),
        });
        let sizes = parts.iter().map(|&part| self.shapes[part].channels()).collect();
        Some(Divided { stages: stages.collect(), sizes, concat })
    }

    /// The layer with weights at `index`, if its outputs can be divided, and what is divided with it.
    fn chain(&self, index: usize) -> Option<Chain> {
        match self.nodes[index].op {
            Op::Conv2d(conv) if conv.groups == 1 => {}
            Op::Linear { .. } => {}
            _ => return None,
        }
        let mut chain = vec![index];
        let mut last = index;
        loop {
            let mut readers =
                (0..self.nodes.len()).filter(|&reader| self.sources[reader].contains(&Some(last)));
            match (readers.next(), readers.next()) {
                (Some(only), None) if treats_channels_alike(self.nodes[only].op) => {
                    chain.push(only);
                    last = only;
                }
                _ => return Some(chain),
            }
        }
    }
}

/// Whether what the layer does to a channel is the same whichever others there are.
const fn treats_channels_alike(op: Op) -> bool {
    matches!(op, Op::BatchNorm { .. } | Op::ScaleShift | Op::Relu | Op::Activation(_))
}

/// The same operation with this many outputs, where it says how many it has.
const fn with_outputs(op: Op, outputs: usize) -> Op {
    match op {
        Op::Conv2d(mut conv) => {
            conv.out_channels = outputs;
            Op::Conv2d(conv)
        }
        Op::Linear { bias, .. } => Op::Linear { out_features: outputs, bias },
        other => other,
    }
}

/// Sizes of at most `groups` groups that differ by at most one.
fn divide(channels: usize, groups: NonZeroUsize) -> Vec<usize> {
    let groups = groups.get().min(channels);
    (0..groups).map(|group| (group + 1) * channels / groups - group * channels / groups).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, Parameter, Weights, parameter_shapes};

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn residual() -> Network {
        Network::builder("residual", [3, 8, 8])
            .conv("conv1", Conv2d::new(5, 3).padding(1).without_bias())
            .batch_norm("bn1")
            .relu("relu1")
            .conv("depthwise", Conv2d::new(5, 3).padding(1).groups(5))
            .conv("conv2", Conv2d::new(5, 3).padding(1))
            .add("sum", &["conv2", "relu1"])
            .relu("relu2")
            .flatten("flatten")
            .linear("fc", 3)
            .build()
            .unwrap()
            .with_softmax(true)
    }

    fn named(network: &Network) -> Vec<(&str, Vec<&str>)> {
        let sources = |index: usize| {
            network.sources(index).iter().map(|&source| network.source_name(source)).collect()
        };
        network
            .nodes()
            .iter()
            .enumerate()
            .map(|(i, node)| (node.name.as_str(), sources(i)))
            .collect()
    }

    #[test]
    fn what_follows_a_layer_alone_is_divided_with_it_and_the_last_name_stays() {
        let network = residual().with_channel_groups(TWO).unwrap();
        let expected: [(&str, Vec<&str>); 17] = [
            ("conv1.group1", vec!["input"]),
            ("conv1.group2", vec!["input"]),
            ("bn1.group1", vec!["conv1.group1"]),
            ("bn1.group2", vec!["conv1.group2"]),
            ("relu1.group1", vec!["bn1.group1"]),
            ("relu1.group2", vec!["bn1.group2"]),
            ("relu1", vec!["relu1.group1", "relu1.group2"]),
            ("depthwise", vec!["relu1"]),
            ("conv2.group1", vec!["depthwise"]),
            ("conv2.group2", vec!["depthwise"]),
            ("conv2", vec!["conv2.group1", "conv2.group2"]),
            ("sum", vec!["conv2", "relu1"]),
            ("relu2", vec!["sum"]),
            ("flatten", vec!["relu2"]),
            ("fc.group1", vec!["flatten"]),
            ("fc.group2", vec!["flatten"]),
            ("fc", vec!["fc.group1", "fc.group2"]),
        ];
        assert_eq!(named(&network), expected);
        // 5 channels in groups of 2 and 3; each with its norm.
        let profiles = network.profiles();
        let sizes: Vec<_> = profiles.iter().map(|p| (p.out_channels, p.batch_norm)).collect();
        let expected =
            [(2, true), (3, true), (5, false), (2, false), (3, false), (1, false), (2, false)];
        assert_eq!(sizes, expected);
        assert_eq!(network.outputs(), 3);
        assert!(network.has_softmax() && network.has_channel_groups());
        let macs = |network: &Network| network.profiles().iter().map(|p| p.macs()).sum::<u64>();
        assert_eq!(macs(&network), macs(&residual()));
    }

    #[test]
    fn whole_again_it_is_the_network_that_it_was() {
        let one = residual().with_channel_groups(NonZeroUsize::MIN).unwrap();
        assert_eq!(one, residual());
        let explicit = residual().with_channel_groups(TWO).unwrap();
        let explicit = explicit.without_channel_groups().unwrap();
        assert_eq!(named(&explicit), named(&residual()));
        for groups in [2, 3, 4, 64] {
            let groups = NonZeroUsize::new(groups).unwrap();
            let network = residual().with_channel_groups(groups).unwrap();
            assert_eq!(network.without_channel_groups().unwrap(), explicit, "{groups}");
            let rounded = network.with_fake_quantize().unwrap();
            let whole = rounded.without_channel_groups().unwrap();
            assert_eq!(whole.without_fake_quantize().unwrap(), explicit, "{groups}");
            let anew = network.with_channel_groups(TWO).unwrap();
            assert_eq!(anew, residual().with_channel_groups(TWO).unwrap(), "{groups}");
        }
        assert_eq!(residual().without_channel_groups().unwrap(), residual());
    }

    #[test]
    fn a_network_whose_layers_only_have_such_names_is_not_in_groups() {
        // They read different layers, and another has another kernel.
        let other = |kernel: usize, from: &str| {
            Network::builder("other", [1, 4, 4])
                .conv("stem", Conv2d::new(2, 1))
                .conv("conv.group1", Conv2d::new(2, 3).padding(1))
                .from("stem")
                .conv("conv.group2", Conv2d::new(2, kernel).padding(kernel / 2))
                .from(from)
                .concat("conv", &["conv.group1", "conv.group2"])
                .build()
                .unwrap()
        };
        assert!(other(3, "stem").has_channel_groups());
        assert!(!other(3, "input").has_channel_groups());
        assert!(!other(1, "stem").has_channel_groups());
        // Somebody else reads a part.
        let read = Network::builder("read", [1, 4, 4])
            .conv("conv.group1", Conv2d::new(2, 1))
            .conv("conv.group2", Conv2d::new(2, 1))
            .from("input")
            .concat("conv", &["conv.group1", "conv.group2"])
            .concat("both", &["conv", "conv.group1"])
            .build()
            .unwrap();
        assert!(!read.has_channel_groups());
    }

    #[test]
    fn groups_have_the_bits_of_their_layer() {
        let bits = |bits: &[u8]| BitwidthAssignment::from_bits(bits.iter().copied()).unwrap();
        let network = residual().with_channel_groups(TWO).unwrap();
        let grouped = network.grouped_bits(&bits(&[5, 8, 3, 2])).unwrap();
        assert_eq!(grouped, bits(&[5, 5, 8, 3, 3, 2, 2]));
        assert_eq!(network.groups_of("conv2"), ["conv2.group1", "conv2.group2"]);
        assert_eq!(network.groups_of("depthwise"), ["depthwise"]);
    }

    #[test]
    fn weights_are_divided_by_output_channels() {
        let mut next = 0.0;
        let count = |(name, shape): (String, Vec<usize>)| {
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|_| {
                    next += 1.0;
                    next
                })
                .collect();
            (name, Parameter { shape, values })
        };
        let weights = Weights(parameter_shapes(&residual()).map(count).collect());
        let network = residual().with_channel_groups(TWO).unwrap();
        let divided = weights.clone().into_channel_groups(&network);
        divided.check(&network).unwrap();
        for name in ["conv1.weight", "bn1.running_var", "conv2.bias", "fc.weight"] {
            let (layer, role) = name.split_once('.').unwrap();
            let parts =
                ["group1", "group2"].map(|group| &divided.0[&format!("{layer}.{group}.{role}")]);
            let values: Vec<f32> = parts.iter().flat_map(|part| part.values.clone()).collect();
            assert_eq!(values, weights.0[name].values, "{name}");
            assert_eq!(parts[0].shape[1..], weights.0[name].shape[1..], "{name}");
        }
        assert_eq!(divided.0["depthwise.weight"], weights.0["depthwise.weight"]);
        // What is divided already stays, and what does not fit is left for the check to name.
        assert_eq!(divided.clone().into_channel_groups(&network), divided);
        let mut short = weights;
        short.0.get_mut("fc.bias").unwrap().values.pop();
        let error = short.into_channel_groups(&network).check(&network).unwrap_err();
        assert!(error.to_string().contains("fc.group1.bias"), "{error}");
    }
}
