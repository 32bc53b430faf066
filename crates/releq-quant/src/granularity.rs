//! How many weights share a scale.

use serde::{Deserialize, Serialize};

use crate::LayerWeights;

/// Which weights share a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// One scale for all weights of a layer.
    #[default]
    PerLayer,
    /// One scale for each output channel.
    PerChannel,
}

impl Granularity {
    /// Number of weights that share a scale, at least 1.
    pub(crate) fn group_len(self, weights: LayerWeights<'_>) -> usize {
        let groups = match self {
            Self::PerLayer => 1,
            Self::PerChannel => weights.channels(),
        };
        (weights.len() / groups).max(1)
    }
}
