//! Shape inference: what leaves a layer, from what enters it.

use super::{
    Activation, Axes, Conv2d, NetworkError, Node, Op, Pool2d, Shape, Sides, op::no_dilation,
};

/// Largest number of values between two layers, or of weights in one: 2^34, more than any real one.
pub(super) const MAX_VALUES: usize = 1 << 34;

/// The shape that leaves `node`, given those that enter it.
pub(super) fn infer(node: &Node, inputs: &[Shape]) -> Result<Shape, NetworkError> {
    let layer = Layer(node);
    match node.op {
        Op::Add => return layer.sum(inputs),
        Op::Mul => return layer.product(inputs),
        Op::Concat => return layer.concat(inputs),
        _ => {}
    }
    let [input] = *inputs else { return Err(layer.input_count("one input", inputs.len())) };
    match node.op {
        Op::Conv2d(conv) => layer.convolution(input, conv),
        Op::Linear { out_features, .. } => layer.linear(input, out_features),
        Op::BatchNorm { epsilon, momentum } => layer.batch_norm(input, epsilon, momentum),
        Op::Dropout { probability } => layer.dropout(input, probability),
        Op::Relu | Op::ScaleShift | Op::FakeQuantize | Op::Add | Op::Mul | Op::Concat => Ok(input),
        Op::Activation(activation) => layer.activation(input, activation),
        Op::MaxPool(pool) | Op::AvgPool(pool) => layer.pool(input, pool),
        Op::GlobalAvgPool => match input {
            Shape::Image { channels, .. } => Ok(Shape::Vector { features: channels }),
            Shape::Vector { .. } => Err(layer.wrong(input, "it needs an image")),
        },
        Op::Flatten => Ok(Shape::Vector { features: input.len() }),
        Op::PaddedShortcut { out_channels, stride } => {
            layer.padded_shortcut(input, out_channels, stride)
        }
        Op::ChannelSlice { start, channels } => layer.slice(input, start, channels),
        Op::ChannelShuffle { groups } => layer.shuffle(input, groups),
        Op::LocalResponseNorm { size, alpha, beta, bias } => {
            layer.response_norm(input, size, [alpha, beta, bias])
        }
    }
}

/// Most channels of a norm over channels: sums over more take for ever, and networks have at most a hundredth of it.
const MOST_NORMED: usize = 4095;

/// Why a vector is refused.
const NEEDS_IMAGE: &str = "it needs an image; put it before `flatten`";

/// What the number of places of a window depends on.
#[derive(Clone, Copy)]
struct Window {
    kernel: Axes,
    stride: Axes,
    padding: Sides,
    dilation: Axes,
    ceil_mode: bool,
}

/// A layer whose shape is being inferred.
struct Layer<'a>(&'a Node);

impl Layer<'_> {
    fn sum(&self, inputs: &[Shape]) -> Result<Shape, NetworkError> {
        let [first, _, ..] = *inputs else {
            return Err(self.input_count("two or more inputs", inputs.len()));
        };
        match inputs.iter().find(|&&shape| shape != first) {
            Some(&other) => Err(self.wrong(other, format!("its first input has shape {first}"))),
            None => Ok(first),
        }
    }

    fn product(&self, inputs: &[Shape]) -> Result<Shape, NetworkError> {
        let [first, second] = *inputs else {
            return Err(self.input_count("two inputs", inputs.len()));
        };
        match (first, second) {
            _ if first == second => Ok(first),
            (image @ Shape::Image { channels, .. }, Shape::Vector { features })
            | (Shape::Vector { features }, image @ Shape::Image { channels, .. })
                if channels == features =>
            {
                Ok(image)
            }
            _ => {
                let reason = format!(
                    "its first input has shape {first}; it takes equal shapes, or an image and a factor for \
                     every channel"
                );
                Err(self.wrong(second, reason))
            }
        }
    }

    fn concat(&self, inputs: &[Shape]) -> Result<Shape, NetworkError> {
        let [first, rest @ ..] = inputs else {
            return Err(self.input_count("two or more inputs", inputs.len()));
        };
        if rest.is_empty() {
            return Err(self.input_count("two or more inputs", inputs.len()));
        }
        rest.iter().try_fold(*first, |sum, &shape| {
            let joined = match (sum, shape) {
                (Shape::Vector { features }, Shape::Vector { features: more }) => {
                    Shape::Vector { features: features.saturating_add(more) }
                }
                (Shape::Image { channels, height, width }, Shape::Image { channels: more, .. })
                    if shape == (Shape::Image { channels: more, height, width }) =>
                {
                    Shape::Image { channels: channels.saturating_add(more), height, width }
                }
                _ => {
                    let reason = format!(
                        "its first input has shape {first}, and only numbers of channels (or features) may differ"
                    );
                    return Err(self.wrong(shape, reason));
                }
            };
            match joined {
                Shape::Image { channels, height, width } => self.fits(&[channels, height, width])?,
                Shape::Vector { features } => self.fits(&[features])?,
            }
            Ok(joined)
        })
    }

    fn slice(&self, input: Shape, start: usize, channels: usize) -> Result<Shape, NetworkError> {
        let count = input.channels();
        if channels == 0 || start.checked_add(channels).is_none_or(|end| end > count) {
            let reason = format!("it has no {channels} channels from channel {start} on");
            return Err(self.wrong(input, reason));
        }
        Ok(input.with_channels(channels))
    }

    fn shuffle(&self, input: Shape, groups: usize) -> Result<Shape, NetworkError> {
        let channels = input.channels();
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(
                self.wrong(input, format!("{groups} groups do not divide {channels} channels"))
            );
        }
        Ok(input)
    }

    fn response_norm(
        &self,
        input: Shape,
        size: usize,
        constants: [f32; 3],
    ) -> Result<Shape, NetworkError> {
        let Shape::Image { .. } = input else { return Err(self.wrong(input, NEEDS_IMAGE)) };
        if size.is_multiple_of(2) {
            // PyTorch and ONNX put the one channel more on different sides.
            return Err(
                self.parameter(format!("the number of channels of a norm must be odd, got {size}"))
            );
        }
        if size > MOST_NORMED {
            return Err(self.parameter(format!(
                "a norm over channels goes over at most {MOST_NORMED} of them, got {size}"
            )));
        }
        let [alpha, beta, bias] = constants;
        if alpha >= 0.0 && bias > 0.0 && constants.iter().all(|constant| constant.is_finite()) {
            return Ok(input);
        }
        Err(self.parameter(format!(
            "a norm over channels needs alpha of 0 or more, any beta and a positive bias, got {alpha:?}, {beta:?} \
             and {bias:?}"
        )))
    }

    fn activation(&self, input: Shape, activation: Activation) -> Result<Shape, NetworkError> {
        let fits = match activation {
            Activation::Clip { min, max } => min < max && min.is_finite() && max.is_finite(),
            Activation::HardSigmoid { alpha, beta } => {
                alpha > 0.0 && alpha.is_finite() && beta.is_finite()
            }
            Activation::LeakyRelu { slope } => slope.is_finite(),
            Activation::Sigmoid
            | Activation::Silu
            | Activation::HardSwish
            | Activation::Tanh
            | Activation::Gelu => true,
        };
        if fits {
            return Ok(input);
        }
        let reason = "its constants must be finite, a range must not be empty, and a slope alpha must be positive";
        Err(self.parameter(format!("{activation:?}: {reason}")))
    }

    fn convolution(&self, input: Shape, conv: Conv2d) -> Result<Shape, NetworkError> {
        let window = Window {
            kernel: conv.kernel,
            stride: conv.stride,
            padding: conv.padding,
            dilation: conv.dilation,
            ceil_mode: false,
        };
        let [channels, height, width] = self.window(input, window)?;
        let groups = conv.groups;
        if groups == 0
            || !channels.is_multiple_of(groups)
            || !conv.out_channels.is_multiple_of(groups)
        {
            let outputs = conv.out_channels;
            let reason = format!(
                "{groups} groups do not divide {channels} input and {outputs} output channels"
            );
            return Err(self.wrong(input, reason));
        }
        let Axes { height: rows, width: columns } = conv.kernel;
        self.fits(&[conv.out_channels, channels / groups, rows, columns])?;
        self.fits(&[conv.out_channels, height, width])?;
        Ok(Shape::Image { channels: conv.out_channels, height, width })
    }

    fn linear(&self, input: Shape, out_features: usize) -> Result<Shape, NetworkError> {
        let Shape::Vector { features } = input else {
            return Err(self.wrong(input, "it needs a vector; put `flatten` before it"));
        };
        self.fits(&[features, out_features])?;
        Ok(Shape::Vector { features: out_features })
    }

    fn batch_norm(&self, input: Shape, epsilon: f64, momentum: f64) -> Result<Shape, NetworkError> {
        if epsilon > 0.0 && (0.0..=1.0).contains(&momentum) {
            return Ok(input);
        }
        Err(self.parameter(format!(
            "batch norm needs a positive epsilon and a momentum in [0, 1], got {epsilon:?} and {momentum:?}"
        )))
    }

    fn dropout(&self, input: Shape, probability: f64) -> Result<Shape, NetworkError> {
        if (0.0..1.0).contains(&probability) {
            return Ok(input);
        }
        Err(self.parameter(format!("dropout probability {probability:?} is not in [0, 1)")))
    }

    fn pool(&self, input: Shape, pool: Pool2d) -> Result<Shape, NetworkError> {
        let (Axes { height: rows, width: columns }, padding) = (pool.kernel, pool.padding);
        let Sides { top, left, bottom, right } = padding;
        // Otherwise a window may lie in the padding alone, and has neither a maximum nor a mean.
        let below = |padding: usize, kernel: usize| padding == 0 || padding < kernel;
        if ![(top, rows), (bottom, rows), (left, columns), (right, columns)]
            .into_iter()
            .all(|(padding, kernel)| below(padding, kernel))
        {
            let reason = format!("padding {padding} must be below the kernel {}", pool.kernel);
            return Err(self.parameter(reason));
        }
        let window = Window {
            kernel: pool.kernel,
            stride: pool.stride,
            padding: pool.padding,
            dilation: no_dilation(),
            ceil_mode: pool.ceil_mode,
        };
        let [channels, height, width] = self.window(input, window)?;
        Ok(Shape::Image { channels, height, width })
    }

    fn padded_shortcut(
        &self,
        input: Shape,
        out_channels: usize,
        stride: usize,
    ) -> Result<Shape, NetworkError> {
        let window = Window {
            kernel: no_dilation(),
            stride: stride.into(),
            padding: Sides::default(),
            dilation: no_dilation(),
            ceil_mode: false,
        };
        let [channels, height, width] = self.window(input, window)?;
        if out_channels < channels {
            let reason = format!("it cannot leave {out_channels} channels of {channels}");
            return Err(self.wrong(input, reason));
        }
        self.fits(&[out_channels, height, width])?;
        Ok(Shape::Image { channels: out_channels, height, width })
    }

    /// Channels of an image, and the number of places of a window on it, down and across.
    fn window(&self, input: Shape, window: Window) -> Result<[usize; 3], NetworkError> {
        let Shape::Image { channels, height, width } = input else {
            return Err(self.wrong(input, NEEDS_IMAGE));
        };
        let Window { kernel, stride, padding, dilation, .. } = window;
        let sizes = [kernel, stride, dilation];
        if sizes.iter().any(|axes| axes.height == 0 || axes.width == 0) {
            return Err(self.parameter("kernel, stride and dilation must be positive"));
        }
        let dilated = |kernel: usize, dilation: usize| {
            (kernel - 1).saturating_mul(dilation).saturating_add(1)
        };
        let extent = Axes::new(
            dilated(kernel.height, dilation.height),
            dilated(kernel.width, dilation.width),
        );
        let Sides { top, left, bottom, right } = padding;
        let padded = |side: usize, before: usize, after: usize| {
            side.saturating_add(before).saturating_add(after)
        };
        self.fits(&[channels, padded(height, top, bottom), padded(width, left, right)])?;
        let places =
            |side: usize, (before, after): (usize, usize), extent: usize, stride: usize| {
                let Some(room) = padded(side, before, after).checked_sub(extent) else {
                    let reason =
                        format!("a kernel of {extent} with padding {padding} does not fit");
                    return Err(self.wrong(input, reason));
                };
                let whole = room / stride + 1;
                // A window that would begin in the padding behind the image is left out, as in PyTorch.
                let one_more = window.ceil_mode
                    && !room.is_multiple_of(stride)
                    && whole.saturating_mul(stride) < side.saturating_add(before);
                Ok(whole + usize::from(one_more))
            };
        Ok([
            channels,
            places(height, (top, bottom), extent.height, stride.height)?,
            places(width, (left, right), extent.width, stride.width)?,
        ])
    }

    /// Refuses a tensor that is empty or too large to exist.
    fn fits(&self, factors: &[usize]) -> Result<(), NetworkError> {
        let size = factors.iter().try_fold(1usize, |size, &factor| size.checked_mul(factor));
        if size.is_some_and(|size| size > 0 && size <= MAX_VALUES) {
            return Ok(());
        }
        Err(self.parameter(format!("sizes {factors:?} must be positive and fit in memory")))
    }

    fn wrong(&self, shape: Shape, reason: impl Into<String>) -> NetworkError {
        let (layer, op) = (self.0.name.clone(), self.0.op.kind());
        NetworkError::Shape { layer, op, shape, reason: reason.into() }
    }

    fn parameter(&self, reason: impl Into<String>) -> NetworkError {
        NetworkError::Parameter { layer: self.0.name.clone(), reason: reason.into() }
    }

    fn input_count(&self, expected: &'static str, got: usize) -> NetworkError {
        let (layer, op) = (self.0.name.clone(), self.0.op.kind());
        NetworkError::InputCount { layer, op, expected, got }
    }
}
