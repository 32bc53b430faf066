//! Why a network definition is invalid.

use super::Shape;

/// Why a network definition is invalid, naming the layer.
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
