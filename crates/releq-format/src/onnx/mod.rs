//! Networks from ONNX models, and ONNX models from networks.
//!
//! A model is a graph of many small operations, and every exporter writes the same network in another way. Here,
//! everything that does not depend on the image is computed first, for one image, and what remains is put into the layers
//! of a [`Network`], with its [`Weights`] beside it. What comes out computes in floating point what the model computes.
//!
//! ```no_run
//! # fn main() -> Result<(), releq_format::onnx::OnnxError> {
//! use releq_format::onnx;
//!
//! let model = onnx::open("resnet20.onnx")?;
//! println!("{} layers", model.network.nodes().len());
//! for node in &model.explanation.nodes {
//!     println!("{} ({}): {}", node.node, node.op, node.became);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is read
//! Classifiers of one image with one output: convolutions in two dimensions with all of their settings, fully connected
//! layers, batch norms, the usual activations (also where they are written with several nodes), pools, residual sums,
//! concatenations, squeeze and excitation, channel shuffles, a final softmax. Images may come with channels first or last,
//! and the size of the batch may be open. Weights may be initialisers, also shared ones of norms and biases, or constants,
//! in single, half or double precision, in the file or in another one in its folder. Everything else is refused with the
//! names of all nodes that are missing, never passed over.
//!
//! Of quantized models, those that [`export()`] wrote are read, with their codes: their metadata says what no type of ONNX
//! does, the bitwidths.
//!
//! # Source
//! The operators' definitions at onnx.ai; no file of it is part of this crate.

mod attributes;
mod error;
mod explain;
mod export;
mod external;
mod fold;
mod forms;
mod frame;
mod graph;
mod lower;
mod metadata;
mod proto;
mod quantized;
mod scan;
mod tensor;
mod view;

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    path::Path,
};

pub use error::OnnxError;
pub use explain::{Became, Explained, Explanation, Missing};
pub use export::{ExportConfig, Exported, Form, Stored, export, export_int8};
pub use external::External;
use external::{Folder, ReadExternal};
pub use frame::{Batch, End, Frame, Layout};
use graph::Graph;
use lower::Lowering;
use metadata::Metadata;
use prost::{Message, bytes::Bytes};
use releq_core::{Network, ParameterRole, StandIn, Weights};
use releq_quant::Quantized;

use crate::QuantizedNetwork;

/// Values that may be computed from constants besides as many as a file can hold.
const MOST_COMPUTED: usize = 1 << 20;
/// Weights that a byte of a file can hold, at 2 bits each.
const MOST_PER_BYTE: usize = 4;

/// A model as a network.
#[derive(Clone, Debug)]
pub struct Model {
    /// The layers.
    pub network: Network,
    /// Their parameters, those of quantized layers as their codes say.
    pub weights: Weights,
    /// Codes by quantized layer; none but in a model that [`export()`] wrote.
    pub codes: BTreeMap<String, Quantized>,
    /// Name of the quantizer that made the codes, if there are codes and it is known.
    pub quantizer: Option<String>,
    /// Names and forms around them.
    pub frame: Frame,
    /// What became of every node.
    pub explanation: Explanation,
    /// What a user should know.
    pub remarks: Vec<Remark>,
}

impl Model {
    /// The network with its codes, if any layer is quantized.
    #[must_use]
    pub fn quantized(&self) -> Option<QuantizedNetwork> {
        if self.codes.is_empty() {
            return None;
        }
        let mut floats = self.weights.clone();
        for layer in self.codes.keys() {
            floats.0.remove(&ParameterRole::Weight.name(layer));
        }
        let (network, codes) = (self.network.clone(), self.codes.clone());
        // Whoever changes the parts of a model may take away what is needed.
        QuantizedNetwork::from_parts(network, floats, codes, self.quantizer.clone()).ok()
    }
}

/// Something about a model that its user should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remark {
    /// There is no batch norm, and convolutions have biases: exporters make batch norms part of convolutions.
    NoNorms,
    /// Batch norms are those of training, which take the statistics of their batch.
    TrainingNorms,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNorms => f.write_str(
                "no batch norm found, though convolutions have biases. If the network was trained with batch norms, the \
                 exporter made them part of the convolutions, and retraining needs a far lower learning rate, such as \
                 0.0003. To keep them, export with torch.onnx.export(..., dynamo=False, do_constant_folding=False, \
                 training=torch.onnx.TrainingMode.PRESERVE), or with torch.onnx.export(..., dynamo=True, optimize=False)",
            ),
            Self::TrainingNorms => f.write_str(
                "the batch norms are those of training, which normalize by the images that are computed together; here they \
                 take the statistics that are kept in the model, as in inference",
            ),
        }
    }
}

/// Reads the model in a file. Weights in other files are read from the folder of the model and those below it, never
/// from elsewhere, wherever names or links lead to.
///
/// # Errors
/// [`OnnxError`], naming the file.
pub fn open(path: impl AsRef<Path>) -> Result<Model, OnnxError> {
    let path = path.as_ref();
    let bytes = read_file(path)?;
    if let Some(what) = StandIn::of(&bytes) {
        return Err(OnnxError::StandIn { path: path.to_owned(), what });
    }
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut folder = Folder::of(path);
    read(bytes, &name.unwrap_or_default(), &mut |place| folder.read(place))
        .map_err(|error| OnnxError::In { path: path.to_owned(), error: Box::new(error) })
}

/// The bytes of a model, which is no larger than its format allows.
fn read_file(path: &Path) -> Result<Vec<u8>, OnnxError> {
    // A message of protobuf has less than 2 GiB.
    const MOST: u64 = 1 << 31;
    let error = |source| OnnxError::Read { path: path.to_owned(), source };
    // Opening a pipe, or reading a device, may never end.
    let metadata = fs::metadata(path).map_err(error)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "it is a folder" } else { "it is no file" };
        return Err(error(io::Error::other(what)));
    }
    let file = fs::File::open(path).map_err(error)?;
    if metadata.len() > MOST {
        return Err(error(io::Error::other("it is larger than any model, 2 GiB")));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    file.take(MOST).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

/// Reads a model from its bytes, under a name for the network. `external` hands out values that are in other files.
///
/// # Errors
/// [`OnnxError`]: the bytes are no model, something in it is damaged, or nodes are no layers.
pub fn read(
    bytes: Vec<u8>,
    name: &str,
    external: &mut dyn FnMut(&External) -> io::Result<Vec<u8>>,
) -> Result<Model, OnnxError> {
    let bytes = Bytes::from(bytes);
    scan::check(&bytes)?;
    let model = proto::Model::decode(bytes.clone()).map_err(|error| OnnxError::Format {
        reason: match bytes.iter().take(512).all(|byte| matches!(byte, 9..=13 | 32..=126)) {
            true => "it is text; save the model in binary form".to_owned(),
            false => format!("it cannot be decoded ({error}); fetch it again"),
        },
    })?;
    let opsets = &model.opset_import;
    let opset = opsets.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    let opset = opset.map_or(1, |set| set.version);
    let ours = model.metadata_props.iter().find(|entry| entry.key == metadata::KEY);
    let ours = ours.map(|entry| Metadata::parse(&entry.value)).transpose();
    let ours = ours.map_err(|reason| OnnxError::Graph { reason })?;
    let ours = ours.filter(|ours| ours.activation_bits.is_none());
    let graph =
        model.graph.ok_or_else(|| OnnxError::Format { reason: "it has no graph".into() })?;
    let mut read = bytes.len();
    let output = graph.output.first().map(|info| info.name.clone()).unwrap_or_default();
    let graph = Graph::new(graph, &mut |place: &External| {
        let bytes = external(place)?;
        read += bytes.len();
        Ok(bytes)
    })?;
    quantized::check(&graph, ours.is_some())?;
    let input = graph.names[graph.input.tensor].clone();
    drop(bytes);

    // Twice the values of the file, if all of it were single precision.
    let mut most = MOST_COMPUTED + read / 2;
    if ours.is_some() {
        most = most.saturating_add(read.saturating_mul(MOST_PER_BYTE));
    }
    let quantizer = ours.as_ref().and_then(|ours| ours.quantizer.clone());
    let mut lowering = Lowering::new(&graph, opset, ours.as_ref(), most)?;
    lowering.run();
    let finished = lowering.finish(network_name(name))?;
    let producer = [model.producer_name, model.producer_version];
    let producer: Vec<String> = producer.into_iter().flatten().filter(|p| !p.is_empty()).collect();
    let frame = Frame {
        producer: producer.join(" "),
        opset,
        input,
        layout: finished.layout,
        batch: finished.batch,
        output,
        output_rank: finished.output_rank,
        end: finished.end,
        origins: finished.origins,
    };
    let folded = lower::has_folded_norms(&finished.network).then_some(Remark::NoNorms);
    let training = finished.trains_norms.then_some(Remark::TrainingNorms);
    Ok(Model {
        network: finished.network,
        weights: finished.weights,
        codes: finished.codes,
        quantizer,
        frame,
        explanation: finished.explanation,
        remarks: folded.into_iter().chain(training).collect(),
    })
}

/// A name for a network, which becomes part of names of files.
fn network_name(name: &str) -> String {
    let kept = name.chars().take(80);
    let kept: String = kept
        .map(|c| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .collect();
    if kept.is_empty() { "model".to_owned() } else { kept }
}
