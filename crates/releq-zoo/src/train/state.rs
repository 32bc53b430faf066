//! The numbers of a network, by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One named tensor of a network in plain memory, row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The values, `shape.iter().product()` of them.
    pub values: Vec<f32>,
}

/// Weights and statistics of a network, by `layer.weight`, `layer.bias`, `layer.running_mean` and
/// `layer.running_var`.
///
/// # Shapes
/// As in PyTorch: convolution weights `[out, in / groups, kernel, kernel]`, linear weights
/// `[out, in]`, everything else `[channels]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkState(pub BTreeMap<String, Parameter>);
