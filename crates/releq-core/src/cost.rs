//! The seam between an assignment and what it costs.

use serde::{Deserialize, Serialize};

use crate::{Bitwidth, LayerProfile};

/// Bitwidths of one layer's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LayerBits {
    /// Bitwidth of the weights.
    pub weight: Bitwidth,
    /// Bitwidth of the activations that the weights are multiplied with.
    pub activation: Bitwidth,
}

impl LayerBits {
    /// Weights of `weight` bits, activations of 8.
    #[must_use]
    pub const fn weights_only(weight: Bitwidth) -> Self {
        Self { weight, activation: Bitwidth::EIGHT }
    }
}

/// An amount in the unit that its [`CostModel`] names; whole numbers are exact up to 2^53.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Cost(pub f64);

/// A layer that a cost model cannot price.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// The model is not defined at this bitwidth.
    #[error("layer `{layer}`: {model} takes bitwidths of {min} to {max}, got {got}")]
    Bitwidth {
        /// Name of the layer.
        layer: String,
        /// Name of the cost model.
        model: String,
        /// What came.
        got: u8,
        /// Smallest allowed.
        min: u8,
        /// Largest allowed.
        max: u8,
    },
    /// The model is not defined for this kind or shape of layer.
    #[error("layer `{layer}`: {model} does not cover {what}")]
    Unsupported {
        /// Name of the layer.
        layer: String,
        /// Name of the cost model.
        model: String,
        /// The property that is not covered.
        what: String,
    },
    /// As many bitwidths as layers are needed.
    #[error("{layers} layers but {bits} bitwidths")]
    LengthMismatch {
        /// Number of layers.
        layers: usize,
        /// Number of bitwidths.
        bits: usize,
    },
}

/// Prices one inference of a network at given bitwidths.
pub trait CostModel: Send + Sync {
    /// Short name for tables and errors, as `stripes`.
    fn name(&self) -> &str;

    /// Unit of every [`Cost`] that this model returns, as `cycles`.
    fn unit(&self) -> &str;

    /// Cost of one inference through `layer`.
    ///
    /// # Errors
    /// [`CostError`] if the model does not cover the layer or the bitwidths.
    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError>;

    /// Cost of one inference through all layers: their sum. Override it when layers overlap in time.
    ///
    /// # Errors
    /// The first error of [`layer_cost`](Self::layer_cost), or [`CostError::LengthMismatch`].
    fn network_cost(&self, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<Cost, CostError> {
        if layers.len() != bits.len() {
            return Err(CostError::LengthMismatch { layers: layers.len(), bits: bits.len() });
        }
        let mut total = 0.0;
        for (layer, &bits) in layers.iter().zip(bits) {
            total += self.layer_cost(layer, bits)?.0;
        }
        Ok(Cost(total))
    }
}

impl<M: CostModel + ?Sized> CostModel for &M {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn unit(&self) -> &str {
        (**self).unit()
    }
    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        (**self).layer_cost(layer, bits)
    }
    fn network_cost(&self, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<Cost, CostError> {
        (**self).network_cost(layers, bits)
    }
}

impl<M: CostModel + ?Sized> CostModel for Box<M> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn unit(&self) -> &str {
        (**self).unit()
    }
    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        (**self).layer_cost(layer, bits)
    }
    fn network_cost(&self, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<Cost, CostError> {
        (**self).network_cost(layers, bits)
    }
}
