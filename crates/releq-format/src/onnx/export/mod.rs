//! Networks with quantized weights as ONNX models, in forms that other programs open.

mod activations;
mod graph;
mod layers;
mod levels;
#[cfg(test)]
mod tests;
mod weights;

use std::{collections::BTreeMap, fmt, path::Path};

use graph::Graph;
use prost::Message;
use releq_core::{Bitwidth, atomic_file, text_enum};
use releq_quant::ActivationGrids;

use super::{
    Frame,
    metadata::{self, Metadata},
    proto,
};
use crate::{ExportError, QuantizedNetwork};

/// How an exported model holds quantized weights. All forms compute the same: the fake-quantized weights, bit for bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// `dq`: integers, and a `DequantizeLinear` for each layer. The file shrinks.
    #[default]
    Dq,
    /// `qcdq`: weights in single precision on their grid, then `QuantizeLinear`, `Clip` and `DequantizeLinear`, for tools
    /// that read the bitwidth from the `Clip`. The file does not shrink.
    Qcdq,
    /// `qonnx`: weights in single precision on their grid, then a `Quant` or `BipolarQuant` of QONNX, for the tools of
    /// FPGAs. One image at a time, since those tools ask for it. The file does not shrink.
    Qonnx,
}

text_enum!(Form, "form",
    Dq => "dq",
    Qcdq => "qcdq",
    Qonnx => "qonnx",
);

/// Settings of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportConfig {
    /// How weights are held.
    pub form: Form,
    /// Highest version of ONNX's operators that may be asked for, for runtimes that are older. Below 25, weights of 2
    /// bits and fewer take 4 bits each, below 21 those of 4 and fewer take 8.
    pub most_opset: i64,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self { form: Form::Dq, most_opset: 25 }
    }
}

/// An exported model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The file.
    pub bytes: Vec<u8>,
    /// Version of ONNX's operators that it asks for: the lowest that has its operators and types.
    pub opset: i64,
    /// Quantizable layers in order, with their bitwidths and the type that their weights are stored in.
    pub layers: Vec<(String, Bitwidth, Stored)>,
}

/// Type that weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// Two bits, four a byte.
    Int2,
    /// Four bits, two a byte.
    Int4,
    /// Eight bits.
    Int8,
    /// Sixteen bits.
    Int16,
    /// Single precision.
    Float,
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Float => "float32",
        })
    }
}

impl Exported {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`ExportError::Write`], naming the file.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), ExportError> {
        let path = path.as_ref();
        atomic_file::write(path, &self.bytes)
            .map_err(|source| ExportError::Write { path: path.to_owned(), source })
    }
}

/// Writes a network as an ONNX model, with the names and forms of `frame`.
///
/// Layers that are not quantized stay in single precision, batch norms stay nodes, and the true bitwidths are in the
/// metadata of the model under `releq`, from which [`read`](super::read) takes them again.
///
/// ```
/// use releq_core::{BitwidthAssignment, Network, Parameter, Weights, parameter_shapes};
/// use releq_format::{
///     QuantizedNetwork,
///     onnx::{self, ExportConfig, Frame},
/// };
/// use releq_quant::WrpnScaled;
///
/// let network = Network::builder("tiny", [1, 4, 4]).flatten("flatten").linear("fc", 2).build()?;
/// let halves = |(name, shape): (String, Vec<usize>)| {
///     (name, Parameter { values: vec![0.5; shape.iter().product()], shape })
/// };
/// let weights = Weights(parameter_shapes(&network).map(halves).collect());
/// let bits = BitwidthAssignment::from_bits(vec![3])?;
/// let quantized = QuantizedNetwork::new(network, weights, &bits, &WrpnScaled::default())?;
///
/// let frame = Frame::of(quantized.network());
/// let exported = onnx::export(&quantized, &frame, &ExportConfig::default())?;
/// assert_eq!(exported.opset, 21); // the first with 4-bit integers
/// let model = onnx::read(exported.bytes, "tiny", &mut |_| unreachable!("nothing is beside it"))?;
/// assert_eq!(model.codes["fc"], *quantized.codes("fc").unwrap());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ExportError::Form`] for a layer that the form cannot hold, [`ExportError::Opset`] for one that needs newer operators
/// than the settings allow.
pub fn export(
    model: &QuantizedNetwork,
    frame: &Frame,
    config: &ExportConfig,
) -> Result<Exported, ExportError> {
    written(model, frame, config, None)
}

/// Writes a network whose activations have 8 bits as well, as an ONNX model that runtimes compute with integers: a pair of
/// `QuantizeLinear` and `DequantizeLinear` after every activation, weights in INT8 whatever their bitwidths, batch norms
/// as part of the convolutions before them with a scale for each channel, and biases in INT32. Layers whose weights are
/// not quantized compute in single precision between rounded activations.
///
/// The file is for running, and is not read back.
///
/// # Errors
/// [`ExportError::Form`] for weights whose levels exceed 8 bits, which are those of DoReFa at 8 bits, and for activations of fewer;
/// [`ExportError::Opset`] as in [`export`].
pub fn export_int8(
    model: &QuantizedNetwork,
    frame: &Frame,
    activations: &ActivationGrids,
    most_opset: i64,
) -> Result<Exported, ExportError> {
    let ActivationGrids { input, layers } = activations;
    let all = layers.iter().map(|(layer, grid)| (layer.as_str(), grid)).chain([("input", input)]);
    for (layer, grid) in all {
        if grid.bits != Bitwidth::EIGHT {
            return Err(ExportError::Form {
                layer: layer.to_owned(),
                form: Form::Dq.name(),
                reason: format!("its activations have {} bits, and ONNX Runtime's 8", grid.bits),
            });
        }
    }
    let config = ExportConfig { form: Form::Dq, most_opset };
    written(model, frame, &config, Some(activations))
}

fn written(
    model: &QuantizedNetwork,
    frame: &Frame,
    config: &ExportConfig,
    activations: Option<&ActivationGrids>,
) -> Result<Exported, ExportError> {
    let Graph { proto: graph, opset, grids, layers } =
        Graph::of(model, frame, config, activations)?;
    let mut opset_import = vec![proto::OperatorSet { domain: String::new(), version: opset }];
    if config.form == Form::Qonnx && model.is_quantized() {
        let domain = weights::QONNX.to_owned();
        opset_import.push(proto::OperatorSet { domain, version: 1 });
    }
    let file = proto::Model {
        ir_version: Some(ir_version(opset)),
        producer_name: Some("releq".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import,
        metadata_props: metadata_of(model, activations.map(|_| 8), grids),
    };
    Ok(Exported { bytes: file.encode_to_vec(), opset, layers })
}

fn metadata_of(
    model: &QuantizedNetwork,
    activation_bits: Option<u8>,
    grids: BTreeMap<String, metadata::Grid>,
) -> Vec<proto::StringEntry> {
    if grids.is_empty() && activation_bits.is_none() {
        return Vec::new();
    }
    // A map of text and finite numbers always serializes.
    let metadata = Metadata::new(model.quantizer(), activation_bits, grids);
    let value = serde_json::to_string(&metadata).unwrap_or_default();
    vec![proto::StringEntry { key: metadata::KEY.to_owned(), value }]
}

/// The version of the file format that came with a version of the operators, for readers older than the newest.
const fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}
