//! The same values in other dimensions, parts of them, and zeros around them.

use releq_core::{Op, Shape};

use super::{
    Became, Data, Done, End, Lowering, Node, Role, Stop, Value, View,
    source::{is_steps, subsampling},
};
use crate::onnx::{
    forms::{axis_of, broadcast, integers, permutation, reshape_target, sizes, slices, squeezed},
    graph::TensorId,
    tensor::MOST_DIMS,
};

impl Lowering<'_> {
    pub(super) fn view(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        match node.op.as_str() {
            "Identity" => return Ok(Done::nothing(data)),
            // Floating-point types of any width are one here.
            "Cast" | "CastLike" => {
                let to = node.attributes.integer("to", 1);
                return match matches!(to, 1 | 10 | 11 | 16) {
                    true => Ok(Done::nothing(data)),
                    false => Err("it makes whole numbers of what depends on the image".into()),
                };
            }
            "Pad" => return self.pad(node, data),
            "Transpose" => {
                let perm = permutation(node, data.view.rank())?;
                let padding = data
                    .padding
                    .as_ref()
                    .map(|padding| perm.iter().map(|&axis| padding[axis]).collect());
                return Ok(Done::view(Data { view: data.view.transposed(&perm), padding, ..data }));
            }
            _ => {}
        }
        if data.padding.is_some() {
            return Err("zeros around its input are added by convolutions and pools alone".into());
        }
        let before = data.view.sizes();
        let constants = self.constants(node);
        let inputs: Vec<_> = constants.iter().map(Option::as_ref).collect();
        match node.op.as_str() {
            "Slice" => {
                let mut data = data;
                for slice in slices(node, &inputs, &before)? {
                    let step = usize::try_from(slice.step).map_err(|_| "it goes backwards")?;
                    data = self.sliced(data, slice.axis, slice.start, step, slice.size)?;
                }
                Ok(Done::view(data))
            }
            "Split" => {
                let lengths = integers(node, &inputs, 1, "split")?;
                self.split(node, data, lengths, node.outputs.len())
            }
            "Expand" => {
                self.required(node, 1)?;
                let target = sizes(&inputs[1].ok_or("it lacks a shape")?.whole()?)?;
                let reached = broadcast(&before, &target)?;
                match reached == before || self.is_repeated_anyway(node, &reached) {
                    true => Ok(Done::nothing(data)),
                    false => Err(format!("it repeats {before:?} to {target:?}").into()),
                }
            }
            op => {
                let target = match op {
                    "Reshape" => {
                        self.required(node, 1)?;
                        let target = integers(node, &inputs, 1, "shape")?
                            .ok_or("it has no shape to reach")?;
                        let zero_is_size = node.attributes.integer("allowzero", 0) == 1;
                        reshape_target(&before, &target, zero_is_size)
                            .map_err(|reason| format!("it {reason}"))?
                    }
                    "Flatten" => {
                        let axis = axis_of(node.attributes.integer("axis", 1), before.len() + 1)?;
                        let (outer, inner) = before.split_at(axis);
                        vec![outer.iter().product(), inner.iter().product()]
                    }
                    _ => {
                        let axes = integers(node, &inputs, 1, "axes")?;
                        squeezed(op, &before, axes.as_deref())
                            .map_err(|reason| format!("it {reason}"))?
                    }
                };
                self.reshaped(data, &target).map(Done::view)
            }
        }
    }

    /// Whether whoever reads the node multiplies it with what has the shape that it reaches, and so repeats it as well.
    fn is_repeated_anyway(&self, node: &Node, reached: &[usize]) -> bool {
        let [Some(output)] = *node.outputs else { return false };
        let reads = |reader: &&Node| reader.matters && reader.inputs.contains(&Some(output));
        let mut readers = self.graph.nodes.iter().filter(reads).peekable();
        readers.peek().is_some()
            && readers.all(|reader| {
                let has_shape = |input: &Option<TensorId>| match input.map(|id| &self.values[id]) {
                    Some(Value::Data(data)) => data.sizes() == reached,
                    _ => false,
                };
                reader.op == "Mul" && reader.inputs.iter().any(has_shape)
            })
    }

    /// Other dimensions; where the values are in an order in which that cannot be seen, a layer brings them into its own.
    fn reshaped(&mut self, data: Data, target: &[usize]) -> Result<Data, Stop> {
        if target.len() > MOST_DIMS {
            return Err(format!("it makes {} dimensions", target.len()).into());
        }
        if let Some(view) = data.view.reshaped(target) {
            return Ok(Data { view, ..data });
        }
        let before = data.view.sizes();
        let data = self.canonical(data)?;
        match data.view.reshaped(target) {
            Some(view) => Ok(Data { view, ..data }),
            None => {
                Err(format!("it brings {before:?} into {target:?}, across batch or channels")
                    .into())
            }
        }
    }

    fn sliced(
        &mut self,
        data: Data,
        axis: usize,
        start: usize,
        step: usize,
        size: usize,
    ) -> Result<Data, Stop> {
        if data.end != End::Logits && data.view.sizes().get(axis) != Some(&size) {
            return Err("it takes some of the probabilities; export the network without it".into());
        }
        if let Some(view) = data.view.sliced(axis, start, step, size) {
            return Ok(Data { view, ..data });
        }
        if data.view.is_batch(axis) {
            return Err("it takes a part of the batch".into());
        }
        let data = self.canonical(data)?;
        let view = data.view.sliced(axis, start, step, size);
        view.map(|view| Data { view, ..data })
            .ok_or_else(|| "it takes parts of several channels".into())
    }

    /// One place of a dimension, as `x[:, 0]` takes it.
    pub(super) fn gather(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        if data.padding.is_some() {
            return Err("zeros around its input are added by convolutions and pools alone".into());
        }
        let index = self.required(node, 1)?;
        let before = data.view.sizes();
        let axis = axis_of(node.attributes.integer("axis", 0), before.len())?;
        let [place] = *index.whole()? else {
            return Err("it picks several places of its input in an order of its own".into());
        };
        let place = axis_of(place, before[axis])?;
        let data = self.sliced(data, axis, place, 1, 1)?;
        let view = data.view.without(&[axis], !index.dims.is_empty());
        Ok(Done::view(Data { view, ..data }))
    }

    /// A split into one value of several parts, as PyTorch's dynamo writes `chunk` unless it optimizes.
    pub(super) fn split_to_sequence(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        let sizes = data.view.sizes();
        let axis = axis_of(node.attributes.integer("axis", 0), sizes.len())?;
        let split = self.required(node, 1)?;
        let lengths = match (split.dims.as_slice(), split.whole()?.as_slice()) {
            ([], &[each]) if each > 0 => {
                let (size, each) = (sizes[axis], each as usize);
                self.take(size.div_ceil(each))?;
                let length = |part: usize| each.min(size - part * each) as i64;
                (0..size.div_ceil(each)).map(length).collect()
            }
            (_, lengths) => lengths.to_vec(),
        };
        let parts = lengths.len();
        let Done { values, role } = self.split(node, data, Some(lengths), parts)?;
        let parts = values.into_iter().filter_map(|value| match value {
            Value::Data(data) => Some(data),
            _ => None,
        });
        Ok(Done { values: vec![Value::Sequence(parts.collect())], role })
    }

    pub(super) fn sequence_at(&self, node: &Node) -> Result<Done, Stop> {
        let parts = match self.value(node, 0)? {
            Value::Sequence(parts) => parts,
            Value::Unknown => return Err(Stop::Unreached),
            _ => return Err("its input is no sequence".into()),
        };
        let place = self.required(node, 1)?.scalar().ok_or("its place is not one number")?;
        let place = axis_of(place as i64, parts.len())?;
        Ok(Done::view(parts[place].clone()))
    }

    fn split(
        &mut self,
        node: &Node,
        data: Data,
        lengths: Option<Vec<i64>>,
        parts: usize,
    ) -> Result<Done, Stop> {
        let before = data.view.sizes();
        let axis = axis_of(node.attributes.integer("axis", 0), before.len())?;
        let lengths = match lengths {
            Some(lengths) => sizes(&lengths)?,
            None => {
                let each = before[axis].div_ceil(parts.max(1));
                let left = |part: usize| before[axis].saturating_sub(part * each).min(each);
                (0..parts).map(left).collect()
            }
        };
        if lengths.len() != parts
            || lengths.contains(&0)
            || lengths.iter().sum::<usize>() != before[axis]
        {
            return Err(
                format!("it splits {} into {parts} parts of {lengths:?}", before[axis]).into()
            );
        }
        let (mut start, mut values) = (0, Vec::with_capacity(parts));
        let data = self.plain(data)?;
        for length in lengths {
            // A part is read beside the others, however often it is read itself.
            let part = self.sliced(data.clone(), axis, start, 1, length)?;
            values.push(Value::Data(Data { alone: false, ..part }));
            start += length;
        }
        Ok(Done { values, role: Role::Other(Became::View) })
    }

    /// Zeros around an image wait for what reads them; zeros before and behind the channels are a shortcut of a residual
    /// network.
    fn pad(&mut self, node: &Node, data: Data) -> Result<Done, Stop> {
        let mode = node.attributes.text("mode").unwrap_or("constant");
        let constants = self.constants(node);
        let inputs: Vec<_> = constants.iter().map(Option::as_ref).collect();
        if node.inputs.len() > 1 {
            self.required(node, 1)?;
        }
        let rank = data.view.rank();
        let pads = integers(node, &inputs, 1, "pads")?.ok_or("it does not say how much")?;
        let axes = match inputs.get(3).copied().flatten() {
            Some(axes) => {
                axes.whole()?.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<_, _>>()?
            }
            None => (0..rank).collect::<Vec<usize>>(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(format!("it has {} sizes for {} dimensions", pads.len(), axes.len()).into());
        }
        let mut padding = vec![[0; 2]; rank];
        for (index, &axis) in axes.iter().enumerate() {
            let side = |at: usize| {
                let size = usize::try_from(pads[at]).ok().filter(|&size| size < 1 << 20);
                size.ok_or_else(|| Stop::from(format!("it adds {} values", pads[at])))
            };
            padding[axis] = [side(index)?, side(index + axes.len())?];
        }
        if padding.iter().all(|sides| *sides == [0, 0]) {
            return Ok(Done::nothing(data));
        }
        let value = match inputs.get(2).copied().flatten() {
            Some(value) => value.scalar().ok_or("its value is not one number")?,
            None => node.attributes.float("value", 0.0),
        };
        if mode != "constant" || value != 0.0 {
            return Err(
                format!("it adds other values than zeros (mode `{mode}`, value {value})").into()
            );
        }
        if data.padding.is_some() || data.end != End::Logits {
            return Err("it adds zeros to zeros".into());
        }
        let data = self.settled(data)?;
        match self.shortcut(&data, &padding)? {
            Some(layer) => {
                let view = self.output(layer).view;
                Ok(Done::data(Data::of(layer, view), Role::Layer(layer)))
            }
            None => {
                let data = Data { padding: Some(padding), ..data };
                Ok(Done::data(data, Role::Other(Became::Padding)))
            }
        }
    }

    /// The shortcut that zeros around the channels are a part of: a half of them, rounded down, is before the channels.
    fn shortcut(&mut self, data: &Data, padding: &[[usize; 2]]) -> Result<Option<usize>, Stop> {
        let &[[0, 0], [before, behind], [0, 0], [0, 0]] = padding else { return Ok(None) };
        let Shape::Image { channels, height, width } = self.shape(data.source) else {
            return Ok(None);
        };
        let view: &View = &data.view;
        let is_whole =
            view.is_batch(0) && is_steps(view.dim(1), channels, height * width) && view.offset == 0;
        let Some(stride) =
            subsampling(view.dim(2), view.dim(3), [height, width]).filter(|_| is_whole)
        else {
            return Err("it adds channels to what is no image, or a part of one".into());
        };
        if behind != (before + behind).div_ceil(2) {
            return Err(format!(
                "it adds {before} channels before and {behind} behind; a shortcut adds a half on either side"
            )
            .into());
        }
        let op = Op::PaddedShortcut { out_channels: channels + before + behind, stride };
        self.insert(op, vec![data.source]).map(Some)
    }
}
