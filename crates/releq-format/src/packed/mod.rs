//! A network with its weights at exactly as many bits as they have, in one file.
//!
//! The file is a safetensors file, so that everybody can open it. Its metadata has one JSON under `releq`: the layers, the
//! names and forms around them, and for every quantized weight its bitwidth, shape, scale and zero point. Of a quantized
//! weight, the tensor of its name holds the packed bits ([`PackedCodes`](releq_quant::PackedCodes)); everything else is in single precision.
//! Nothing in it depends on a processor. `docs/packed-format.md` describes it for other programs.
//!
//! ```
//! use releq_core::{BitwidthAssignment, Network, Parameter, Weights, parameter_shapes};
//! use releq_format::{QuantizedNetwork, packed::{self, Packed}};
//! use releq_quant::WrpnScaled;
//!
//! let network = Network::builder("tiny", [1, 8, 8]).flatten("flatten").linear("fc", 2).build()?;
//! let halves = |(name, shape): (String, Vec<usize>)| {
//!     (name, Parameter { values: vec![0.5; shape.iter().product()], shape })
//! };
//! let weights = Weights(parameter_shapes(&network).map(halves).collect());
//! let bits = BitwidthAssignment::from_bits(vec![3])?;
//! let model = QuantizedNetwork::new(network, weights, &bits, &WrpnScaled::default())?;
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("tiny.releq.safetensors");
//! packed::save(&path, &Packed::from(model.clone()))?;
//! assert_eq!(packed::load(&path)?.model, model);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file_codes;
mod read;

pub use file_codes::FileCodes;
pub use read::{load, open, parse};

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
};

use ::safetensors::{Dtype, SafeTensorError, tensor::TensorView};
use releq_core::{Bitwidth, Network, Parameter, StandIn, atomic_file, parameter_shapes};
use releq_quant::{ActivationGrids, QuantError, Quantized};
use serde::{Deserialize, Serialize};

use crate::{ExportError, QuantizedNetwork, onnx::Frame, safetensors};

/// Key of the JSON in the metadata of a file.
const KEY: &str = "releq";
/// What the formats of all versions begin with.
const FAMILY: &str = "releq packed ";
/// Changes whenever the meaning of a file does.
const FORMAT: &str = "releq packed 1";
/// The same with the grids of activations, which readers of the first one do not expect.
const WITH_ACTIVATIONS: &str = "releq packed 2";
/// The same with activations of fewer than 8 bits.
const WITH_ACTIVATION_BITS: &str = "releq packed 3";
/// What follows the name of a weight in that of the tensor with its scales, where every channel has its own.
const SCALES: &str = ".scale";

/// What a packed file has; its codes are in memory, or, with [`FileCodes`], still in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed<C = Quantized> {
    /// The network with its codes.
    pub model: QuantizedNetwork<C>,
    /// Names and forms around it, as in the ONNX model that it is from; names of parameters are not kept.
    pub frame: Frame,
    /// The grids of its activations, where they were calibrated: what a runtime with integer kernels rounds them to.
    pub activations: Option<ActivationGrids>,
    /// What else whoever runs it should know.
    pub about: About,
}

/// What whoever runs a network should know of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct About {
    /// Mean of each channel of the images that it was trained on, of pixels from 0 to 1; empty where it is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// Their standard deviation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f32>,
    /// Names of the classes in order; empty where they have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Where it is from, for people: what found the bitwidths, its seed, accuracies.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub origin: BTreeMap<String, String>,
}

impl From<QuantizedNetwork> for Packed {
    fn from(model: QuantizedNetwork) -> Self {
        let frame = Frame::of(model.network());
        Self { frame, model, activations: None, about: About::default() }
    }
}

/// Why a packed file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
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
    /// What is wrong with the content of a file.
    #[error("cannot use {}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<PackedError>,
    },
    /// It is no safetensors file, or a cut or damaged one.
    #[error("this is no packed network, or a damaged one: {0}")]
    Format(SafeTensorError),
    /// It is a safetensors file of another kind.
    #[error("this is no packed network: {reason}")]
    Other {
        /// What it lacks.
        reason: String,
    },
    /// It was written by a version that this one does not know.
    #[error("its format is `{format}`; this version reads `{FORMAT}` to `{WITH_ACTIVATION_BITS}`")]
    Version {
        /// The format.
        format: String,
    },
    /// It is not what was written.
    #[error(
        "it is damaged: its checksum is missing or of other content; fetch it again, or take an earlier copy"
    )]
    Damaged,
    /// Its JSON is not what the format says.
    #[error("its description is wrong: {0}")]
    Description(serde_json::Error),
    /// A tensor is not what the description says.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The grid of an activation is none, or of no layer.
    #[error("activations of `{layer}`: {reason}")]
    Activations {
        /// The layer, or `input`.
        layer: String,
        /// What is wrong.
        reason: String,
    },
    /// Codes and parameters are not those of the network.
    #[error(transparent)]
    Network(#[from] ExportError),
}

/// The JSON of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: String,
    /// Version of this crate that wrote it.
    version: String,
    network: Network,
    frame: Frame,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quantizer: Option<String>,
    weights: Vec<PackedWeight>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activations: Option<ActivationGrids>,
    #[serde(default)]
    about: About,
}

/// One quantized weight.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PackedWeight {
    /// Name of the parameter and of the tensor with its codes.
    name: String,
    bits: Bitwidth,
    /// Of the weights; the codes are in row-major order.
    shape: Vec<usize>,
    /// Of the layer; without it, a tensor has those of the channels. A number in single precision, written in double, so
    /// that no reader can round it otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    zero_point: f32,
}

/// Writes a packed file, whole or not at all.
///
/// # Errors
/// [`PackedError::Write`], and what [`encode`] says.
pub fn save(path: impl AsRef<Path>, packed: &Packed) -> Result<(), PackedError> {
    let path = path.as_ref();
    let bytes = encode(packed)?;
    atomic_file::write(path, &bytes)
        .map_err(|source| PackedError::Write { path: path.to_owned(), source })
}

/// The bytes of a packed file.
///
/// # Errors
/// [`PackedError::Tensor`] for codes of more than 8 bits, and [`PackedError::Activations`] for grids that are none.
pub fn encode(packed: &Packed) -> Result<Vec<u8>, PackedError> {
    let Packed { model, frame, activations, about } = packed;
    if let Some(activations) = activations {
        check_activations(activations, model.network())?;
    }
    let mut weights = Vec::new();
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    for (name, Parameter { shape, values }) in &model.floats().0 {
        tensors.insert(name.clone(), (Dtype::F32, shape.clone(), floats(values)));
    }
    for (name, shape) in parameter_shapes(model.network()) {
        let Some(codes) = name.strip_suffix(".weight").and_then(|layer| model.codes(layer)) else {
            continue;
        };
        let wrong = |error: QuantError| PackedError::Tensor {
            name: name.clone(),
            reason: error.to_string(),
        };
        let bytes = codes.pack().map_err(wrong)?.as_bytes().to_vec();
        let scale = match codes.scales() {
            &[scale] => Some(f64::from(scale)),
            scales => {
                let scales = (Dtype::F32, vec![scales.len()], floats(scales));
                tensors.insert(name.clone() + SCALES, scales);
                None
            }
        };
        let (bits, zero_point) = (codes.bits(), codes.zero_point());
        weights.push(PackedWeight { name: name.clone(), bits, shape, scale, zero_point });
        tensors.insert(name, (Dtype::U8, vec![bytes.len()], bytes));
    }
    let description = Description {
        format: format_with(activations.as_ref()).to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: model.network().clone(),
        frame: Frame { origins: BTreeMap::new(), ..frame.clone() },
        quantizer: model.quantizer().map(str::to_owned),
        weights,
        activations: activations.clone(),
        about: about.clone(),
    };
    let description = serde_json::to_string(&description).map_err(PackedError::Description)?;
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| {
            Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(PackedError::Format)?;
    let metadata = HashMap::from([(KEY.to_owned(), description)]);
    safetensors::encoded(views, metadata).map_err(PackedError::Format)
}

/// Whether the metadata of a safetensors file is that of a packed one, of whatever version.
pub(crate) fn is_packed(metadata: &HashMap<String, String>) -> bool {
    metadata
        .get(KEY)
        .and_then(|text| format_of(text))
        .is_some_and(|format| format.starts_with(FAMILY))
}

fn format_of(description: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
    }
    serde_json::from_str(description).ok().map(|Head { format }| format)
}

/// The format of a file with these grids.
fn format_with(activations: Option<&ActivationGrids>) -> &'static str {
    match activations {
        None => FORMAT,
        Some(ActivationGrids { input, layers }) => {
            match layers.values().chain([input]).all(|grid| grid.bits == Bitwidth::EIGHT) {
                true => WITH_ACTIVATIONS,
                false => WITH_ACTIVATION_BITS,
            }
        }
    }
}

/// Checks that grids have scales and codes, and are of layers that there are.
fn check_activations(grids: &ActivationGrids, network: &Network) -> Result<(), PackedError> {
    let of_layers = grids.layers.iter().map(|(layer, grid)| (layer.as_str(), grid));
    for (layer, grid) in of_layers.chain([("input", &grids.input)]) {
        let wrong =
            |reason: String| Err(PackedError::Activations { layer: layer.to_owned(), reason });
        if !(grid.scale.is_normal() && grid.scale > 0.0) {
            return wrong(format!("{:?} is no scale", grid.scale));
        }
        if grid.bits > Bitwidth::EIGHT {
            return wrong(format!("{} bits are more than 8", grid.bits));
        }
        if grid.zero_point > grid.highest() {
            let (zero_point, bits) = (grid.zero_point, grid.bits);
            return wrong(format!("zero point {zero_point} is no code of {bits} bits"));
        }
        if layer != "input" && !network.nodes().iter().any(|node| node.name == layer) {
            return wrong("the network has no such layer".to_owned());
        }
    }
    Ok(())
}
