//! What can go wrong with an ONNX model.

use std::{io, path::PathBuf};

use releq_core::{NetworkError, StandIn};

use super::{Explanation, Missing};

/// Things that are missing which one message names; more are counted.
const SHOWN: usize = 8;

/// Why an ONNX model cannot become a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has something else in place of its content.
    #[error("{} {what}", path.display())]
    StandIn {
        /// The file.
        path: PathBuf,
        /// What it has.
        what: StandIn,
    },
    /// What is wrong with the model in a file.
    #[error("{}: {error}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: Box<OnnxError>,
    },
    /// The bytes are no ONNX model, or a damaged one.
    #[error("this is no ONNX model: {reason}")]
    Format {
        /// What is wrong.
        reason: String,
    },
    /// The graph as a whole is not one that is read.
    #[error("{reason}")]
    Graph {
        /// What is wrong.
        reason: String,
    },
    /// A constant is damaged, or is not there.
    #[error("node `{node}`: tensor `{tensor}` {reason}")]
    Tensor {
        /// The node that reads it, or that it is a part of.
        node: String,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A node that is wrong in itself.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its operation.
        op: String,
        /// What is wrong.
        reason: String,
    },
    /// The model computes with integers.
    #[error(
        "this model is quantized already: node `{node}` is {op}; bitwidths are searched for a model in floating \
         point, so export the one that it was made from"
    )]
    Quantized {
        /// The first node that says so.
        node: String,
        /// Its operation.
        op: String,
    },
    /// Nodes that no layer of a network stands for.
    #[error("{}", missing_of(explanation.missing()))]
    Missing {
        /// What became of every node.
        explanation: Box<Explanation>,
    },
    /// The network that the nodes amount to is invalid.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl OnnxError {
    /// What became of every node, where the model was read that far.
    #[must_use]
    pub fn explanation(&self) -> Option<&Explanation> {
        match self {
            Self::Missing { explanation } => Some(explanation),
            Self::In { error, .. } => error.explanation(),
            _ => None,
        }
    }
}

fn missing_of<'a>(missing: impl Iterator<Item = Missing<'a>>) -> String {
    let missing: Vec<String> = missing.map(|missing| missing.to_string()).collect();
    let shown = missing.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = match missing.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let nodes = if missing.len() == 1 { "node is" } else { "nodes are" };
    format!("{} {nodes} no layer of a network here: {shown}{more}", missing.len())
}
