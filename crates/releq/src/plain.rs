//! What a runtime takes of a network whose activations were searched.

use std::collections::BTreeMap;

use releq_core::{BitwidthAssignment, Network, Weights};
use releq_quant::ActivationGrid;
use releq_train::known_grids;

use crate::ReleqError;

/// A network at its bitwidths without the layers that round activations, and the grids that they round to.
pub(crate) struct Plain {
    pub(crate) network: Network,
    pub(crate) weights: Weights,
    /// Of the layers with weights.
    pub(crate) bits: BitwidthAssignment,
    /// By the layer whose values they are for, `input` for the network's input.
    pub(crate) grids: BTreeMap<String, ActivationGrid>,
}

impl Plain {
    /// # Errors
    /// [`ReleqError::Train`] for weights or bitwidths that are not those of the network.
    pub(crate) fn of(
        network: &Network,
        mut weights: Weights,
        bits: &BitwidthAssignment,
    ) -> Result<Self, ReleqError> {
        let grids = known_grids(network, &weights, bits)?;
        weights.remove_ranges(network);
        let bits = network.weight_bits(bits)?;
        Ok(Self { network: network.without_fake_quantize()?, weights, bits, grids })
    }
}
