//! The graph as a list of nodes in order, with numbers for the names of tensors.

use std::{collections::HashMap, sync::Arc};

use super::{Batch, OnnxError, ReadExternal, attributes::Attributes, proto, tensor::Tensor};

/// Number of a tensor.
pub(super) type TensorId = usize;

/// A checked graph: one input, one output, and every tensor computed before it is read.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) input: Input,
    pub(super) output: TensorId,
    /// Name of every tensor.
    pub(super) names: Vec<String>,
    pub(super) constants: HashMap<TensorId, Tensor>,
    /// How often the nodes that matter, and the output, read a tensor.
    pub(super) readers: Vec<usize>,
}

/// The input of the graph.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) tensor: TensorId,
    pub(super) batch: Batch,
    /// Sizes behind the batch.
    pub(super) sizes: Vec<usize>,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Node {
    /// Its name; operation and position for one without.
    pub(super) label: String,
    pub(super) op: String,
    pub(super) domain: String,
    /// What it reads; `None` for an input that is left out.
    pub(super) inputs: Vec<Option<TensorId>>,
    pub(super) outputs: Vec<Option<TensorId>>,
    pub(super) attributes: Attributes,
    /// Whether the output of the graph depends on it.
    pub(super) matters: bool,
}

/// Longest name of a node that is shown, and of an operation.
const LONGEST: usize = 200;

/// A name as one line of limited length.
fn shown(name: &str) -> String {
    let kept = name.chars().take(LONGEST);
    let mut shown: String = kept.map(|c| if c.is_control() { '?' } else { c }).collect();
    if name.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

fn graph_error(reason: impl Into<String>) -> OnnxError {
    OnnxError::Graph { reason: reason.into() }
}

/// Names in a list of an error.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.take(8).collect();
    names.join("`, `")
}

impl Graph {
    pub(super) fn new(
        graph: proto::Graph,
        external: &mut ReadExternal<'_>,
    ) -> Result<Self, OnnxError> {
        let proto::Graph { node: nodes, initializer: initializers, input, output, .. } = graph;
        if nodes.is_empty() {
            return Err(OnnxError::Format { reason: "its graph has no node".to_owned() });
        }
        let mut tensors = Tensors::default();
        for tensor in &initializers {
            let id = tensors.id(&tensor.name);
            if std::mem::replace(&mut tensors.known[id], Known::Constant) != Known::No {
                return Err(graph_error(format!("tensor `{}` is there twice", tensor.name)));
            }
        }
        let input = tensors.input(&input)?;
        let nodes = tensors.nodes(nodes)?;
        let output = tensors.output(&output)?;

        let mut graph = Self {
            nodes,
            input,
            output,
            readers: vec![0; tensors.names.len()],
            names: tensors.names,
            constants: HashMap::new(),
        };
        graph.mark();
        for tensor in initializers {
            let Some(&id) = tensors.ids.get(&tensor.name) else { continue };
            graph.read(id, tensor, external)?;
        }
        // Some exporters have every weight in a node of its own.
        for index in 0..graph.nodes.len() {
            let node = &mut graph.nodes[index];
            if node.op == "Constant"
                && let [Some(output)] = *node.outputs
                && let Some(mut tensor) = node.attributes.take_tensor("value")
            {
                tensor.name.clone_from(&graph.names[output]);
                graph.read(output, tensor, external)?;
            }
        }
        Ok(graph)
    }

    /// Finds out which nodes the output depends on, and how often tensors are read.
    fn mark(&mut self) {
        self.readers[self.output] = 1;
        for node in self.nodes.iter_mut().rev() {
            node.matters = node.outputs.iter().flatten().any(|&output| self.readers[output] > 0);
            if node.matters {
                node.inputs.iter().flatten().for_each(|&input| self.readers[input] += 1);
            }
        }
    }

    /// Keeps an initialiser that something depends on.
    fn read(
        &mut self,
        id: TensorId,
        tensor: proto::Tensor,
        external: &mut ReadExternal<'_>,
    ) -> Result<(), OnnxError> {
        if self.readers[id] == 0 {
            return Ok(());
        }
        let origin: Arc<str> = tensor.name.as_str().into();
        let tensor = Tensor::from_proto(tensor, external).map_err(|reason| OnnxError::Tensor {
            node: self.reader(id).unwrap_or_default(),
            tensor: origin.to_string(),
            reason,
        })?;
        self.constants.insert(id, tensor.named(Some(origin)));
        Ok(())
    }

    /// The first node that reads a tensor.
    fn reader(&self, id: TensorId) -> Option<String> {
        let mut nodes = self.nodes.iter();
        nodes.find(|node| node.inputs.contains(&Some(id))).map(|node| node.label.clone())
    }
}

/// How a tensor comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    No,
    Constant,
    Input,
    /// By a node that has been passed.
    Computed,
}

/// Tensors by name, while the graph is read.
#[derive(Default)]
struct Tensors {
    ids: HashMap<String, TensorId>,
    names: Vec<String>,
    known: Vec<Known>,
}

impl Tensors {
    fn id(&mut self, name: &str) -> TensorId {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.names.len();
        self.ids.insert(name.to_owned(), id);
        self.names.push(name.to_owned());
        self.known.push(Known::No);
        id
    }

    /// The one input that is no initialiser: old files list those as inputs, too.
    fn input(&mut self, inputs: &[proto::ValueInfo]) -> Result<Input, OnnxError> {
        let is_free = |info: &&proto::ValueInfo| !self.ids.contains_key(&info.name);
        let free: Vec<&proto::ValueInfo> = inputs.iter().filter(is_free).collect();
        let [info] = free.as_slice() else {
            return Err(graph_error(match free.len() {
                0 => "the model has no input".to_owned(),
                count => format!(
                    "the model has {count} inputs, `{}`; networks of one image are read",
                    listed(free.iter().map(|info| info.name.as_str()))
                ),
            }));
        };
        let (batch, sizes) = shape_of(info)?;
        let tensor = self.id(&info.name);
        self.known[tensor] = Known::Input;
        Ok(Input { tensor, batch, sizes })
    }

    fn nodes(&mut self, nodes: Vec<proto::Node>) -> Result<Vec<Node>, OnnxError> {
        // Who computes what, to tell a node out of order from a weight that is missing.
        let mut computed_by: HashMap<String, String> = HashMap::new();
        let label = |index: usize, node: &proto::Node| match node.name.is_empty() {
            true => format!("{} no. {index}", node.op_type),
            false => shown(&node.name),
        };
        for (index, node) in nodes.iter().enumerate() {
            let op = &node.op_type;
            if op.len() > LONGEST || op.contains(|c: char| c.is_control() || c.is_whitespace()) {
                return Err(OnnxError::Format {
                    reason: format!("the operation of its node no. {index} is no word"),
                });
            }
            let outputs = node.output.iter().filter(|output| !output.is_empty());
            computed_by.extend(outputs.map(|output| (output.clone(), label(index, node))));
        }
        let mut checked = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            let label = label(index, &node);
            let error = |reason: String| OnnxError::Node {
                node: label.clone(),
                op: node.op_type.clone(),
                reason,
            };
            let mut inputs = Vec::with_capacity(node.input.len());
            for name in &node.input {
                if name.is_empty() {
                    inputs.push(None);
                    continue;
                }
                let id = self.ids.get(name).copied().filter(|&id| self.known[id] != Known::No);
                inputs.push(Some(id.ok_or_else(|| {
                    error(match computed_by.get(name) {
                        Some(later) => format!(
                            "it reads `{name}`, which only `{later}` computes: the nodes are not in order, or go \
                             round in a circle"
                        ),
                        None => format!("it reads `{name}`, which is not in the model"),
                    })
                })?));
            }
            let mut outputs = Vec::with_capacity(node.output.len());
            for name in &node.output {
                if name.is_empty() {
                    outputs.push(None);
                    continue;
                }
                let id = self.id(name);
                if std::mem::replace(&mut self.known[id], Known::Computed) != Known::No {
                    return Err(error(format!("it computes `{name}`, which is there already")));
                }
                outputs.push(Some(id));
            }
            checked.push(Node {
                label,
                op: node.op_type,
                domain: node.domain,
                inputs,
                outputs,
                attributes: Attributes::new(node.attribute),
                matters: false,
            });
        }
        Ok(checked)
    }

    fn output(&self, outputs: &[proto::ValueInfo]) -> Result<TensorId, OnnxError> {
        let [output] = outputs else {
            return Err(graph_error(match outputs.len() {
                0 => "the model has no output".to_owned(),
                count => format!(
                    "the model has {count} outputs, `{}`; classifiers with one are read",
                    listed(outputs.iter().map(|info| info.name.as_str()))
                ),
            }));
        };
        let known = self.ids.get(&output.name).filter(|&&id| self.known[id] == Known::Computed);
        known.copied().ok_or_else(|| {
            graph_error(format!("no node computes the output `{}` of the model", output.name))
        })
    }
}

/// Batch and sizes of the input.
fn shape_of(info: &proto::ValueInfo) -> Result<(Batch, Vec<usize>), OnnxError> {
    let name = &info.name;
    let tensor = info.r#type.as_ref().and_then(|info| info.tensor_type.as_ref());
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    let Some([batch, sides @ ..]) = shape.map(|shape| shape.dim.as_slice()) else {
        let reason = format!("input `{name}` has no shape; export with the size of an image");
        return Err(graph_error(reason));
    };
    // float32, float16, float64 and bfloat16.
    if let Some(element) = tensor.map(|tensor| tensor.elem_type)
        && !matches!(element, 1 | 10 | 11 | 16)
    {
        return Err(graph_error(format!(
            "input `{name}` is not of floating-point numbers; cut off what comes before the network"
        )));
    }
    let batch = match (batch.dim_value, &batch.dim_param) {
        (Some(size), _) => match usize::try_from(size) {
            // 0 and -1 are how some exporters write a batch of any size.
            Ok(0) | Err(_) => Batch::Any(None),
            Ok(size) => Batch::Fixed(size),
        },
        (None, symbol) => Batch::Any(symbol.clone().filter(|symbol| !symbol.is_empty())),
    };
    let sizes = sides.iter().enumerate().map(|(axis, side)| {
        let size = side.dim_value.and_then(|size| usize::try_from(size).ok());
        size.filter(|&size| size > 0).ok_or_else(|| {
            let side = match (&side.dim_param, side.dim_value) {
                (Some(symbol), _) => format!("`{symbol}`"),
                (None, Some(size)) => size.to_string(),
                (None, None) => "unknown".to_owned(),
            };
            graph_error(format!(
                "dimension {} of input `{name}` is {side}; export with the size of an image, since the layers' \
                 costs depend on it",
                axis + 1
            ))
        })
    });
    Ok((batch, sizes.collect::<Result<_, _>>()?))
}
