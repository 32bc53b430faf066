//! Fully connected layers.

use releq_core::{Op, ParameterRole};

use super::{Data, Done, Lowering, Node, Role, Stop, View, layers::Values};
use crate::onnx::tensor::Tensor;

impl Lowering<'_> {
    /// `alpha * A * B + beta * C`, of which `A` is a vector and `B` the weight.
    pub(super) fn gemm(&mut self, node: &Node) -> Result<Done, Stop> {
        let mut data = self.data(node, 0)?;
        let weight = self.required(node, 1)?;
        if node.attributes.integer("transA", 0) != 0 {
            if data.view.rank() != 2 {
                return Err("it transposes what is no matrix".into());
            }
            data.view = data.view.transposed(&[1, 0]);
        }
        let is_outputs_first = node.attributes.integer("transB", 0) != 0;
        let (alpha, beta) =
            (node.attributes.float("alpha", 1.0), node.attributes.float("beta", 1.0));
        let outputs = match *weight.dims {
            [outputs, _] if is_outputs_first => outputs,
            [_, outputs] => outputs,
            _ => return Err(format!("its weight has shape {:?}", weight.dims).into()),
        };
        let bias = self.bias(node, 2, outputs)?;
        let bias = bias.map(|bias| scaled(bias, beta));
        self.linear(node, data, &weight, is_outputs_first, alpha, bias)
    }

    /// A vector times a weight.
    pub(super) fn matmul(&mut self, node: &Node) -> Result<Done, Stop> {
        if let (super::Value::Data(_), super::Value::Data(_)) =
            (self.value(node, 0)?, self.value(node, 1)?)
        {
            return Err(
                "it multiplies two matrices that depend on the image, as attention does".into()
            );
        }
        let data = self.data(node, 0)?;
        let weight = self.required(node, 1)?;
        self.linear(node, data, &weight, false, 1.0, None)
    }

    fn linear(
        &mut self,
        node: &Node,
        data: Data,
        weight: &Tensor,
        is_outputs_first: bool,
        alpha: f32,
        bias: Option<Values>,
    ) -> Result<Done, Stop> {
        let [rows, columns] = *weight.dims else {
            return Err(
                format!("its weight has shape {:?}, which is no matrix", weight.dims).into()
            );
        };
        let (outputs, inputs) = if is_outputs_first { (rows, columns) } else { (columns, rows) };
        let mut sizes = data.sizes();
        if sizes.last() != Some(&inputs) || outputs == 0 {
            return Err(format!(
                "its weight has shape {:?} for an input of {sizes:?}",
                weight.dims
            )
            .into());
        }
        let (source, places) = self.vector(data)?;
        let mut weights = self.weight(weight)?;
        let is_as_it_is = is_outputs_first && places.is_none() && alpha == 1.0;
        if weights.repeated.is_some() {
            // One number is in any order.
            weights.values.iter_mut().for_each(|value| *value *= alpha);
        } else if !is_as_it_is {
            // Row by row in the order of the layer's outputs, each in the order of the values before.
            let [by_output, by_input] = if is_outputs_first { [inputs, 1] } else { [1, outputs] };
            let mut ordered = vec![0.0; weights.values.len()];
            for (output, row) in ordered.chunks_exact_mut(inputs).enumerate() {
                for input in 0..inputs {
                    let place = places.as_ref().map_or(input, |places| places[input]);
                    row[place] = alpha * weights.values[output * by_output + input * by_input];
                }
            }
            weights.values = ordered;
        }
        let op = Op::Linear { out_features: outputs, bias: bias.is_some() };
        let mut parameters = vec![(ParameterRole::Weight, weights)];
        parameters.extend(bias.map(|bias| (ParameterRole::Bias, bias)));
        let name = self.name(node, weight.origin.as_deref());
        let layer = self.push(name, op, vec![source], parameters)?;
        if let Some(last) = sizes.last_mut() {
            *last = outputs;
        }
        let view = View::of(self.batch, self.layers[layer].shape);
        let view = view.reshaped(&sizes).ok_or("its output is no vector")?;
        Ok(Done::data(Data::of(layer, view), Role::Layer(layer)))
    }
}

fn scaled(bias: Values, by: f32) -> Values {
    if by == 1.0 {
        return bias;
    }
    Values::computed(bias.values.iter().map(|value| value * by).collect())
}
