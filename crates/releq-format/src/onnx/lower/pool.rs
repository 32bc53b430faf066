//! Pooling, and means over whole images.

use releq_core::{Activation, Op, Pool2d, Shape};

use super::{
    Data, Done, Lowering, Node, Role, Source, Stop, View,
    source::{Read, is_steps},
    window::{Window, pair},
};
use crate::onnx::forms::{axis_of, integers};

impl Lowering<'_> {
    pub(super) fn pool(&mut self, node: &Node) -> Result<Done, Stop> {
        let is_max = node.op == "MaxPool";
        let data = self.data(node, 0)?;
        let kernel = match node.attributes.integers("kernel_shape").map(<[i64]>::len) {
            Some(2) => pair(node, "kernel_shape")?,
            axes => {
                let axes = axes.unwrap_or(0);
                return Err(
                    format!("it is a pool along {axes} axes; those along two are read").into()
                );
            }
        };
        let (data, zeros) = self.without_padding(data)?;
        let before = data.clone();
        let Read { source, shape } = self.image(data)?;
        let Shape::Image { height, width, .. } = shape else {
            let window = Window::of(node, kernel, [1, 1], zeros)?;
            return match window.is_pixel() {
                true => Ok(Done::nothing(before)),
                false => Err("it goes over an image of one pixel".into()),
            };
        };
        let sides = [height, width];
        let window = Window::of(node, kernel, sides, zeros)?;
        if window.is_pixel() {
            return Ok(Done::nothing(before));
        }
        if window.dilation != [1, 1] {
            return Err(
                format!("its dilation is {:?}; pools have none here", window.dilation).into()
            );
        }
        if !is_max && window.covers(sides) {
            return self.mean(node, source);
        }
        let has_zeros = zeros != [0; 4];
        if is_max && has_zeros && !self.is_not_negative(source) {
            return Err(
                "zeros around its input take part in the maximum, since that may be negative"
                    .into(),
            );
        }
        let counts = node.attributes.integer("count_include_pad", 0) != 0;
        let own = Window::of(node, kernel, sides, [0; 4])?.padding;
        if !is_max && has_zeros && !own.is_zero() && !counts {
            return Err("some of the zeros around its input count and some do not".into());
        }
        let pool = Pool2d::new(window.kernel(), window.stride)
            .padding(window.padding)
            .count_include_pad(!is_max && (counts || has_zeros) && !window.padding.is_zero());
        let op = |pool| if is_max { Op::MaxPool(pool) } else { Op::AvgPool(pool) };
        let name = self.name(node, None);
        let layer = self.push(name, op(pool), vec![source], Vec::new())?;
        // Where both ways of rounding give the same image, the usual one is kept.
        if node.attributes.integer("ceil_mode", 0) != 0 {
            let ceil = op(pool.ceil_mode(true));
            let mut other = self.layers[layer].node.clone();
            other.op = ceil;
            let shape = other.infer(&[shape]).map_err(|error| error.to_string())?;
            if shape != self.layers[layer].shape {
                self.layers[layer].node = other;
                self.layers[layer].shape = shape;
            }
        }
        Ok(Done::data(self.output(layer), Role::Layer(layer)))
    }

    /// Whether no value of a layer is below zero, so that zeros beside it never win a maximum.
    fn is_not_negative(&self, source: Source) -> bool {
        let Some(layer) = source else { return false };
        match self.layers[layer].node.op {
            Op::Relu => true,
            Op::Activation(Activation::Clip { min, .. }) => min >= 0.0,
            Op::Activation(Activation::Sigmoid | Activation::HardSigmoid { .. }) => true,
            _ => false,
        }
    }

    /// Mean of each channel, as an image of one pixel.
    fn mean(&mut self, node: &Node, source: Source) -> Result<Done, Stop> {
        let name = self.name(node, None);
        let layer = self.push(name, Op::GlobalAvgPool, vec![source], Vec::new())?;
        let data = self.output(layer);
        let mut sizes = data.view.sizes();
        sizes.extend([1, 1]);
        let view = data.view.reshaped(&sizes).ok_or("its output is no pixel")?;
        Ok(Done::data(Data { view, ..data }, Role::Layer(layer)))
    }

    /// Mean or maximum over whole dimensions: over rows and columns, in whatever order they are.
    pub(super) fn reduce(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        let data = self.plain(data)?;
        let rank = data.view.rank();
        let is_global = node.op.starts_with("Global");
        let axes = if is_global {
            (2..rank).collect()
        } else {
            let constants = self.constants(node);
            let inputs: Vec<_> = constants.iter().map(Option::as_ref).collect();
            let axes = integers(node, &inputs, 1, "axes")?.unwrap_or_default();
            if axes.is_empty() {
                return Err("it goes over all dimensions, the batch included".into());
            }
            axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?
        };
        let keep = is_global || node.attributes.integer("keepdims", 1) != 0;
        if axes.iter().all(|&axis| data.view.dim(axis).is_empty()) {
            return Ok(Done::view(Data { view: data.view.without(&axes, keep), ..data }));
        }
        let data = match self.leaves_channels(&data, &axes) {
            true => data,
            false => self.canonical(data)?,
        };
        let Shape::Image { height, width, .. } = self.shape(data.source) else {
            return Err("it goes over features; only pixels are reduced".into());
        };
        let is_max = node.op.ends_with("MaxPool") || node.op == "ReduceMax";
        let whole = View::of(self.batch, self.shape(data.source));
        let (kernel, view) = match *axes {
            _ if self.leaves_channels(&data, &axes) => ([height, width], None),
            // One of the two ways in which a mean over one axis after the other begins.
            [2] if data.view == whole => ([height, 1], Some(keep)),
            [3] if data.view == whole => ([1, width], Some(keep)),
            _ => {
                return Err(
                    "it does not go over all pixels of an image, and over nothing else".into()
                );
            }
        };
        let name = self.name(node, None);
        let pool = Pool2d::new(kernel, kernel);
        let op = match view {
            _ if is_max => Op::MaxPool(pool),
            None => Op::GlobalAvgPool,
            Some(_) => Op::AvgPool(pool),
        };
        let layer = self.push(name, op, vec![data.source], Vec::new())?;
        let view = match view {
            None => data.view.without(&axes, keep).of_vector(height * width),
            Some(_) => self.output(layer).view.without(&axes, keep),
        };
        Ok(Done::data(Data::of(layer, view), Role::Layer(layer)))
    }

    /// Whether the channels of an image are what is left of `data` without these dimensions: then all that goes is all of
    /// its pixels.
    fn leaves_channels(&self, data: &Data, axes: &[usize]) -> bool {
        let Shape::Image { channels, height, width } = self.shape(data.source) else {
            return false;
        };
        let view = data.view.without(axes, false);
        let rest: Vec<usize> = (0..view.rank()).filter(|&axis| !view.is_batch(axis)).collect();
        let is_channels = match *rest {
            [axis] => is_steps(view.dim(axis), channels, height * width),
            [] => channels == 1,
            _ => false,
        };
        is_channels && data.view.is_permutation(channels * height * width)
    }
}
