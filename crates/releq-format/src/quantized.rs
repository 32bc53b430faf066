//! A network whose weights are integer codes, as far as they are quantized.

use std::{collections::BTreeMap, io, path::PathBuf};

use releq_core::{
    Bitwidth, BitwidthAssignment, Network, Node, Parameter, ParameterRole, Weights, WeightsError,
};
use releq_quant::{LayerWeights, QuantError, Quantized, Quantizer};

use crate::{Codes, safetensors::SafetensorsError};

/// A network with weights on integer codes for its quantized layers, and in single precision for everything else: biases,
/// norms, and the weights of layers that are not quantized.
///
/// It is what the exports write, and what is read from them.
///
/// # Shapes
/// Codes are row-major in the shape of the weights that they stand for, the output channels first. They are in memory, or, with
/// [`FileCodes`](crate::packed::FileCodes), still in their file.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedNetwork<C = Quantized> {
    network: Network,
    pub(crate) floats: Weights,
    codes: BTreeMap<String, C>,
    quantizer: Option<String>,
}

/// Why a network cannot be quantized or exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// There are not as many bitwidths as quantizable layers.
    #[error("{bits} bitwidths for {layers} layers")]
    Layers {
        /// Number of bitwidths.
        bits: usize,
        /// Number of layers.
        layers: usize,
    },
    /// The weights are not those of the network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A layer cannot be quantized.
    #[error("layer `{layer}` cannot be quantized")]
    Quantize {
        /// The layer.
        layer: String,
        /// Why.
        source: QuantError,
    },
    /// There are codes for what is no quantizable layer, or codes that do not fit their layer.
    #[error("layer `{layer}`: {reason}")]
    Codes {
        /// The layer.
        layer: String,
        /// What is wrong.
        reason: String,
    },
    /// A form of file cannot express a layer.
    #[error("layer `{layer}` cannot be written as {form}: {reason}")]
    Form {
        /// The layer.
        layer: String,
        /// Name of the form.
        form: &'static str,
        /// Why not, and what can.
        reason: String,
    },
    /// The operators allowed are too old.
    #[error(
        "{what} needs version {needed} of ONNX's operators, and {most} is the most that is allowed"
    )]
    Opset {
        /// What needs them.
        what: String,
        /// The version that it needs.
        needed: i64,
        /// The version that is allowed.
        most: i64,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The safetensors file cannot be written.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
}

impl QuantizedNetwork {
    /// Quantizes the weights of every layer to its bitwidth; layers of [`Bitwidth::FLOAT`] stay as they are.
    ///
    /// # Errors
    /// [`ExportError::Layers`], [`ExportError::Weights`], and [`ExportError::Quantize`] for weights or a bitwidth that
    /// `quantizer` refuses, or if it has no integer codes.
    pub fn new(
        network: Network,
        mut weights: Weights,
        bits: &BitwidthAssignment,
        quantizer: &dyn Quantizer,
    ) -> Result<Self, ExportError> {
        weights.check(&network)?;
        let layers = network.quantizable_layers();
        if bits.len() != layers {
            return Err(ExportError::Layers { bits: bits.len(), layers });
        }
        let mut codes = BTreeMap::new();
        for (node, &bits) in quantizable(&network).zip(bits.iter()) {
            if bits.is_float() {
                continue;
            }
            let name = ParameterRole::Weight.name(&node.name);
            let Some(Parameter { shape, values }) = weights.0.remove(&name) else { continue };
            let quantized = LayerWeights::new(&values, shape[0])
                .and_then(|weights| quantizer.quantize(weights, bits))
                .map_err(|source| ExportError::Quantize { layer: node.name.clone(), source })?;
            codes.insert(node.name.clone(), quantized);
        }
        let quantizer = (!codes.is_empty()).then(|| quantizer.name().to_owned());
        let quantized = Self { network, floats: weights, codes, quantizer };
        // A quantizer of the caller's may return anything.
        quantized.check()?;
        Ok(quantized)
    }

    /// Puts together what was taken apart: codes by layer, all other parameters in `floats`, and the name of the
    /// quantizer that made the codes, if that is known.
    ///
    /// # Errors
    /// [`ExportError::Weights`] and [`ExportError::Codes`] for what does not fit the network.
    pub fn from_parts(
        network: Network,
        floats: Weights,
        codes: BTreeMap<String, Quantized>,
        quantizer: Option<String>,
    ) -> Result<Self, ExportError> {
        Self::assembled(network, floats, codes, quantizer)
    }

    /// All parameters in single precision, the quantized weights as their codes say: what training computes with as
    /// fake-quantized weights.
    #[must_use]
    pub fn dequantized(&self) -> Weights {
        let mut weights = self.floats.clone();
        for (name, shape) in releq_core::parameter_shapes(&self.network) {
            if let Some(codes) = name.strip_suffix(".weight").and_then(|l| self.codes.get(l)) {
                weights.0.insert(name, Parameter { shape, values: codes.dequantize() });
            }
        }
        weights
    }
}

impl<C: Codes> QuantizedNetwork<C> {
    /// As [`from_parts`](QuantizedNetwork::from_parts), wherever codes are.
    pub(crate) fn assembled(
        network: Network,
        floats: Weights,
        codes: BTreeMap<String, C>,
        quantizer: Option<String>,
    ) -> Result<Self, ExportError> {
        let quantized = Self { network, floats, codes, quantizer };
        quantized.check()?;
        Ok(quantized)
    }

    fn check(&self) -> Result<(), ExportError> {
        let shapes: BTreeMap<String, Vec<usize>> =
            releq_core::parameter_shapes(&self.network).collect();
        let known: Vec<&str> = quantizable(&self.network).map(|node| node.name.as_str()).collect();
        for (layer, codes) in &self.codes {
            let wrong = |reason: String| ExportError::Codes { layer: layer.clone(), reason };
            if !known.contains(&layer.as_str()) {
                return Err(wrong("there are codes for it, and it has no weights".to_owned()));
            }
            let name = ParameterRole::Weight.name(layer);
            if self.floats.0.contains_key(&name) {
                return Err(wrong("it has its weights twice".to_owned()));
            }
            let shape = &shapes[&name];
            let (count, len) = (codes.len(), shape.iter().product::<usize>());
            if count != len {
                return Err(wrong(format!("there are {count} codes for {len} weights")));
            }
            let scales = codes.scales().len();
            if scales != 1 && scales != shape[0] {
                return Err(wrong(format!("there are {scales} scales for {} channels", shape[0])));
            }
        }
        let coded =
            |name: &str| name.strip_suffix(".weight").is_some_and(|l| self.codes.contains_key(l));
        for (name, shape) in shapes.iter().filter(|(name, _)| !coded(name)) {
            match self.floats.0.get(name) {
                None => return Err(WeightsError::Missing(name.clone()).into()),
                Some(parameter)
                    if parameter.shape != *shape
                        || parameter.values.len() != shape.iter().product::<usize>() =>
                {
                    let (expected, got) = (shape.clone(), parameter.shape.clone());
                    return Err(WeightsError::Shape { name: name.clone(), expected, got }.into());
                }
                Some(_) => {}
            }
        }
        match self.floats.0.keys().find(|name| !shapes.contains_key(*name)) {
            Some(name) => Err(WeightsError::Unexpected(name.clone()).into()),
            None => Ok(()),
        }
    }

    /// The layers.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// All parameters that are not codes.
    #[must_use]
    pub const fn floats(&self) -> &Weights {
        &self.floats
    }

    /// The codes of a layer; `None` if it is not quantized.
    #[must_use]
    pub fn codes(&self, layer: &str) -> Option<&C> {
        self.codes.get(layer)
    }

    /// Name of the quantizer that made the codes, if there are codes and it is known.
    #[must_use]
    pub fn quantizer(&self) -> Option<&str> {
        self.quantizer.as_deref()
    }

    /// Whether any layer is quantized.
    #[must_use]
    pub fn is_quantized(&self) -> bool {
        !self.codes.is_empty()
    }

    /// Quantizable layers in order, with their bitwidths.
    pub fn layers(&self) -> impl Iterator<Item = (&str, Bitwidth)> {
        quantizable(&self.network).map(|node| {
            let bits = self.codes.get(&node.name).map_or(Bitwidth::FLOAT, C::bits);
            (node.name.as_str(), bits)
        })
    }

    /// The bitwidths of all quantizable layers.
    ///
    /// # Panics
    /// Never: a checked network has a quantizable layer.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a checked network has a quantizable layer")]
    pub fn bits(&self) -> BitwidthAssignment {
        let bits = self.layers().map(|(_, bits)| bits).collect();
        BitwidthAssignment::new(bits).expect("a checked network has a quantizable layer")
    }
}

/// Layers with weights that are quantized.
fn quantizable(network: &Network) -> impl Iterator<Item = &Node> {
    network.nodes().iter().filter(|node| node.op.is_quantizable())
}
