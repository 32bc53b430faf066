//! Layers, as they are put behind each other.

use std::sync::Arc;

use releq_core::{Node, Op, ParameterRole, Shape};

use super::{Data, Lowering, Source, Stop, View};
use crate::onnx::{quantized::OnGrid, tensor::Tensor};

/// A layer with its parameters.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) node: Node,
    pub(super) inputs: Vec<Source>,
    pub(super) shape: Shape,
    pub(super) parameters: Vec<(ParameterRole, Values)>,
    /// The layer that does what this one was put there for; this one is left out unless something else reads it.
    pub(super) part_of: Option<usize>,
    /// Whether it stands for `(1 + erf(x / sqrt 2)) / 2`, which has to be multiplied by `x`.
    pub(super) is_gelu_factor: bool,
}

/// Values of a parameter.
#[derive(Clone, Debug)]
pub(super) struct Values {
    pub(super) values: Vec<f32>,
    /// How often the one value is there, until the network is known to be one: a few bytes can ask for a gigabyte.
    pub(super) repeated: Option<usize>,
    /// The initialiser that they are, unchanged.
    pub(super) origin: Option<Arc<str>>,
    /// The grid that they are on, as weights of a quantized layer, unchanged.
    pub(super) grid: Option<Arc<OnGrid>>,
}

impl Values {
    pub(super) fn computed(values: Vec<f32>) -> Self {
        Self { values, repeated: None, origin: None, grid: None }
    }

    /// All values, moved out.
    pub(super) fn take(&mut self) -> Vec<f32> {
        match (self.repeated, self.values.as_slice()) {
            (Some(len), &[value]) => vec![value; len],
            _ => std::mem::take(&mut self.values),
        }
    }
}

impl Layer {
    pub(super) fn parameter(&mut self, role: ParameterRole) -> Option<&mut Values> {
        self.parameters.iter_mut().find(|(other, _)| *other == role).map(|(_, values)| values)
    }
}

impl Lowering<'_> {
    /// Appends a layer, if it takes what it gets.
    pub(super) fn push(
        &mut self,
        name: String,
        op: Op,
        inputs: Vec<Source>,
        parameters: Vec<(ParameterRole, Values)>,
    ) -> Result<usize, Stop> {
        let shapes: Vec<Shape> = inputs.iter().map(|&source| self.shape(source)).collect();
        let node = Node { name, op, inputs: Vec::new() };
        let shape = node.infer(&shapes).map_err(|error| error.to_string())?;
        self.layers.push(Layer {
            node,
            inputs,
            shape,
            parameters,
            part_of: None,
            is_gelu_factor: false,
        });
        Ok(self.layers.len() - 1)
    }

    /// Appends a layer without parameters that no node stands for.
    pub(super) fn insert(&mut self, op: Op, inputs: Vec<Source>) -> Result<usize, Stop> {
        let name = self.free(op.kind().to_owned());
        self.push(name, op, inputs, Vec::new())
    }

    /// Shape of what a source gives.
    pub(super) fn shape(&self, source: Source) -> Shape {
        source.map_or(self.input, |layer| self.layers[layer].shape)
    }

    /// What `layer` gives, in its own order.
    pub(super) fn output(&self, layer: usize) -> Data {
        Data::of(layer, View::of(self.batch, self.layers[layer].shape))
    }

    /// Refuses weights that another layer has as well: they would be trained, and rounded, apart.
    pub(super) fn claim(&mut self, weight: &Tensor) -> Result<(), Stop> {
        let Some(origin) = &weight.origin else { return Ok(()) };
        let next = self.layers.len();
        match self.owners.insert(origin.clone(), next) {
            Some(first) => Err(format!(
                "its weight `{origin}` is also that of layer `{}`; layers with weights in common are not supported (exporters \
                 merge weights that happen to be equal, too, such as all zeros)",
                self.layers.get(first).map_or("another", |layer| layer.node.name.as_str())
            )
            .into()),
            None => Ok(()),
        }
    }
}
