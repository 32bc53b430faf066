//! From layers to a network, its weights and its frame.

use std::collections::BTreeMap;

use releq_core::{Network, Node, Op, Parameter, ParameterRole, Weights, layer_parameters};
use releq_quant::Quantized;

use super::{Batch, Became, Data, End, Layout, Lowering, Role, Stop, Value};
use crate::onnx::{Explained, Explanation, OnnxError};

/// A network as it came out of a graph.
pub(in crate::onnx) struct Finished {
    pub(in crate::onnx) network: Network,
    pub(in crate::onnx) weights: Weights,
    pub(in crate::onnx) codes: BTreeMap<String, Quantized>,
    pub(in crate::onnx) origins: BTreeMap<String, String>,
    pub(in crate::onnx) explanation: Explanation,
    pub(in crate::onnx) layout: Layout,
    pub(in crate::onnx) batch: Batch,
    pub(in crate::onnx) output_rank: usize,
    pub(in crate::onnx) end: End,
    pub(in crate::onnx) trains_norms: bool,
}

impl Lowering<'_> {
    /// The network, unless something is missing.
    pub(in crate::onnx) fn finish(mut self, name: String) -> Result<Finished, OnnxError> {
        let output = self.ends();
        if let (Some(last), Err(Stop::Missing(reason))) = (self.last_node(), &output)
            && !matches!(self.roles[last], Role::Other(Became::Missing(_) | Became::Unreached))
        {
            self.roles[last] = Role::Other(Became::Missing(reason.clone()));
        }
        let used = self.used(output.as_ref().ok().map(|data| data.source).unwrap_or_default());
        self.find_loose(&used);
        let explanation = self.explanation(&used);
        let output = match output {
            Ok(output) if explanation.missing().next().is_none() => output,
            _ => return Err(OnnxError::Missing { explanation: Box::new(explanation) }),
        };

        let kept: Vec<usize> = (0..self.layers.len()).filter(|&layer| used[layer]).collect();
        let mut nodes = Vec::with_capacity(kept.len());
        let mut previous = None;
        for &index in &kept {
            let layer = &self.layers[index];
            let inputs = match layer.inputs.as_slice() {
                // The layer before is read without being named.
                inputs if inputs == [previous] => Vec::new(),
                inputs => inputs.iter().map(|&source| self.source_name(source)).collect(),
            };
            nodes.push(Node { inputs, ..layer.node.clone() });
            previous = Some(index);
        }
        let releq_core::Shape::Image { channels, height, width } = self.input else {
            return Err(OnnxError::Graph { reason: "the input is no image".to_owned() });
        };
        let network = Network::new(name, [channels, height, width], nodes)?;
        let network = network.with_softmax(output.end == End::Softmax);
        let codes = self.codes(&network, &kept)?;
        let (weights, origins) = self.parameters(&network, &kept)?;
        Ok(Finished {
            network,
            weights,
            codes,
            origins,
            explanation,
            layout: self.layout,
            batch: self.graph.input.batch.clone(),
            output_rank: output.view.rank(),
            end: output.end,
            trains_norms: self.trains_norms,
        })
    }

    fn last_node(&self) -> Option<usize> {
        let computes = |node: &super::Node| node.outputs.contains(&Some(self.graph.output));
        self.graph.nodes.iter().position(computes)
    }

    /// What the network gives: a vector of classes, the last layer.
    fn ends(&mut self) -> Result<Data, Stop> {
        let data = match &self.values[self.graph.output] {
            Value::Data(data) => data.clone(),
            Value::Unknown => return Err(Stop::Unreached),
            Value::Sequence(_) => return Err("the output is a sequence".into()),
            Value::Constant(_) => return Err("the output does not depend on the image".into()),
        };
        let (end, view) = (data.end, data.view.clone());
        let (source, places) = self.vector(Data { end: End::Logits, ..data })?;
        if places.is_some() {
            return Err("the output has its values in an order that no layer makes".into());
        }
        if source.is_none() {
            return Err("there is no layer between input and output".into());
        }
        Ok(Data { source, view, affine: None, padding: None, end, alone: true })
    }

    /// Which layers the output depends on.
    fn used(&self, output: super::Source) -> Vec<bool> {
        let mut used = vec![false; self.layers.len()];
        if let Some(output) = output {
            used[output] = true;
        }
        for index in (0..self.layers.len()).rev() {
            if used[index] {
                self.layers[index].inputs.iter().flatten().for_each(|&input| used[input] = true);
            }
        }
        used
    }

    /// A factor of a GELU that was never multiplied is a function for which there is no layer.
    fn find_loose(&mut self, used: &[bool]) {
        for layer in (0..self.layers.len()).filter(|&layer| used[layer]) {
            if !self.layers[layer].is_gelu_factor {
                continue;
            }
            for role in &mut self.roles {
                if *role == Role::Part(layer) {
                    let reason = "it is no part of a GELU, and there is no layer for it alone";
                    *role = Role::Other(Became::Missing(reason.to_owned()));
                }
            }
        }
    }

    fn explanation(&self, used: &[bool]) -> Explanation {
        let became = |role: &Role| {
            let (mut layer, mut is_part) = match role {
                Role::Other(became) => return became.clone(),
                Role::Layer(layer) => (*layer, false),
                Role::Part(layer) => (*layer, true),
            };
            while !used[layer]
                && let Some(whole) = self.layers[layer].part_of
            {
                (layer, is_part) = (whole, true);
            }
            let name = self.layers[layer].node.name.clone();
            match is_part {
                true => Became::Part(name),
                false => Became::Layer(name),
            }
        };
        let nodes = self.graph.nodes.iter().zip(&self.roles);
        let nodes = nodes.map(|(node, role)| Explained {
            node: node.label.clone(),
            op: node.op.clone(),
            became: became(role),
        });
        Explanation { nodes: nodes.collect() }
    }

    fn source_name(&self, source: super::Source) -> String {
        source.map_or_else(|| "input".to_owned(), |layer| self.layers[layer].node.name.clone())
    }

    /// The codes of quantized layers, which must be all those that the metadata has.
    fn codes(
        &mut self,
        network: &Network,
        kept: &[usize],
    ) -> Result<BTreeMap<String, Quantized>, OnnxError> {
        let Some(ours) = self.ours else { return Ok(BTreeMap::new()) };
        let mut codes = BTreeMap::new();
        for (node, &layer) in network.nodes().iter().zip(kept) {
            let Some(weight) = self.layers[layer].parameter(ParameterRole::Weight) else {
                continue;
            };
            if let Some(grid) = weight.grid.clone() {
                let found = grid.codes(&weight.values).map_err(|reason| OnnxError::Graph {
                    reason: format!("layer `{}`: {reason}", node.name),
                })?;
                codes.insert(node.name.clone(), found);
            }
        }
        let (named, found) = (ours.weights.len(), codes.len());
        if named != found {
            let reason =
                format!("its metadata has {named} quantized layers, but there are {found}");
            return Err(OnnxError::Graph { reason });
        }
        Ok(codes)
    }

    /// Moves the parameters of the layers that are kept into weights by name.
    fn parameters(
        &mut self,
        network: &Network,
        kept: &[usize],
    ) -> Result<(Weights, BTreeMap<String, String>), OnnxError> {
        let (mut weights, mut origins) = (Weights::default(), BTreeMap::new());
        for (index, &layer) in kept.iter().enumerate() {
            for (role, shape) in layer_parameters(network, index) {
                let layer = &mut self.layers[layer];
                let name = role.name(&layer.node.name);
                let Some(values) = layer.parameter(role) else { continue };
                let (values, origin) = (values.take(), values.origin.take());
                // Finite constants may make others that are not, by a factor or a sum.
                if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                    let reason = format!("`{name}` comes to {value} by the constants of the model");
                    return Err(OnnxError::Graph { reason });
                }
                origins.extend(origin.map(|origin| (name.clone(), origin.to_string())));
                weights.0.insert(name, Parameter { shape, values });
            }
        }
        Ok((weights, origins))
    }
}

/// Whether exporters have made batch norms part of the convolutions, as they do unless they are told not to.
pub(in crate::onnx) fn has_folded_norms(network: &Network) -> bool {
    let ops = || network.nodes().iter().map(|node| node.op);
    let has_norm = ops().any(|op| matches!(op, Op::BatchNorm { .. } | Op::ScaleShift));
    !has_norm && ops().any(|op| matches!(op, Op::Conv2d(conv) if conv.bias))
}
