//! From nodes to layers, one node after the other.
//!
//! Every tensor of the model is a [`Value`]: a constant, or a [`Data`], which is the output of a layer together with
//! what was done to it that needs no layer yet. Another order of the values is a view, a factor and a summand for each
//! channel wait for the layer that takes them in, and zeros around an image wait for the convolution that adds them. So
//! the ways in which exporters write the same network meet here, without patterns of many nodes.

mod activation;
mod affine;
mod arithmetic;
mod conv;
mod finish;
mod input;
mod layers;
mod linear;
mod names;
mod norm;
mod pool;
mod source;
mod views;
mod window;

use std::{collections::HashMap, sync::Arc};

use releq_core::Shape;

pub(super) use self::finish::has_folded_norms;
use self::{affine::Affine, layers::Layer};
use super::{
    Batch, Became, End, Layout, OnnxError,
    fold::fold,
    graph::{Graph, Node, TensorId},
    metadata::Metadata,
    quantized,
    tensor::{Reason, Tensor},
    view::View,
};

/// Index of a layer; `None` is the input of the network.
type Source = Option<usize>;

/// Why a node becomes nothing.
#[derive(Debug)]
enum Stop {
    /// There is no layer for it, for this reason.
    Missing(Reason),
    /// One of its inputs is unknown.
    Unreached,
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Missing(reason)
    }
}

impl From<&str> for Stop {
    fn from(reason: &str) -> Self {
        Self::Missing(reason.to_owned())
    }
}

/// What a tensor of the model is.
#[derive(Clone, Debug)]
enum Value {
    /// The output of a node for which there is no layer, or of none yet.
    Unknown,
    Constant(Tensor),
    Data(Data),
    /// Several tensors in one.
    Sequence(Vec<Data>),
}

/// A tensor that depends on the image.
#[derive(Clone, Debug)]
struct Data {
    source: Source,
    /// How it lies in the output of that layer.
    view: View,
    /// What is still to be done to every channel of the layer.
    affine: Option<Affine>,
    /// Zeros before and behind each dimension, which the next layer adds.
    padding: Option<Vec<[usize; 2]>>,
    /// What follows the network, once it has come.
    end: End,
    /// Whether nobody else reads the layer or anything between it and this.
    alone: bool,
}

/// What a node became, in numbers of layers, whose names are known at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    Layer(usize),
    Part(usize),
    Other(Became),
}

/// The outputs of a node, and what it became.
struct Done {
    values: Vec<Value>,
    role: Role,
}

impl Done {
    fn data(data: Data, role: Role) -> Self {
        Self { values: vec![Value::Data(data)], role }
    }

    fn view(data: Data) -> Self {
        Self::data(data, Role::Other(Became::View))
    }

    fn nothing(data: Data) -> Self {
        Self::data(data, Role::Other(Became::Nothing))
    }

    fn constant(tensor: Tensor) -> Self {
        Self { values: vec![Value::Constant(tensor)], role: Role::Other(Became::Constant) }
    }
}

/// Most weights that are one number throughout, 1 GiB; VGG-19 has 144 million.
const MOST_REPEATED: usize = 1 << 28;

/// A graph on its way to a network.
#[derive(Debug)]
pub(super) struct Lowering<'a> {
    graph: &'a Graph,
    opset: i64,
    /// What an export of ours says of its weights.
    ours: Option<&'a Metadata>,
    batch: usize,
    input: Shape,
    layout: Layout,
    /// By tensor.
    values: Vec<Value>,
    layers: Vec<Layer>,
    /// By node.
    roles: Vec<Role>,
    /// Names of layers, with the highest number that was put behind each.
    names: HashMap<String, usize>,
    /// Layers by the initialiser that their weights are.
    owners: HashMap<Arc<str>, usize>,
    /// Layers that make a vector of an image, by what they read.
    flattened: HashMap<Source, usize>,
    /// Weights that are one number throughout, as in models without their weights.
    repeated: usize,
    /// Readers of a tensor that are still to come, by tensor.
    left: Vec<usize>,
    /// Values that may still be computed or repeated.
    most: usize,
    /// Whether a batch norm is one of training, with the statistics of its batch.
    trains_norms: bool,
}

impl<'a> Lowering<'a> {
    /// Takes over constants and input. `most` values may be copied besides those in the file.
    pub(super) fn new(
        graph: &'a Graph,
        opset: i64,
        ours: Option<&'a Metadata>,
        most: usize,
    ) -> Result<Self, OnnxError> {
        let batch = match graph.input.batch {
            Batch::Fixed(size) => size,
            Batch::Any(_) => 1,
        };
        let (layout, input, view) = input::layout_of(graph, batch)?;
        let mut values = vec![Value::Unknown; graph.names.len()];
        for (&id, tensor) in &graph.constants {
            values[id] = Value::Constant(tensor.clone());
        }
        let alone = graph.readers[graph.input.tensor] == 1;
        values[graph.input.tensor] = Value::Data(Data {
            source: None,
            view,
            affine: None,
            padding: None,
            end: End::Logits,
            alone,
        });
        Ok(Self {
            graph,
            repeated: 0,
            opset,
            ours,
            batch,
            input,
            layout,
            values,
            layers: Vec::new(),
            roles: Vec::with_capacity(graph.nodes.len()),
            names: HashMap::from([("input".to_owned(), 1)]),
            owners: HashMap::new(),
            flattened: HashMap::new(),
            left: graph.readers.clone(),
            most,
            trains_norms: false,
        })
    }

    /// Goes through all nodes.
    pub(super) fn run(&mut self) {
        let graph = self.graph;
        for node in &graph.nodes {
            let done = match node.matters {
                true => self.node(node),
                false => Ok(Done { values: Vec::new(), role: Role::Other(Became::Unused) }),
            };
            let Done { values, role } = done.unwrap_or_else(|stop| {
                let became = match stop {
                    Stop::Missing(reason) => Became::Missing(reason),
                    Stop::Unreached => Became::Unreached,
                };
                Done { values: Vec::new(), role: Role::Other(became) }
            });
            self.roles.push(role);
            self.forget(node);
            for (value, output) in values.into_iter().zip(&node.outputs) {
                if let Some(output) = *output {
                    self.values[output] = self.shared(value, graph.readers[output]);
                }
            }
        }
    }

    /// Drops what nobody reads any more: constants, and lists of factors.
    fn forget(&mut self, node: &Node) {
        for input in node.inputs.iter().copied().flatten().filter(|_| node.matters) {
            self.left[input] -= 1;
            if self.left[input] == 0 {
                self.values[input] = Value::Unknown;
            }
        }
    }

    /// Counts values that are not in the file, so that a few bytes cannot ask for all memory.
    fn take(&mut self, values: usize) -> Result<(), Stop> {
        let left = self.most.checked_sub(values);
        self.most = left.ok_or("it needs far more values than are in the file")?;
        Ok(())
    }

    /// A value that several nodes read takes in what was done to it, so that it is done once.
    fn shared(&mut self, value: Value, readers: usize) -> Value {
        match value {
            Value::Data(data) if readers > 1 => match self.settled(data) {
                Ok(data) => Value::Data(Data { alone: false, ..data }),
                Err(_) => Value::Unknown,
            },
            value => value,
        }
    }

    fn node(&mut self, node: &Node) -> Result<Done, Stop> {
        if let Some(done) = self.quantized(node)? {
            return Ok(done);
        }
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(format!("operators of the domain `{}` are not read", node.domain).into());
        }
        let done = match self.folded(node)? {
            Some(done) => done,
            None => self.layer(node)?,
        };
        // A mask, indices, statistics of the batch.
        let more = node.outputs.iter().enumerate().skip(done.values.len());
        for (index, output) in more {
            if output.is_some_and(|output| self.graph.readers[output] > 0) {
                return Err(format!("its output no. {index} is read").into());
            }
        }
        Ok(done)
    }

    /// A node whose inputs are all known, or that needs no more of them than their shape.
    fn folded(&mut self, node: &Node) -> Result<Option<Done>, Stop> {
        if let [Some(output)] = *node.outputs
            && let Some(constant) = self.graph.constants.get(&output)
        {
            return Ok(Some(Done::constant(constant.clone())));
        }
        if matches!(node.op.as_str(), "Shape" | "Size") {
            return self.shape_of(node).map(|tensor| Some(Done::constant(tensor)));
        }
        // The other input of a cast is there for its type alone.
        let counted = if node.op == "CastLike" { 1 } else { node.inputs.len() };
        let Some(inputs) = known(&self.values, &node.inputs[..counted.min(node.inputs.len())])
        else {
            return Ok(None);
        };
        match fold(node, &inputs, &mut self.most) {
            Ok(Some(tensor)) => Ok(Some(Done::constant(tensor))),
            Ok(None) => Ok(None),
            Err(reason) => Err(format!("it {reason}").into()),
        }
    }

    /// A node of an export of ours that rounds weights.
    fn quantized(&mut self, node: &Node) -> Result<Option<Done>, Stop> {
        let (Some(ours), [Some(output)]) = (self.ours, &*node.outputs) else { return Ok(None) };
        let Some(inputs) = known(&self.values, &node.inputs) else { return Ok(None) };
        let name = &self.graph.names[*output];
        match quantized::fold(node, &inputs, name, ours, &mut self.most) {
            Ok(tensor) => Ok(tensor.map(Done::constant)),
            Err(reason) => Err(format!("it {reason}").into()),
        }
    }

    fn shape_of(&self, node: &Node) -> Result<Tensor, Stop> {
        let sizes = match self.value(node, 0)? {
            Value::Constant(tensor) => tensor.dims.clone(),
            Value::Data(data) => data.sizes(),
            Value::Unknown => return Err(Stop::Unreached),
            Value::Sequence(_) => return Err("it is that of a sequence".into()),
        };
        if node.op == "Size" {
            let size: usize = sizes.iter().product();
            return Ok(Tensor::integers(Vec::new(), vec![size as i64]));
        }
        let rank = sizes.len() as i64;
        let place = |name, default| {
            let place = node.attributes.integer(name, default);
            (if place < 0 { place.saturating_add(rank) } else { place }).clamp(0, rank) as usize
        };
        let (start, end) = (place("start", 0), place("end", rank));
        let sizes: Vec<i64> =
            sizes.get(start..end).unwrap_or_default().iter().map(|&size| size as i64).collect();
        Ok(Tensor::integers(vec![sizes.len()], sizes))
    }

    /// A node that works on what depends on the image.
    fn layer(&mut self, node: &Node) -> Result<Done, Stop> {
        match node.op.as_str() {
            "Conv" => self.conv(node),
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "BatchNormalization" => self.batch_norm(node),
            "LRN" => self.response_norm(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceMax" => self.reduce(node),
            "Add" | "Sum" | "Sub" | "Mul" | "Div" | "Neg" => self.arithmetic(node),
            "Concat" => self.concat(node),
            "Identity" | "Cast" | "CastLike" | "Expand" | "Reshape" | "Flatten" | "Squeeze"
            | "Unsqueeze" | "Transpose" | "Slice" | "Split" | "Pad" => self.view(node),
            "Dropout" => self.dropout(node),
            "Softmax" | "LogSoftmax" => self.softmax(node),
            "Gather" => self.gather(node),
            "SplitToSequence" => self.split_to_sequence(node),
            "SequenceAt" => self.sequence_at(node),
            _ => self.activation(node),
        }
    }

    fn value(&self, node: &Node, index: usize) -> Result<&Value, Stop> {
        let input = node.inputs.get(index).copied().flatten();
        input
            .map(|id| &self.values[id])
            .ok_or_else(|| format!("it lacks its input no. {index}").into())
    }

    /// An input that depends on the image.
    fn data(&self, node: &Node, index: usize) -> Result<Data, Stop> {
        match self.value(node, index)? {
            Value::Data(data) => Ok(data.clone()),
            Value::Unknown => Err(Stop::Unreached),
            Value::Constant(_) => Err(format!("its input no. {index} is a constant").into()),
            Value::Sequence(_) => Err(format!("its input no. {index} is a sequence").into()),
        }
    }

    /// An input that is a constant; `None` if it is left out.
    fn constant(&self, node: &Node, index: usize) -> Result<Option<Tensor>, Stop> {
        let Some(id) = node.inputs.get(index).copied().flatten() else { return Ok(None) };
        match &self.values[id] {
            Value::Constant(tensor) => Ok(Some(tensor.clone())),
            Value::Unknown => Err(Stop::Unreached),
            Value::Data(_) | Value::Sequence(_) => {
                let name = &self.graph.names[id];
                Err(format!("its input `{name}` must be a constant, but depends on the image")
                    .into())
            }
        }
    }

    fn required(&self, node: &Node, index: usize) -> Result<Tensor, Stop> {
        self.constant(node, index)?.ok_or_else(|| format!("it lacks its input no. {index}").into())
    }

    /// The constants among the inputs, for settings that may be inputs.
    fn constants(&self, node: &Node) -> Vec<Option<Tensor>> {
        (0..node.inputs.len()).map(|index| self.constant(node, index).ok().flatten()).collect()
    }

    /// Values of a constant that are weights.
    fn weights(tensor: &Tensor) -> Result<Vec<f32>, Stop> {
        let name = tensor.origin.as_deref().map(|name| format!("tensor `{name}`"));
        let name = name.unwrap_or_else(|| "a constant that it reads".to_owned());
        tensor.weights().map_err(|reason| format!("{name} {reason}").into())
    }
}

/// The constants that a node reads, if it reads nothing else.
fn known<'v>(values: &'v [Value], inputs: &[Option<TensorId>]) -> Option<Vec<Option<&'v Tensor>>> {
    let constant = |input: &Option<TensorId>| match *input {
        None => Some(None),
        Some(id) => match &values[id] {
            Value::Constant(tensor) => Some(Some(tensor)),
            _ => None,
        },
    };
    inputs.iter().map(constant).collect()
}

impl Data {
    /// The output of a layer, as it gives it.
    fn of(layer: usize, view: View) -> Self {
        Self {
            source: Some(layer),
            view,
            affine: None,
            padding: None,
            end: End::Logits,
            alone: true,
        }
    }

    /// Sizes of the dimensions, padding included.
    fn sizes(&self) -> Vec<usize> {
        let mut sizes = self.view.sizes();
        for (size, [before, after]) in sizes.iter_mut().zip(self.padding.iter().flatten()) {
            *size += before + after;
        }
        sizes
    }
}
