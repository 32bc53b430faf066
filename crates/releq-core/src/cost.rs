//! Cost models: what an assignment of bitwidths costs.

use std::{error::Error, mem::discriminant, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Bitwidth, LayerProfile};

/// Bitwidths of one layer's operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerBits {
    /// Bitwidth of the weights.
    pub weight: Bitwidth,
    /// Bitwidth of the activations that the weights are multiplied with.
    pub activation: Bitwidth,
}

impl LayerBits {
    /// Weights of `weight` bits, activations of `activation` bits.
    #[must_use]
    pub const fn new(weight: Bitwidth, activation: Bitwidth) -> Self {
        Self { weight, activation }
    }

    /// Weights of `weight` bits, activations of 8.
    #[must_use]
    pub const fn weights_only(weight: Bitwidth) -> Self {
        Self::new(weight, Bitwidth::EIGHT)
    }

    /// The same with weights of `weight` bits.
    #[must_use]
    pub const fn with_weight(self, weight: Bitwidth) -> Self {
        Self { weight, ..self }
    }

    /// The same with activations of `activation` bits.
    #[must_use]
    pub const fn with_activation(self, activation: Bitwidth) -> Self {
        Self { activation, ..self }
    }
}

/// An amount in the unit that its [`CostModel`] names; whole numbers are exact up to 2^53.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Cost(pub f64);

impl Cost {
    /// The cost itself, if it is finite and not negative.
    ///
    /// # Errors
    /// [`CostError::NotACost`] otherwise, which names `model` as where the cost came from.
    pub fn checked(self, model: &str) -> Result<Self, CostError> {
        if self.0.is_finite() && self.0 >= 0.0 {
            Ok(self)
        } else {
            Err(CostError::NotACost { model: model.to_owned(), cost: self.0 })
        }
    }
}

/// Why a cost model gave no cost.
///
/// Two errors are equal if they have the same contents; of the source of [`Other`](Self::Other), that is its
/// debug output.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// The model is not defined at this bitwidth.
    #[error(
        "layer `{layer}`: {model} takes integer bitwidths of {min} to {max}, got {got}{}",
        if got.is_float() { "; such a layer cannot stay in floating point" } else { "" }
    )]
    Bitwidth {
        /// Name of the layer.
        layer: String,
        /// Name of the cost model.
        model: String,
        /// The rejected bitwidth.
        got: Bitwidth,
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
    /// The numbers of layers and of bitwidths differ.
    #[error("{layers} layers but {bits} bitwidths")]
    LengthMismatch {
        /// Number of layers.
        layers: usize,
        /// Number of bitwidths.
        bits: usize,
    },
    /// The model returned NaN, an infinity or a negative number.
    #[error("{model} returned a cost of {cost:?}: a cost must be finite and not negative")]
    NotACost {
        /// Name of the cost model.
        model: String,
        /// The number that it returned.
        cost: f64,
    },
    /// An error of a cost model that none of the other variants describes, such as a failed measurement; see
    /// [`other`](Self::other).
    #[error("{model} failed")]
    Other {
        /// Name of the cost model.
        model: String,
        /// What the model reported.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl CostError {
    /// Wraps an error of the cost model named `model`.
    ///
    /// ```
    /// # use releq_core::CostError;
    /// use std::error::Error;
    ///
    /// let error = CostError::other("board", "the board does not answer");
    /// assert_eq!(error.to_string(), "board failed");
    /// assert_eq!(error.source().unwrap().to_string(), "the board does not answer");
    /// ```
    pub fn other(
        model: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Other { model: model.into(), source: Arc::from(source.into()) }
    }
}

// Not derived, since errors in general cannot be compared.
impl PartialEq for CostError {
    fn eq(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other) && format!("{self:?}") == format!("{other:?}")
    }
}

/// Prices one inference of a network at given bitwidths.
///
/// More bits must never be cheaper, and equal arguments must give equal costs. With the feature `testing`,
/// `check_cost_model` checks an implementation for this.
pub trait CostModel: Send + Sync {
    /// Short name for tables and errors, such as `stripes`.
    fn name(&self) -> &str;

    /// Unit of every [`Cost`] that this model returns, such as `cycles`.
    fn unit(&self) -> &str;

    /// Cost of one inference through `layer`.
    ///
    /// # Errors
    /// [`CostError`] if the model does not cover the layer or the bitwidths.
    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError>;

    /// Cost of one inference through all layers: their sum. Override it where layers overlap in time.
    ///
    /// # Errors
    /// The first error of [`layer_cost`](Self::layer_cost), or [`CostError::LengthMismatch`].
    fn network_cost(&self, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<Cost, CostError> {
        check_lengths(layers, bits)?;
        let mut total = 0.0;
        for (layer, &bits) in layers.iter().zip(bits) {
            total += self.layer_cost(layer, bits)?.0;
        }
        Ok(Cost(total))
    }

    /// Whether a search that compares costs leaves out the layers whose bits it may not change.
    ///
    /// A physical cost is that of the whole network, so the default is `false`. A figure of the search itself,
    /// such as the mean of the bits that it chose, is `true`.
    fn searched_layers_only(&self) -> bool {
        false
    }
}

/// [`CostModel::network_cost`] for callers that rely on the answer: a model that returns NaN, an infinity or a
/// negative cost is an error.
///
/// # Errors
/// Those of the model, [`CostError::LengthMismatch`], and [`CostError::NotACost`].
pub fn checked_network_cost<M: CostModel + ?Sized>(
    model: &M,
    layers: &[LayerProfile],
    bits: &[LayerBits],
) -> Result<Cost, CostError> {
    check_lengths(layers, bits)?;
    model.network_cost(layers, bits)?.checked(model.name())
}

fn check_lengths(layers: &[LayerProfile], bits: &[LayerBits]) -> Result<(), CostError> {
    if layers.len() == bits.len() {
        Ok(())
    } else {
        Err(CostError::LengthMismatch { layers: layers.len(), bits: bits.len() })
    }
}

macro_rules! forward_cost_model {
    ($($pointer:ty),*) => {$(
        impl<M: CostModel + ?Sized> CostModel for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }
            fn unit(&self) -> &str {
                (**self).unit()
            }
            fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
                (**self).layer_cost(layer, bits)
            }
            fn network_cost(
                &self,
                layers: &[LayerProfile],
                bits: &[LayerBits],
            ) -> Result<Cost, CostError> {
                (**self).network_cost(layers, bits)
            }
            fn searched_layers_only(&self) -> bool {
                (**self).searched_layers_only()
            }
        }
    )*};
}

forward_cost_model!(&M, Box<M>, Arc<M>);

#[cfg(test)]
mod tests {
    use super::*;

    /// Ignores the lengths, as a careless model may.
    struct Constant(f64);

    impl CostModel for Constant {
        fn name(&self) -> &str {
            "constant"
        }
        fn unit(&self) -> &str {
            "1"
        }
        fn layer_cost(&self, _: &LayerProfile, _: LayerBits) -> Result<Cost, CostError> {
            Ok(Cost(self.0))
        }
        fn network_cost(&self, _: &[LayerProfile], _: &[LayerBits]) -> Result<Cost, CostError> {
            Ok(Cost(self.0))
        }
    }

    #[test]
    fn what_is_not_a_cost_is_an_error_that_names_the_model() {
        let cost = |cost: f64| checked_network_cost(&Constant(cost), &[], &[]);
        for good in [0.0, 1.5, f64::MAX] {
            assert_eq!(cost(good), Ok(Cost(good)));
        }
        for bad in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let message = cost(bad).unwrap_err().to_string();
            let expected = format!("constant returned a cost of {bad}");
            assert!(message.starts_with(&expected), "{message}");
        }
        let bits = [LayerBits::weights_only(Bitwidth::EIGHT)];
        let mismatch = checked_network_cost(&Constant(1.0), &[], &bits);
        assert_eq!(mismatch, Err(CostError::LengthMismatch { layers: 0, bits: 1 }));
    }

    #[test]
    fn pointers_forward_an_overridden_network_cost() {
        let shared: Arc<dyn CostModel> = Arc::new(Constant(2.0));
        let boxed: Box<dyn CostModel> = Box::new(Arc::clone(&shared));
        for model in [&shared as &dyn CostModel, &boxed, &&*shared] {
            assert_eq!((model.name(), model.unit()), ("constant", "1"));
            assert_eq!(model.network_cost(&[], &[]), Ok(Cost(2.0)));
        }
    }

    #[test]
    fn errors_with_a_source_compare_by_contents() {
        let error = |text: &str| CostError::other("board", text);
        assert_eq!(error("offline"), error("offline").clone());
        assert_ne!(error("offline"), error("busy"));
        assert_ne!(error("offline"), CostError::other("phone", "offline"));
        let nan = || CostError::NotACost { model: "board".into(), cost: f64::NAN };
        assert_eq!(nan(), nan());
    }
}
