//! Layers as ONNX's nodes.

use releq_core::{Activation, Axes, Conv2d, Op, ParameterRole, Pool2d, Shape, Sides};

use super::graph::{Writer, dims, float, int, ints};
use crate::{ExportError, onnx::proto};

/// Ends a slice behind the last place, wherever that is.
const END: i64 = i64::MAX;

impl Writer<'_> {
    /// Appends the nodes of layer `index`; gives the name of the tensor that they compute.
    pub(super) fn layer(&mut self, index: usize) -> Result<String, ExportError> {
        let network = self.model.network();
        let node = &network.nodes()[index];
        let (name, sources) = (node.name.as_str(), network.sources(index));
        // The order of features does not matter to a flattening, so a vector needs not become an image first.
        if node.op == Op::Flatten
            && let Some(flat) = self.flat_value(sources[0])
        {
            return Ok(flat);
        }
        let inputs: Vec<String> = sources.iter().map(|&source| self.value(source)).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let (input, shape) = (inputs[0], network.input_shape(index));
        if self.is_folded(index) {
            return Ok(input.to_owned());
        }
        Ok(match node.op {
            Op::Conv2d(conv) => self.conv(index, input, shape, conv)?,
            Op::Linear { out_features, bias } => {
                let (weight, bias) =
                    self.weight_and_bias(index, &[out_features, shape.len()], bias)?;
                let inputs: Vec<&str> =
                    [input, &weight].into_iter().chain(bias.as_deref()).collect();
                self.step(name, "Gemm", &inputs, &[int("transB", 1)])
            }
            Op::BatchNorm { epsilon, momentum } => {
                use ParameterRole::{Bias, RunningMean, RunningVar, Weight};
                let channels = shape.channels();
                let parameters = [Weight, Bias, RunningMean, RunningVar]
                    .map(|role| self.channels(name, role, channels));
                let inputs: Vec<&str> =
                    std::iter::once(input).chain(parameters.iter().map(String::as_str)).collect();
                // ONNX weighs the old statistics, PyTorch and we the new ones.
                let attributes =
                    [float("epsilon", epsilon as f32), float("momentum", (1.0 - momentum) as f32)];
                self.step(name, "BatchNormalization", &inputs, &attributes)
            }
            Op::ScaleShift => {
                // Broadcast over the pixels of an image.
                let sides: &[i64] = if let Shape::Image { .. } = shape { &[1, 1] } else { &[] };
                let shape = [&dims(&[shape.channels()]), sides].concat();
                let factor = self.parameter(name, ParameterRole::Weight, shape.clone());
                let summand = self.parameter(name, ParameterRole::Bias, shape);
                let scaled = self.step(name, "Mul", &[input, &factor], &[]);
                self.step(&format!("{name}.shift"), "Add", &[&scaled, &summand], &[])
            }
            Op::Relu => self.step(name, "Relu", &[input], &[]),
            Op::Activation(activation) => self.activation(name, input, activation)?,
            Op::MaxPool(pool) => {
                let Window { attributes, .. } = Window::of(shape, network.shape(index), pool);
                self.step(name, "MaxPool", &[input], &attributes)
            }
            Op::AvgPool(pool) => {
                let window = Window::of(shape, network.shape(index), pool);
                if window.is_padded && pool.count_include_pad {
                    return Err(ExportError::Form {
                        layer: name.to_owned(),
                        form: "ONNX",
                        reason: "an average that counts padding, with a number of windows that is rounded up along \
                                 one axis only, means something else to every runtime"
                            .to_owned(),
                    });
                }
                let mut attributes = window.attributes;
                attributes.push(int("count_include_pad", i64::from(pool.count_include_pad)));
                self.step(name, "AveragePool", &[input], &attributes)
            }
            Op::GlobalAvgPool => {
                let mean = self.step(name, "GlobalAveragePool", &[input], &[]);
                let mean = self.rounded_output(index, mean);
                self.step(&format!("{name}.flatten"), "Flatten", &[&mean], &[int("axis", 1)])
            }
            Op::Flatten => self.step(name, "Flatten", &[input], &[int("axis", 1)]),
            Op::Dropout { probability } => {
                let ratio =
                    self.floats(&format!("{name}.ratio"), Vec::new(), &[probability as f32]);
                self.step(name, "Dropout", &[input, &ratio], &[])
            }
            Op::Add if inputs.len() == 2 => self.step(name, "Add", &inputs, &[]),
            Op::Add => self.step(name, "Sum", &inputs, &[]),
            Op::Mul => self.product(index, &inputs),
            Op::Concat => self.step(name, "Concat", &inputs, &[int("axis", 1)]),
            Op::ChannelSlice { start, channels } => {
                self.slice(name, input, &dims(&[start]), &dims(&[start + channels]), &[1], None)
            }
            Op::ChannelShuffle { groups } => self.shuffle(name, input, shape, groups),
            Op::LocalResponseNorm { size, alpha, beta, bias } => {
                let attributes = [
                    int("size", size as i64),
                    float("alpha", alpha),
                    float("beta", beta),
                    float("bias", bias),
                ];
                self.step(name, "LRN", &[input], &attributes)
            }
            Op::PaddedShortcut { out_channels, stride } => {
                self.shortcut(name, input, shape.channels(), out_channels, stride)
            }
            other => {
                return Err(ExportError::Form {
                    layer: name.to_owned(),
                    form: "ONNX",
                    reason: format!("there is no way yet to write {}", other.kind()),
                });
            }
        })
    }

    /// A parameter with a value for each of some channels.
    fn channels(&mut self, layer: &str, role: ParameterRole, channels: usize) -> String {
        self.parameter(layer, role, dims(&[channels]))
    }

    /// The weight of a layer, and its bias.
    fn weight_and_bias(
        &mut self,
        index: usize,
        sizes: &[usize],
        has_bias: bool,
    ) -> Result<(String, Option<String>), ExportError> {
        if let Some(activations) = self.activations {
            return self.integer_weight_and_bias(index, sizes, activations);
        }
        let name = self.model.network().nodes()[index].name.as_str();
        let weight = self.weight(name, sizes)?;
        Ok((weight, has_bias.then(|| self.channels(name, ParameterRole::Bias, sizes[0]))))
    }

    fn conv(
        &mut self,
        index: usize,
        input: &str,
        shape: Shape,
        conv: Conv2d,
    ) -> Result<String, ExportError> {
        let name = self.model.network().nodes()[index].name.as_str();
        let Axes { height, width } = conv.kernel;
        let sizes = [conv.out_channels, shape.channels() / conv.groups, height, width];
        let (weight, bias) = self.weight_and_bias(index, &sizes, conv.bias)?;
        let inputs: Vec<&str> = [input, &weight].into_iter().chain(bias.as_deref()).collect();
        let attributes = [
            ints("kernel_shape", &axes(conv.kernel)),
            ints("strides", &axes(conv.stride)),
            ints("pads", &sides(conv.padding)),
            ints("dilations", &axes(conv.dilation)),
            int("group", conv.groups as i64),
        ];
        Ok(self.step(name, "Conv", &inputs, &attributes))
    }

    fn activation(
        &mut self,
        name: &str,
        input: &str,
        activation: Activation,
    ) -> Result<String, ExportError> {
        Ok(match activation {
            Activation::Clip { min, max } => {
                let [min, max] = [("min", min), ("max", max)].map(|(which, bound)| {
                    self.floats(&format!("{name}.{which}"), Vec::new(), &[bound])
                });
                self.step(name, "Clip", &[input, &min, &max], &[])
            }
            Activation::Sigmoid => self.step(name, "Sigmoid", &[input], &[]),
            Activation::HardSigmoid { alpha, beta } => {
                let attributes = [float("alpha", alpha), float("beta", beta)];
                self.step(name, "HardSigmoid", &[input], &attributes)
            }
            Activation::Silu => {
                let gate = self.step(&format!("{name}.sigmoid"), "Sigmoid", &[input], &[]);
                self.step(name, "Mul", &[input, &gate], &[])
            }
            Activation::HardSwish => {
                self.needs(14, || format!("layer `{name}`, a hard swish,"))?;
                self.step(name, "HardSwish", &[input], &[])
            }
            Activation::LeakyRelu { slope } => {
                self.step(name, "LeakyRelu", &[input], &[float("alpha", slope)])
            }
            Activation::Tanh => self.step(name, "Tanh", &[input], &[]),
            Activation::Gelu => {
                self.needs(20, || format!("layer `{name}`, a GELU,"))?;
                self.step(name, "Gelu", &[input], &[])
            }
            other => {
                return Err(ExportError::Form {
                    layer: name.to_owned(),
                    form: "ONNX",
                    reason: format!("there is no way yet to write {}", other.name()),
                });
            }
        })
    }

    /// A product, in which a vector becomes an image of one pixel, so that it is broadcast over the pixels of the other.
    fn product(&mut self, index: usize, inputs: &[&str]) -> String {
        let network = self.model.network();
        let name = network.nodes()[index].name.as_str();
        let shape_of = |source: &Option<usize>| match *source {
            Some(layer) => network.shape(layer),
            None => {
                let [channels, height, width] = network.input();
                Shape::Image { channels, height, width }
            }
        };
        let is_image = matches!(network.shape(index), Shape::Image { .. });
        let factors: Vec<String> = network
            .sources(index)
            .iter()
            .zip(inputs)
            .map(|(source, &input)| match shape_of(source) {
                Shape::Vector { .. } if is_image => {
                    let axes = self.integers(&format!("{name}.axes"), &[2, 3]);
                    self.step(&format!("{name}.pixel"), "Unsqueeze", &[input, &axes], &[])
                }
                _ => input.to_owned(),
            })
            .collect();
        let factors: Vec<&str> = factors.iter().map(String::as_str).collect();
        self.step(name, "Mul", &factors, &[])
    }

    fn slice(
        &mut self,
        name: &str,
        input: &str,
        starts: &[i64],
        ends: &[i64],
        axes: &[i64],
        steps: Option<&[i64]>,
    ) -> String {
        let mut inputs = vec![input.to_owned()];
        let parts = [("starts", Some(starts)), ("ends", Some(ends)), ("axes", Some(axes))];
        for (part, values) in parts.into_iter().chain([("steps", steps)]) {
            inputs.extend(values.map(|values| self.integers(&format!("{name}.{part}"), values)));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.step(name, "Slice", &inputs, &[])
    }

    fn shuffle(&mut self, name: &str, input: &str, shape: Shape, groups: usize) -> String {
        let sides = match shape {
            Shape::Image { height, width, .. } => dims(&[height, width]),
            Shape::Vector { .. } => Vec::new(),
        };
        let channels = shape.channels();
        // 0 keeps the size of the batch, whatever it is.
        let apart = [&dims(&[0, groups, channels / groups]), sides.as_slice()].concat();
        let together = [&dims(&[0, channels]), sides.as_slice()].concat();
        let order: Vec<i64> = [0, 2, 1].into_iter().chain(3..apart.len() as i64).collect();
        let step = |what: &str| format!("{name}.{what}");
        let apart = self.integers(&step("groups"), &apart);
        let together = self.integers(&step("shape"), &together);
        let grouped = self.step(&step("group"), "Reshape", &[input, &apart], &[]);
        let shuffled =
            self.step(&step("transpose"), "Transpose", &[&grouped], &[ints("perm", &order)]);
        self.step(name, "Reshape", &[&shuffled, &together], &[])
    }

    /// Every so many-th pixel, and channels of zeros around those that come.
    fn shortcut(
        &mut self,
        name: &str,
        input: &str,
        channels: usize,
        out_channels: usize,
        stride: usize,
    ) -> String {
        let more = out_channels - channels;
        let picked = match (stride, more) {
            (1, 1..) => input.to_owned(),
            _ => {
                let label = if more == 0 { name.to_owned() } else { format!("{name}.pixels") };
                let steps = dims(&[stride, stride]);
                self.slice(&label, input, &[0, 0], &[END, END], &[2, 3], Some(&steps))
            }
        };
        if more == 0 {
            return picked;
        }
        let before = more / 2;
        let pads = dims(&[0, before, 0, 0, 0, more - before, 0, 0]);
        let pads = self.integers(&format!("{name}.pads"), &pads);
        self.step(name, "Pad", &[&picked, &pads], &[])
    }
}

fn axes(Axes { height, width }: Axes) -> [i64; 2] {
    [height as i64, width as i64]
}

fn sides(sides: Sides) -> [i64; 4] {
    <[usize; 4]>::from(sides).map(|size| size as i64)
}

/// Window of a pooling layer.
struct Window {
    attributes: Vec<proto::Attribute>,
    /// Whether padding stands for the rounding of the number of windows.
    is_padded: bool,
}

impl Window {
    /// The window between two shapes.
    ///
    /// Where a last window reaches beyond the padding, runtimes differ in whether one that would begin there counts. So
    /// rounding up is asked for only where it makes no difference, and padding does the same elsewhere.
    fn of(input: Shape, output: Shape, pool: Pool2d) -> Self {
        let mut padding = pool.padding;
        let mut ceil_mode = false;
        if let (
            true,
            Shape::Image { height, width, .. },
            Shape::Image { height: rows, width: columns, .. },
        ) = (pool.ceil_mode, input, output)
        {
            let Axes { height: step_down, width: step_across } = pool.stride;
            let down = (height + padding.top + padding.bottom).saturating_sub(pool.kernel.height);
            let across = (width + padding.left + padding.right).saturating_sub(pool.kernel.width);
            let is = |windows: [usize; 2]| windows == [rows - 1, columns - 1];
            let is_rounded_down = is([down / step_down, across / step_across]);
            ceil_mode = is([down.div_ceil(step_down), across.div_ceil(step_across)]);
            if !is_rounded_down && !ceil_mode {
                padding.bottom += ((rows - 1) * step_down).saturating_sub(down);
                padding.right += ((columns - 1) * step_across).saturating_sub(across);
            }
            ceil_mode &= !is_rounded_down;
        }
        let attributes = vec![
            ints("kernel_shape", &axes(pool.kernel)),
            ints("strides", &axes(pool.stride)),
            ints("pads", &sides(padding)),
            int("ceil_mode", i64::from(ceil_mode)),
        ];
        Self { attributes, is_padded: padding != pool.padding }
    }
}
