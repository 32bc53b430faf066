//! Networks whose activations have bitwidths too: layers that round them, put in and taken out.

use std::collections::{BTreeMap, BTreeSet};

use super::{INPUT, Network, NetworkError, Node, Op};
use crate::{Bitwidth, BitwidthAssignment, BitwidthError};

/// What the name of a layer that rounds adds to the name of the layer whose values it rounds.
const SUFFIX: &str = ".activations";

impl Network {
    /// The same network with [`Op::FakeQuantize`] behind everything that a layer with weights reads: the input too, and each
    /// only once however many read it. What only moves values, such as a maximum of a window, is read through.
    ///
    /// The new layers are named after what they round, `relu1.activations`, and the network's input `input.activations`.
    /// Everyone who read the values now reads the rounded ones, as a runtime does that keeps them as codes. A network that
    /// has such layers already is given back as it is.
    ///
    /// # Errors
    /// [`NetworkError::BadName`] if a layer has one of these names already.
    pub fn with_fake_quantize(&self) -> Result<Self, NetworkError> {
        if self.rounds_activations() {
            return Ok(self.clone());
        }
        let readers = (0..self.nodes.len()).filter(|&index| self.nodes[index].op.has_weights());
        let rounded: BTreeSet<Option<usize>> =
            readers.map(|index| self.unmoved(self.sources[index][0])).collect();
        let mut nodes = Vec::with_capacity(self.nodes.len() + rounded.len());
        let suffixed = |source: Option<usize>| format!("{}{SUFFIX}", self.source_name(source));
        let named = |source: Option<usize>| match rounded.contains(&source) {
            true => suffixed(source),
            false => self.source_name(source).to_owned(),
        };
        let round = |source: Option<usize>| Node {
            name: suffixed(source),
            op: Op::FakeQuantize,
            inputs: vec![self.source_name(source).to_owned()],
        };
        nodes.extend(rounded.contains(&None).then(|| round(None)));
        for (index, node) in self.nodes.iter().enumerate() {
            let inputs = self.sources[index].iter().map(|&source| named(source)).collect();
            nodes.push(Node { inputs, ..node.clone() });
            nodes.extend(rounded.contains(&Some(index)).then(|| round(Some(index))));
        }
        self.with_nodes(nodes)
    }

    /// The same network without [`Op::FakeQuantize`]: whoever read rounded values reads what was rounded. A network that has no
    /// such layers is given back as it is.
    ///
    /// # Errors
    /// None: what is left is a network.
    pub fn without_fake_quantize(&self) -> Result<Self, NetworkError> {
        if !self.rounds_activations() {
            return Ok(self.clone());
        }
        let mut unrounded: BTreeMap<Option<usize>, String> = BTreeMap::new();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            let of = |source: &Option<usize>| {
                let found = unrounded.get(source).cloned();
                found.unwrap_or_else(|| self.source_name(*source).to_owned())
            };
            let inputs: Vec<String> = self.sources[index].iter().map(of).collect();
            if node.op == Op::FakeQuantize {
                unrounded.insert(Some(index), inputs.concat());
            } else {
                nodes.push(Node { inputs, ..node.clone() });
            }
        }
        self.with_nodes(nodes)
    }

    /// Whether activations are rounded: whether it has [`Op::FakeQuantize`].
    #[must_use]
    pub fn rounds_activations(&self) -> bool {
        self.nodes.iter().any(|node| node.op == Op::FakeQuantize)
    }

    /// The bitwidths of the layers with weights, of an assignment with those of rounded activations.
    ///
    /// # Errors
    /// [`BitwidthError`] if there are none.
    pub fn weight_bits(&self, bits: &[Bitwidth]) -> Result<BitwidthAssignment, BitwidthError> {
        let layers = self.nodes.iter().filter(|node| node.op.is_quantizable()).zip(bits);
        let with_weights = layers.filter(|(node, _)| node.op.has_weights());
        BitwidthAssignment::new(with_weights.map(|(_, &bits)| bits).collect())
    }

    /// The layer that gives values, looked at from one that may only have moved them; `None` is the network's input.
    #[must_use]
    pub fn unmoved(&self, mut source: Option<usize>) -> Option<usize> {
        while let Some(moves) = source.filter(|&layer| self.nodes[layer].op.moves_values()) {
            source = self.sources[moves][0];
        }
        source
    }

    /// The layer that gives values, looked at from one that may only have rounded them; `None` is the network's input.
    pub(super) fn unrounded(&self, source: Option<usize>) -> Option<usize> {
        match source.filter(|&layer| self.nodes[layer].op == Op::FakeQuantize) {
            Some(rounds) => self.sources[rounds][0],
            None => source,
        }
    }

    /// The name under which layers refer to a source: `input` for the network's input.
    ///
    /// # Panics
    /// If there is no such layer.
    #[must_use]
    pub fn source_name(&self, source: Option<usize>) -> &str {
        source.map_or(INPUT, |layer| &self.nodes[layer].name)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Conv2d, LayerKind};

    use super::*;

    fn branches() -> Network {
        Network::builder("branches", [1, 6, 6])
            .conv("conv", Conv2d::new(4, 3).padding(1).without_bias())
            .batch_norm("bn")
            .relu("relu")
            .max_pool("pool", 2, 2)
            .conv("left", Conv2d::new(4, 1))
            .conv("right", Conv2d::new(4, 1))
            .from("pool")
            .add("sum", &["left", "right", "pool"])
            .flatten("flatten")
            .linear("fc", 3)
            .build()
            .unwrap()
            .with_softmax(true)
    }

    #[test]
    fn what_layers_with_weights_read_is_rounded_once_where_it_is_made() {
        let network = branches().with_fake_quantize().unwrap();
        let rounds: Vec<&str> = network
            .nodes()
            .iter()
            .filter(|node| node.op == Op::FakeQuantize)
            .map(|node| node.name.as_str())
            .collect();
        assert_eq!(rounds, ["input.activations", "relu.activations", "sum.activations"]);
        let node = |name: &str| network.nodes().iter().find(|node| node.name == name).unwrap();
        assert_eq!(node("conv").inputs, ["input.activations"]);
        assert_eq!(node("pool").inputs, ["relu.activations"]);
        assert_eq!(node("sum").inputs, ["left", "right", "pool"]);
        assert_eq!(node("flatten").inputs, ["sum.activations"]);
        assert_eq!(network.quantizable_layers(), 7);
        assert!(network.has_softmax());
        assert_eq!(network.with_fake_quantize().unwrap(), network);
    }

    #[test]
    fn a_norm_behind_rounded_values_is_one_of_its_layer() {
        let norms = |network: &Network| {
            let profiles = network.profiles().into_iter();
            profiles.filter(|p| p.batch_norm).map(|p| p.name).collect::<Vec<_>>()
        };
        // A norm reads the same values as a layer with weights.
        let network = Network::builder("both", [1, 4, 4])
            .conv("conv", Conv2d::new(2, 1))
            .batch_norm("bn")
            .conv("other", Conv2d::new(2, 1))
            .from("conv")
            .add("sum", &["bn", "other"])
            .build()
            .unwrap();
        assert_eq!(norms(&network), ["conv"]);
        assert_eq!(norms(&network.with_fake_quantize().unwrap()), ["conv"]);
    }

    #[test]
    fn profiles_say_whose_rounded_values_a_layer_reads() {
        let profiles = branches().with_fake_quantize().unwrap().profiles();
        let reads: Vec<(&str, Option<&str>)> =
            profiles.iter().map(|p| (p.name.as_str(), p.reads.as_deref())).collect();
        let expected = [
            ("input.activations", None),
            ("conv", Some("input.activations")),
            ("relu.activations", None),
            ("left", Some("relu.activations")),
            ("right", Some("relu.activations")),
            ("sum.activations", None),
            ("fc", Some("sum.activations")),
        ];
        assert_eq!(reads, expected);
        assert_eq!(profiles[2].kind, LayerKind::Activations);
        assert_eq!((profiles[2].weights(), profiles[2].macs()), (0, 0));
        assert_eq!(profiles[2].in_activations(), 4 * 6 * 6);
        assert!(branches().profiles().iter().all(|profile| profile.reads.is_none()));
    }

    #[test]
    fn taken_out_the_network_computes_what_it_did() {
        let network = branches().with_fake_quantize().unwrap().without_fake_quantize().unwrap();
        let sources = |network: &Network| -> Vec<Vec<Option<usize>>> {
            (0..network.nodes().len()).map(|index| network.sources(index).to_vec()).collect()
        };
        let ops = |network: &Network| -> Vec<(String, Op)> {
            network.nodes().iter().map(|node| (node.name.clone(), node.op)).collect()
        };
        assert_eq!(sources(&network), sources(&branches()));
        assert_eq!(ops(&network), ops(&branches()));
        assert!(network.has_softmax());
        assert_eq!(network.profiles(), branches().profiles());
    }

    #[test]
    fn a_name_that_is_taken_is_refused() {
        let taken = Network::builder("taken", [1, 2, 2])
            .flatten("flatten")
            .linear("input.activations", 2)
            .build()
            .unwrap();
        assert!(taken.with_fake_quantize().is_err());
    }
}
