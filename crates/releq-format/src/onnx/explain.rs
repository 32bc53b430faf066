//! What became of every node of a model.

use std::fmt;

/// What a node became.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Became {
    /// The layer of this name.
    Layer(String),
    /// Part of the layer of this name: a bias, or one of the nodes that an activation was written with.
    Part(String),
    /// A constant that is known at import.
    Constant,
    /// Another order or grouping of the same values, which whoever reads them takes into account.
    View,
    /// Zeros around an image, which the layer that reads it adds.
    Padding,
    /// The softmax after the network.
    Softmax,
    /// Nothing: it changes no value in inference.
    Nothing,
    /// Nothing: the output does not depend on it.
    Unused,
    /// Unknown, since one of its inputs is missing.
    Unreached,
    /// Nothing that there is a layer for, and why.
    Missing(String),
}

impl fmt::Display for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(name) => write!(f, "layer {name}"),
            Self::Part(name) => write!(f, "part of layer {name}"),
            Self::Constant => f.write_str("constant"),
            Self::View => f.write_str("another view of its input"),
            Self::Padding => f.write_str("padding of the next layer"),
            Self::Softmax => f.write_str("softmax after the network"),
            Self::Nothing => f.write_str("changes nothing"),
            Self::Unused => f.write_str("not used by the output"),
            Self::Unreached => f.write_str("unknown: an input is missing"),
            Self::Missing(reason) => write!(f, "MISSING: {reason}"),
        }
    }
}

/// A node and what it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Name of the node; operation and position for one without a name.
    pub node: String,
    /// Its operation.
    pub op: String,
    /// What it became.
    pub became: Became,
}

/// A node that no layer stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Its operation.
    pub op: &'a str,
    /// Why.
    pub reason: &'a str,
}

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}): {}", self.node, self.op, self.reason)
    }
}

/// What became of every node of a model, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// One entry for each node.
    pub nodes: Vec<Explained>,
}

impl Explanation {
    /// The nodes that no layer stands for.
    pub fn missing(&self) -> impl Iterator<Item = Missing<'_>> {
        self.nodes.iter().filter_map(|Explained { node, op, became }| match became {
            Became::Missing(reason) => Some(Missing { node, op, reason }),
            _ => None,
        })
    }
}
