//! Sums and products: of two tensors, or by constants.

use releq_core::{Activation, Op, Shape};

use super::{
    Became, Data, Done, End, Lowering, Node, Role, Source, Stop, Value,
    activation::is_near,
    affine::Affine,
    source::{is_steps, ordered},
};
use crate::onnx::{
    forms::{axis_of, broadcast},
    tensor::Tensor,
};

impl Lowering<'_> {
    pub(super) fn arithmetic(&mut self, node: &Node) -> Result<Done, Stop> {
        let values = (0..node.inputs.len()).map(|index| self.value(node, index).cloned());
        let values = values.collect::<Result<Vec<_>, _>>()?;
        if values.iter().any(|value| matches!(value, Value::Unknown)) {
            return Err(Stop::Unreached);
        }
        match (node.op.as_str(), values.as_slice()) {
            ("Sum", [Value::Data(data)]) => Ok(Done::nothing(data.clone())),
            ("Neg", [Value::Data(data)]) => self.by_constants(data.clone(), vec![-1.0], vec![0.0]),
            ("Add" | "Sum", [Value::Data(data), Value::Constant(constant)])
            | ("Add" | "Sum", [Value::Constant(constant), Value::Data(data)]) => {
                let (data, shift) = self.per_channel(data.clone(), constant)?;
                self.by_constants(data, vec![1.0], shift)
            }
            ("Sub", [Value::Data(data), Value::Constant(constant)]) => {
                let (data, shift) = self.per_channel(data.clone(), constant)?;
                self.by_constants(data, vec![1.0], shift.iter().map(|value| -value).collect())
            }
            ("Sub", [Value::Constant(constant), Value::Data(data)]) => {
                let (data, shift) = self.per_channel(data.clone(), constant)?;
                self.by_constants(data, vec![-1.0], shift)
            }
            ("Mul", [Value::Data(data), Value::Constant(constant)])
            | ("Mul", [Value::Constant(constant), Value::Data(data)]) => {
                let (data, scale) = self.per_channel(data.clone(), constant)?;
                self.by_constants(data, scale, vec![0.0])
            }
            ("Div", [Value::Data(data), Value::Constant(constant)]) => {
                let (data, scale) = self.per_channel(data.clone(), constant)?;
                if scale.contains(&0.0) {
                    return Err("it divides by zero".into());
                }
                self.by_constants(
                    data,
                    scale.iter().map(|value| value.recip()).collect(),
                    vec![0.0],
                )
            }
            ("Add" | "Sum", [Value::Data(_), Value::Data(_), ..]) => {
                let data = values.into_iter().map(|value| match value {
                    Value::Data(data) => Ok(data),
                    _ => Err(Stop::from("it adds constants to several tensors at once")),
                });
                let data = data.collect::<Result<Vec<_>, _>>()?;
                self.sum(node, data)
            }
            ("Mul", [Value::Data(a), Value::Data(b)]) => self.product(node, a.clone(), b.clone()),
            (op, _) => Err(format!("there is no layer for a {op} of such inputs").into()),
        }
    }

    /// Notes what is to be done to every channel of `data`.
    fn by_constants(&self, data: Data, scale: Vec<f32>, shift: Vec<f32>) -> Result<Done, Stop> {
        if data.padding.is_some() || data.end != End::Logits {
            return Err(
                "it comes between zeros around an image, or a softmax, and what reads them".into(),
            );
        }
        let affine = Affine::new(scale, shift, vec![self.roles.len()]);
        Ok(Done::data(data.then(affine), Role::Other(Became::Nothing)))
    }

    /// The values of a constant for the channels of the layer that `data` comes from, or one number for all; with
    /// `data` as it has to be seen for that.
    fn per_channel(&mut self, data: Data, constant: &Tensor) -> Result<(Data, Vec<f32>), Stop> {
        let sizes = data.sizes();
        if broadcast(&sizes, &constant.dims)? != sizes {
            return Err(
                format!("its constant of shape {:?} repeats its input", constant.dims).into()
            );
        }
        if let Some(value) = constant.uniform() {
            return match value.is_finite() {
                true => Ok((data, vec![value])),
                false => Err(format!("its constant is {value}").into()),
            };
        }
        let mut values = Self::weights(constant)?;
        if values.iter().all(|value| *value == values[0]) {
            values.truncate(1);
            return Ok((data, values));
        }
        let first = sizes.len() - constant.dims.len();
        let mut wide = constant.dims.iter().enumerate().filter(|(_, size)| **size != 1);
        let (Some((axis, _)), None) = (wide.next(), wide.next()) else {
            let dims = &constant.dims;
            return Err(
                format!("its constant of shape {dims:?} differs from pixel to pixel").into()
            );
        };
        let axis = axis + first;
        let is_of_channels = |lowering: &Self, data: &Data| {
            let (channels, plane) = lowering.channels(data);
            data.view.offset == 0 && is_steps(data.view.dim(axis), channels, plane)
        };
        if is_of_channels(self, &data) {
            return Ok((data, values));
        }
        let (data, places) = self.by_channel(data)?;
        match places.is_some() && axis == 1 || is_of_channels(self, &data) {
            true => Ok((data, ordered(values, places.as_deref()))),
            false => {
                Err(format!("its constant is along dimension {axis}, which is not the channels")
                    .into())
            }
        }
    }

    /// The same values of two layers: as they are if the model sees them in the same order, else each in its own.
    fn aligned(&mut self, data: Vec<Data>) -> Result<Vec<Data>, Stop> {
        let data = data.into_iter().map(|data| self.plain(data)).collect::<Result<Vec<_>, _>>()?;
        let is_alike = |other: &Data| {
            other.view == data[0].view && self.shape(other.source) == self.shape(data[0].source)
        };
        if data.iter().all(is_alike) {
            return Ok(data);
        }
        data.into_iter().map(|data| self.canonical(data)).collect()
    }

    fn sum(&mut self, node: &Node, data: Vec<Data>) -> Result<Done, Stop> {
        let sizes = data[0].sizes();
        if let Some(other) = data.iter().find(|other| other.sizes() != sizes) {
            let other = other.sizes();
            return Err(
                format!("it adds shapes {sizes:?} and {other:?}; layers add equal ones").into()
            );
        }
        let data = self.aligned(data)?;
        let name = self.name(node, None);
        let inputs = data.iter().map(|data| data.source).collect();
        let layer = self.push(name, Op::Add, inputs, Vec::new())?;
        Ok(Done::data(Data::of(layer, data[0].view.clone()), Role::Layer(layer)))
    }

    fn product(&mut self, node: &Node, a: Data, b: Data) -> Result<Done, Stop> {
        // Factors in front of either become one behind.
        let mut factor = 1.0;
        let mut nodes = Vec::new();
        let [a, b] = [a, b].map(|data| match data.affine.as_ref().and_then(Affine::uniform) {
            Some((scale, 0.0)) => {
                factor *= scale;
                nodes.extend(data.affine.iter().flat_map(|affine| affine.nodes()).copied());
                Data { affine: None, ..data }
            }
            _ => data,
        });
        let (a, b) = (self.plain(a)?, self.plain(b)?);
        let gated = self.gated(&a, &b).or_else(|| self.gated(&b, &a));
        let (data, role) = match gated {
            Some((source, gate, op)) => {
                let name = self.name(node, None);
                let layer = self.push(name, op, vec![source], Vec::new())?;
                self.layers[gate].part_of = Some(layer);
                (Data::of(layer, a.view), Role::Layer(layer))
            }
            None => {
                let (a, b) = self.factors(a, b)?;
                let name = self.name(node, None);
                let layer = self.push(name, Op::Mul, vec![a.source, b.source], Vec::new())?;
                (Data::of(layer, a.view), Role::Layer(layer))
            }
        };
        let data = data.then(Affine::new(vec![factor], vec![0.0], nodes));
        Ok(Done::data(data, role))
    }

    /// `x` times a function of `x`, where that is a function of its own: its input, the layer of the other function, and
    /// what they are together.
    fn gated(&self, x: &Data, gate: &Data) -> Option<(Source, usize, Op)> {
        let layer = gate.source?;
        let Op::Activation(function) = self.layers[layer].node.op else { return None };
        if self.layers[layer].inputs != [x.source] || gate.view != x.view {
            return None;
        }
        let whole = match function {
            Activation::Sigmoid => Activation::Silu,
            Activation::HardSigmoid { alpha, beta }
                if is_near(alpha, 1.0 / 6.0) && is_near(beta, 0.5) =>
            {
                Activation::HardSwish
            }
            Activation::Gelu if self.layers[layer].is_gelu_factor => Activation::Gelu,
            _ => return None,
        };
        Some((x.source, layer, Op::Activation(whole)))
    }

    /// Two factors as a layer takes them: of one shape, or an image and a vector with one for each channel.
    fn factors(&mut self, a: Data, b: Data) -> Result<(Data, Data), Stop> {
        let (left, right) = (a.sizes(), b.sizes());
        if left == right {
            let pair = <[Data; 2]>::try_from(self.aligned(vec![a, b])?);
            let [a, b] = pair.map_err(|_| "it has other than two factors")?;
            return Ok((a, b));
        }
        if broadcast(&left, &right)? != left {
            return match broadcast(&left, &right)? == right {
                true => self.factors(b, a),
                false => Err("it multiplies shapes that repeat each other".into()),
            };
        }
        let no_gate =
            "it multiplies shapes that are not equal, nor an image and a factor for each channel";
        let Shape::Image { channels, height, width } = self.shape(a.source) else {
            return Err(no_gate.into());
        };
        let first = left.len() - right.len();
        let mut wide = (0..right.len()).filter(|&axis| right[axis] != 1 && !b.view.is_batch(axis));
        let axis = match (wide.next(), wide.next()) {
            (Some(axis), None) => Some(axis + first),
            (None, None) if channels == 1 => None,
            _ => return Err(no_gate.into()),
        };
        let along = axis.is_none_or(|axis| is_steps(a.view.dim(axis), channels, height * width));
        if !along || a.view.offset != 0 {
            return Err(no_gate.into());
        }
        match self.vector(b.clone())? {
            (source, None) if self.shape(source).len() == channels => Ok((a, Data { source, ..b })),
            _ => Err(no_gate.into()),
        }
    }

    /// Tensors behind each other along the channels, or along the features of a vector.
    pub(super) fn concat(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = (0..node.inputs.len()).map(|index| self.data(node, index));
        let data = data.collect::<Result<Vec<_>, _>>()?;
        if let Some(whole) = self.joined(node, &data)? {
            return Ok(Done::view(whole));
        }
        let data = data.into_iter().map(|data| self.plain(data)).collect::<Result<Vec<_>, _>>()?;
        let first = data.first().ok_or("it joins nothing")?;
        let rank = first.view.rank();
        let axis = axis_of(node.attributes.integer("axis", 1), rank)?;
        if data.len() == 1 {
            return Ok(Done::nothing(first.clone()));
        }
        // The order in which the model sees the dimensions of an image, if it sees them so in all tensors.
        let order = [[0, 1, 2, 3], [0, 2, 3, 1]].into_iter().find(|order| {
            rank == 4
                && order[axis] == 1
                && data.iter().all(|data| {
                    matches!(self.shape(data.source), Shape::Image { .. })
                        && data.view == self.ordered(data.source, order)
                })
        });
        let (sources, order): (Vec<Source>, _) = match order {
            Some(order) => (data.iter().map(|data| data.source).collect(), order),
            None if rank == 4 && axis == 1 => {
                let read = |data| self.image(data).map(|read| read.source);
                (data.into_iter().map(read).collect::<Result<_, _>>()?, [0, 1, 2, 3])
            }
            None if rank == 2 && axis == 1 => {
                let mut sources = Vec::with_capacity(data.len());
                for data in data {
                    match self.vector(data)? {
                        (source, None) => sources.push(source),
                        _ => {
                            return Err("it joins vectors whose values are in another order".into());
                        }
                    }
                }
                (sources, [0, 1, 2, 3])
            }
            None => {
                return Err(
                    format!("it joins along dimension {axis}, not along the channels").into()
                );
            }
        };
        let name = self.name(node, None);
        let layer = self.push(name, Op::Concat, sources, Vec::new())?;
        let view = match (rank, self.layers[layer].shape) {
            (4, Shape::Image { .. }) => self.ordered(Some(layer), &order),
            (4, Shape::Vector { features }) => {
                let view = self.output(layer).view;
                view.reshaped(&[self.batch, features, 1, 1]).ok_or("it joins no pixels")?
            }
            _ => self.output(layer).view,
        };
        Ok(Done::data(Data::of(layer, view), Role::Layer(layer)))
    }

    /// All channels of one image, taken apart and put together again, as pixels are normalized in PyTorch's Inception.
    fn joined(&self, node: &Node, data: &[Data]) -> Result<Option<Data>, Stop> {
        let [first, ..] = data else { return Ok(None) };
        let (channels, plane) = self.channels(first);
        let whole = super::View::of(self.batch, self.shape(first.source));
        if whole.rank() != 4 || axis_of(node.attributes.integer("axis", 1), whole.rank())? != 1 {
            return Ok(None);
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(data.len());
        for part in data {
            let Some(&count) = part.view.sizes().get(1) else { return Ok(None) };
            let is_next = part.source == first.source
                && part.padding.is_none()
                && part.end == End::Logits
                && start + count <= channels
                && whole.sliced(1, start, 1, count).as_ref() == Some(&part.view)
                && part.view.offset == start * plane;
            if !is_next {
                return Ok(None);
            }
            parts.push((part.affine.as_ref(), start..start + count));
            start += count;
        }
        if start != channels {
            return Ok(None);
        }
        let affine = Affine::of_parts(&parts);
        let data = Data { view: whole, affine: None, alone: false, ..first.clone() };
        Ok(Some(data.then(affine)))
    }

    /// An image with its dimensions in this order.
    fn ordered(&self, source: Source, order: &[usize; 4]) -> super::View {
        super::View::of(self.batch, self.shape(source)).transposed(order)
    }
}
