//! Normalizations.

use releq_core::{Op, ParameterRole};

use super::{Data, Done, Lowering, Node, Role, Stop, layers::Values, source::ordered};

impl Lowering<'_> {
    pub(super) fn batch_norm(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        let data = self.plain(data)?;
        let (data, places) = self.by_channel(data)?;
        let channels = self.shape(data.source).channels();
        if data.view.sizes().get(1) != Some(&channels) {
            let sizes = data.view.sizes();
            return Err(format!("dimension 1 of its input, {sizes:?}, is not the channels").into());
        }
        let mut parameters = Vec::with_capacity(4);
        let mut module = None;
        for (index, role) in [
            ParameterRole::Weight,
            ParameterRole::Bias,
            ParameterRole::RunningMean,
            ParameterRole::RunningVar,
        ]
        .into_iter()
        .enumerate()
        {
            let tensor = self.required(node, index + 1)?;
            if tensor.dims != [channels] {
                let dims = &tensor.dims;
                return Err(
                    format!("its {role:?} has shape {dims:?} for {channels} channels").into()
                );
            }
            // The same few constants may be those of many norms.
            self.take(channels)?;
            let values = ordered(Self::weights(&tensor)?, places.as_deref());
            if role == ParameterRole::RunningVar && values.iter().any(|&value| value < 0.0) {
                return Err("it has a negative variance".into());
            }
            module = module.or(tensor.origin.clone());
            let origin = tensor.origin;
            parameters.push((role, Values { values, repeated: None, origin, grid: None }));
        }
        self.trains_norms |= node.attributes.integer("training_mode", 0) != 0;
        let epsilon = as_written(node.attributes.float("epsilon", 1e-5));
        // ONNX weighs the old statistics, PyTorch and we the new ones.
        let momentum = 1.0 - as_written(node.attributes.float("momentum", 0.9));
        let op = Op::BatchNorm { epsilon, momentum: (momentum * 1e7).round() / 1e7 };
        let name = self.name(node, module.as_deref());
        let layer = self.push(name, op, vec![data.source], parameters)?;
        Ok(Done::data(Data::of(layer, data.view), Role::Layer(layer)))
    }

    pub(super) fn response_norm(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        let data = self.canonical(data)?;
        let size = usize::try_from(node.attributes.integer("size", 0));
        let op = Op::LocalResponseNorm {
            size: size.map_err(|_| "its size is negative")?,
            alpha: node.attributes.float("alpha", 1e-4),
            beta: node.attributes.float("beta", 0.75),
            bias: node.attributes.float("bias", 1.0),
        };
        let name = self.name(node, None);
        let layer = self.push(name, op, vec![data.source], Vec::new())?;
        Ok(Done::data(Data::of(layer, data.view), Role::Layer(layer)))
    }
}

/// A number that came through single precision, as it was written before: with the fewest digits that tell it from others.
fn as_written(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| number.into())
}
