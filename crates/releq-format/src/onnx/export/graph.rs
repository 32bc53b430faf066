//! The graph while it is written: nodes, constants and names.

use std::collections::{BTreeMap, HashSet};

use prost::bytes::Bytes;
use releq_core::{Bitwidth, ParameterRole, Shape};
use releq_quant::ActivationGrids;

use super::{ExportConfig, Form, Frame, Stored, metadata::Grid};
use crate::{
    ExportError, QuantizedNetwork,
    onnx::{Batch, End, Layout, proto},
};

/// The first version of the operators that is asked for: with scales for each channel.
const LEAST_OPSET: i64 = 13;

/// `AttributeProto.AttributeType` of `onnx.proto`.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const INTS: i32 = 7;

/// ONNX's number of single precision, and of 64-bit integers.
const F32: i32 = 1;
const I64: i32 = 7;

/// A graph as it came out of a network.
pub(super) struct Graph {
    pub(super) proto: proto::Graph,
    pub(super) opset: i64,
    pub(super) grids: BTreeMap<String, Grid>,
    pub(super) layers: Vec<(String, Bitwidth, Stored)>,
}

impl Graph {
    pub(super) fn of(
        model: &QuantizedNetwork,
        frame: &Frame,
        config: &ExportConfig,
        activations: Option<&ActivationGrids>,
    ) -> Result<Self, ExportError> {
        Writer::new(model, frame, *config, activations).graph()
    }
}

/// A graph that is being written.
pub(super) struct Writer<'a> {
    pub(super) model: &'a QuantizedNetwork,
    pub(super) frame: &'a Frame,
    pub(super) config: ExportConfig,
    /// Where activations are rounded, if they are.
    pub(super) activations: Option<&'a ActivationGrids>,
    /// Tensors that are rounded activations.
    pub(super) rounded: HashSet<String>,
    nodes: Vec<proto::Node>,
    constants: Vec<proto::Tensor>,
    /// Names of tensors that are taken.
    tensors: HashSet<String>,
    /// Names of nodes that are taken.
    labels: HashSet<String>,
    /// The input of the graph, and the same as an image with channels first, once that was needed.
    input: String,
    image: Option<String>,
    /// Tensors that the layers give.
    values: Vec<String>,
    opset: i64,
    pub(super) grids: BTreeMap<String, Grid>,
    pub(super) layers: Vec<(String, Bitwidth, Stored)>,
}

impl<'a> Writer<'a> {
    fn new(
        model: &'a QuantizedNetwork,
        frame: &'a Frame,
        config: ExportConfig,
        activations: Option<&'a ActivationGrids>,
    ) -> Self {
        Self {
            model,
            frame,
            config,
            activations,
            rounded: HashSet::new(),
            nodes: Vec::new(),
            constants: Vec::new(),
            tensors: HashSet::new(),
            labels: HashSet::new(),
            input: String::new(),
            image: None,
            values: Vec::new(),
            opset: LEAST_OPSET,
            grids: BTreeMap::new(),
            layers: Vec::new(),
        }
    }

    fn graph(mut self) -> Result<Graph, ExportError> {
        let (model, frame) = (self.model, self.frame);
        let network = model.network();
        self.needs(LEAST_OPSET, || "a quantized model".to_owned())?;
        self.input = self.tensor_name(&frame.input, "input");
        let output = self.tensor_name(&frame.output, "output");
        for index in 0..network.nodes().len() {
            let value = self.layer(index)?;
            let value = self.rounded_output(index, value);
            self.values.push(value);
        }
        let last = self.values.last().cloned().unwrap_or_else(|| self.input.clone());
        self.end(last, network.shape(network.nodes().len() - 1), &output);
        let mut output_dims = vec![self.batch()];
        match network.shape(network.nodes().len() - 1) {
            Shape::Vector { features } => {
                output_dims.push(size(features));
                output_dims.extend((2..self.output_rank()).map(|_| size(1)));
            }
            Shape::Image { channels, height, width } => {
                output_dims.extend([channels, height, width].map(size));
            }
        }
        let proto = proto::Graph {
            name: network.name().to_owned(),
            input: vec![value_info(&self.input, self.input_dims())],
            output: vec![value_info(&output, output_dims)],
            node: self.nodes,
            initializer: self.constants,
        };
        Ok(Graph { proto, opset: self.opset, grids: self.grids, layers: self.layers })
    }

    /// Asks for a version of the operators.
    pub(super) fn needs(
        &mut self,
        opset: i64,
        what: impl FnOnce() -> String,
    ) -> Result<(), ExportError> {
        let most = self.config.most_opset;
        if opset > most {
            return Err(ExportError::Opset { what: what(), needed: opset, most });
        }
        self.opset = self.opset.max(opset);
        Ok(())
    }

    /// A name for a tensor that no other has: `wanted` if that is free.
    pub(super) fn tensor_name(&mut self, wanted: &str, instead: &str) -> String {
        free(&mut self.tensors, if wanted.is_empty() { instead } else { wanted })
    }

    /// A name for the tensor that a layer gives, or a step on the way there.
    pub(super) fn value_name(&mut self, layer: &str) -> String {
        self.tensor_name(&format!("{layer}.output"), "")
    }

    /// What a layer reads: the output of another, or the input of the network as an image with channels first.
    pub(super) fn value(&mut self, source: Option<usize>) -> String {
        match source {
            Some(layer) => self.values[layer].clone(),
            None => self.image(),
        }
    }

    /// What a layer reads that takes any order of features, without a detour over an image.
    pub(super) fn flat_value(&mut self, source: Option<usize>) -> Option<String> {
        match (source, self.frame.layout) {
            (None, Layout::Features) if self.activations.is_none() => Some(self.input.clone()),
            _ => None,
        }
    }

    fn image(&mut self) -> String {
        if let Some(image) = &self.image {
            return image.clone();
        }
        let input = self.input.clone();
        let image = match self.frame.layout {
            Layout::ChannelsFirst => input,
            Layout::ChannelsLast => {
                let order = [ints("perm", &[0, 3, 1, 2])];
                self.step("input.channels_first", "Transpose", &[&input], &order)
            }
            Layout::Features => {
                let [channels, height, width] = self.model.network().input();
                let shape = self.integers("input.shape", &dims(&[0, channels, height, width]));
                self.step("input.image", "Reshape", &[&input, &shape], &[])
            }
        };
        let image = match self.activations {
            Some(activations) => self.rounded("input", &image, activations.input),
            None => image,
        };
        self.image.insert(image).clone()
    }

    /// Appends a node; gives the name of what it computes.
    pub(super) fn step(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[&str],
        attributes: &[proto::Attribute],
    ) -> String {
        let output = self.value_name(name);
        self.node(name, op, inputs, &output, attributes);
        output
    }

    /// Appends a node that computes the tensor `output`.
    pub(super) fn node(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[proto::Attribute],
    ) {
        let name = free(&mut self.labels, name);
        self.nodes.push(proto::Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            name,
            op_type: op.to_owned(),
            attribute: attributes.to_vec(),
            domain: String::new(),
        });
    }

    /// Puts the node that was appended last into another domain.
    pub(super) fn in_domain(&mut self, domain: &str) {
        if let Some(node) = self.nodes.last_mut() {
            domain.clone_into(&mut node.domain);
        }
    }

    /// A constant under a name that must be free.
    pub(super) fn constant(&mut self, name: &str, data_type: i32, dims: Vec<i64>, bytes: Vec<u8>) {
        self.constants.push(proto::Tensor {
            dims,
            data_type,
            name: name.to_owned(),
            raw_data: Bytes::from(bytes),
            ..Default::default()
        });
    }

    pub(super) fn floats(&mut self, name: &str, dims: Vec<i64>, values: &[f32]) -> String {
        let name = self.tensor_name(name, "constant");
        self.constant(&name, F32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect());
        name
    }

    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let name = self.tensor_name(name, "constant");
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(&name, I64, vec![values.len() as i64], bytes);
        name
    }

    /// The name of a parameter: that of the initialiser that it was read from, unless another parameter has it.
    pub(super) fn parameter_name(&mut self, layer: &str, role: ParameterRole) -> String {
        let name = role.name(layer);
        let origin = self.frame.origins.get(&name).filter(|origin| !self.tensors.contains(*origin));
        let name = origin.cloned().unwrap_or(name);
        self.tensor_name(&name, "parameter")
    }

    /// A parameter in single precision, in the dimensions `dims`.
    pub(super) fn parameter(&mut self, layer: &str, role: ParameterRole, dims: Vec<i64>) -> String {
        let name = self.parameter_name(layer, role);
        let model = self.model;
        let parameter = model.floats().0.get(&role.name(layer));
        let values = parameter.map_or(&[][..], |parameter| parameter.values.as_slice());
        self.constant(&name, F32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect());
        name
    }

    fn output_rank(&self) -> usize {
        // Ranks come from files; more dimensions than this nobody means.
        self.frame.output_rank.clamp(2, 8)
    }

    /// What follows the network, up to the output.
    fn end(&mut self, last: String, shape: Shape, output: &str) {
        let mut value = last;
        let function = match self.frame.end {
            End::Logits => None,
            End::Softmax => Some("Softmax"),
            End::LogSoftmax => Some("LogSoftmax"),
        };
        if let Some(function) = function {
            value = self.step("softmax", function, &[&value], &[int("axis", 1)]);
        }
        let more = self.output_rank() - 2;
        if let (Shape::Vector { .. }, 1..) = (shape, more) {
            let axes: Vec<i64> = (2..self.output_rank() as i64).collect();
            let axes = self.integers("output.axes", &axes);
            value = self.step("output", "Unsqueeze", &[&value, &axes], &[]);
        }
        match self.nodes.last_mut() {
            // Nothing else reads the last value, since layers read earlier ones only.
            Some(node) if node.output == [value.as_str()] => output.clone_into(&mut node.output[0]),
            _ => self.node("output", "Identity", &[&value], output, &[]),
        }
    }

    fn batch(&self) -> proto::Dimension {
        match &self.frame.batch {
            _ if self.config.form == Form::Qonnx => size(1),
            Batch::Fixed(batch) => size(*batch),
            Batch::Any(symbol) => proto::Dimension {
                dim_value: None,
                dim_param: Some(symbol.clone().unwrap_or_else(|| "batch".to_owned())),
            },
        }
    }

    fn input_dims(&self) -> Vec<proto::Dimension> {
        let [channels, height, width] = self.model.network().input();
        let sizes = match self.frame.layout {
            Layout::ChannelsFirst => vec![channels, height, width],
            Layout::ChannelsLast => vec![height, width, channels],
            Layout::Features => vec![channels * height * width],
        };
        std::iter::once(self.batch()).chain(sizes.into_iter().map(size)).collect()
    }
}

/// `wanted`, with a number behind it if it is taken.
fn free(taken: &mut HashSet<String>, wanted: &str) -> String {
    let numbered = (2..).map(|number: usize| format!("{wanted}_{number}"));
    let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
    let free = names.find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(free.clone());
    free
}

/// Sizes as ONNX has them. None is beyond `i64`: networks are checked to fit in memory.
pub(super) fn dims(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&size| size as i64).collect()
}

const fn size(size: usize) -> proto::Dimension {
    proto::Dimension { dim_value: Some(size as i64), dim_param: None }
}

fn value_info(name: &str, dim: Vec<proto::Dimension>) -> proto::ValueInfo {
    let shape = Some(proto::TensorShape { dim });
    let tensor_type = Some(proto::TensorType { elem_type: F32, shape });
    proto::ValueInfo { name: name.to_owned(), r#type: Some(proto::Type { tensor_type }) }
}

fn attribute(name: &str, r#type: i32) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), r#type, ..Default::default() }
}

pub(super) fn int(name: &str, value: i64) -> proto::Attribute {
    proto::Attribute { i: Some(value), ..attribute(name, INT) }
}

pub(super) fn float(name: &str, value: f32) -> proto::Attribute {
    proto::Attribute { f: Some(value), ..attribute(name, FLOAT) }
}

pub(super) fn ints(name: &str, values: &[i64]) -> proto::Attribute {
    proto::Attribute { ints: values.to_vec(), ..attribute(name, INTS) }
}

pub(super) fn text(name: &str, value: &str) -> proto::Attribute {
    let s = Some(Bytes::copy_from_slice(value.as_bytes()));
    proto::Attribute { s, ..attribute(name, STRING) }
}
