//! Convolutions, and those over a single pixel, which are fully connected layers.

use releq_core::{Conv2d, Op, ParameterRole, Shape};

use super::{
    Data, Done, Lowering, Node, Role, Stop, View, layers::Values, source::Read, window::Window,
};
use crate::onnx::tensor::Tensor;

impl Lowering<'_> {
    pub(super) fn conv(&mut self, node: &Node) -> Result<Done, Stop> {
        let data = self.data(node, 0)?;
        let weight = self.required(node, 1)?;
        let [outputs, inputs, height, width] = *weight.dims else {
            let axes = weight.dims.len().saturating_sub(2);
            return Err(
                format!("it is a convolution along {axes} axes; those along two are read").into()
            );
        };
        if outputs == 0 || inputs == 0 || height == 0 || width == 0 {
            return Err(format!("its weight has shape {:?}", weight.dims).into());
        }
        if let Some(stated) = node.attributes.integers("kernel_shape")
            && stated != [height as i64, width as i64]
        {
            let reason =
                format!("its kernel is said to be {stated:?}, but is {:?}", [height, width]);
            return Err(reason.into());
        }
        let (data, zeros) = self.without_padding(data)?;
        let Read { source, shape } = self.image(data)?;
        let sides = match shape {
            Shape::Image { height, width, .. } => [height, width],
            Shape::Vector { .. } => [1, 1],
        };
        let window = Window::of(node, [height, width], sides, zeros)?;
        let groups = node.attributes.integer("group", 1);
        let groups = usize::try_from(groups).ok().filter(|&groups| groups > 0);
        let groups = groups.ok_or("its number of groups is not positive")?;
        if shape.channels() != inputs.saturating_mul(groups) {
            let channels = shape.channels();
            return Err(format!(
                "its weight {:?} in {groups} groups is for {} channels, and {channels} come",
                weight.dims,
                inputs.saturating_mul(groups)
            )
            .into());
        }
        let bias = self.bias(node, 2, outputs)?;
        let mut parameters = vec![(ParameterRole::Weight, self.weight(&weight)?)];
        let has_bias = bias.is_some();
        parameters.extend(bias.map(|bias| (ParameterRole::Bias, bias)));

        let name = self.name(node, weight.origin.as_deref());
        if let Shape::Vector { .. } = shape {
            if groups != 1 || window.kernel != [1, 1] || !window.padding.is_zero() {
                return Err("it goes over an image of one pixel, the mean of each channel; only kernels of one pixel \
                            without groups do so here"
                    .into());
            }
            let op = Op::Linear { out_features: outputs, bias: has_bias };
            let layer = self.push(name, op, vec![source], parameters)?;
            return self.pixel(layer, outputs);
        }
        let conv = Conv2d::new(outputs, window.kernel())
            .stride(window.stride)
            .dilation(window.dilation)
            .padding(window.padding)
            .groups(groups);
        let conv = if has_bias { conv } else { conv.without_bias() };
        let layer = self.push(name, Op::Conv2d(conv), vec![source], parameters)?;
        Ok(Done::data(self.output(layer), Role::Layer(layer)))
    }

    /// A vector as the model sees it, an image of one pixel.
    fn pixel(&self, layer: usize, features: usize) -> Result<Done, Stop> {
        let view = View::of(self.batch, Shape::Vector { features });
        let view = view.reshaped(&[self.batch, features, 1, 1]).ok_or("its output is no pixel")?;
        Ok(Done::data(Data::of(layer, view), Role::Layer(layer)))
    }

    /// The weights of a layer, which are no other's.
    pub(super) fn weight(&mut self, weight: &Tensor) -> Result<Values, Stop> {
        self.claim(weight)?;
        let (origin, grid) = (weight.origin.clone(), weight.grid.clone());
        if let Some(value) = weight.uniform() {
            self.repeated = self.repeated.saturating_add(weight.len());
            if self.repeated > super::MOST_REPEATED || !value.is_finite() {
                return Err(format!("its weights are {value}, {} times", weight.len()).into());
            }
            return Ok(Values { values: vec![value], repeated: Some(weight.len()), origin, grid });
        }
        Ok(Values { values: Self::weights(weight)?, repeated: None, origin, grid })
    }

    /// The bias of `outputs` channels that is input `index`, unless it is left out, or zeros that an exporter computes.
    pub(super) fn bias(
        &mut self,
        node: &Node,
        index: usize,
        outputs: usize,
    ) -> Result<Option<Values>, Stop> {
        let Some(bias) = self.constant(node, index)? else { return Ok(None) };
        // `[outputs]`, `[1, outputs]`, or one number for all.
        let len = bias.len();
        let is_last = bias.dims.last().is_none_or(|&size| size == len);
        if !is_last || len == 0 || (len != outputs && len != 1) {
            let reason = format!("its bias has shape {:?} for {outputs} outputs", bias.dims);
            return Err(reason.into());
        }
        self.take(outputs)?;
        let mut values = Self::weights(&bias)?;
        values.resize(outputs, values[0]);
        let is_nothing = bias.origin.is_none() && values.iter().all(|&value| value == 0.0);
        let origin = bias.origin.clone().filter(|_| len == outputs);
        Ok((!is_nothing).then_some(Values { values, repeated: None, origin, grid: None }))
    }
}
