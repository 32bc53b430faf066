//! Shape inference: what leaves a layer, from what enters it.

use super::{Conv2d, NetworkError, Node, Op, Pool2d, Shape};

/// Largest number of values between two layers, or of weights in one: 2^34, more than any real one.
pub(super) const MAX_VALUES: usize = 1 << 34;

/// The shape that leaves `node`, given those that enter it.
pub(super) fn infer(node: &Node, inputs: &[Shape]) -> Result<Shape, NetworkError> {
    let layer = Layer(node);
    if node.op == Op::Add {
        return layer.sum(inputs);
    }
    let [input] = *inputs else { return Err(layer.input_count("one input", inputs.len())) };
    match node.op {
        Op::Conv2d(conv) => layer.convolution(input, conv),
        Op::Linear { out_features, .. } => layer.linear(input, out_features),
        Op::BatchNorm { epsilon, momentum } => layer.batch_norm(input, epsilon, momentum),
        Op::Dropout { probability } => layer.dropout(input, probability),
        Op::Relu | Op::Add => Ok(input),
        Op::MaxPool(pool) | Op::AvgPool(pool) => layer.pool(input, pool),
        Op::GlobalAvgPool => match input {
            Shape::Image { channels, .. } => Ok(Shape::Vector { features: channels }),
            Shape::Vector { .. } => Err(layer.wrong(input, "it needs an image")),
        },
        Op::Flatten => Ok(Shape::Vector { features: input.len() }),
        Op::PaddedShortcut { out_channels, stride } => {
            layer.padded_shortcut(input, out_channels, stride)
        }
    }
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

    fn convolution(&self, input: Shape, conv: Conv2d) -> Result<Shape, NetworkError> {
        let [channels, height, width] =
            self.window(input, conv.kernel, conv.stride, conv.padding)?;
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
        self.fits(&[conv.out_channels, channels / groups, conv.kernel, conv.kernel])?;
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
        let [channels, height, width] =
            self.window(input, pool.kernel, pool.stride, pool.padding)?;
        Ok(Shape::Image { channels, height, width })
    }

    fn padded_shortcut(
        &self,
        input: Shape,
        out_channels: usize,
        stride: usize,
    ) -> Result<Shape, NetworkError> {
        let [channels, height, width] = self.window(input, 1, stride, 0)?;
        if out_channels < channels {
            let reason = format!("it cannot leave {out_channels} channels of {channels}");
            return Err(self.wrong(input, reason));
        }
        self.fits(&[out_channels, height, width])?;
        Ok(Shape::Image { channels: out_channels, height, width })
    }

    /// Channels of an image, and the number of places of a window on it, down and across.
    fn window(
        &self,
        input: Shape,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<[usize; 3], NetworkError> {
        let Shape::Image { channels, height, width } = input else {
            return Err(self.wrong(input, "it needs an image; put it before `flatten`"));
        };
        if kernel == 0 || stride == 0 {
            return Err(self.parameter("kernel and stride must be positive"));
        }
        if padding >= kernel && padding > 0 {
            let reason = format!("padding {padding} must be below the kernel {kernel}");
            return Err(self.parameter(reason));
        }
        let places = |side: usize| {
            let padded = side.saturating_add(padding.saturating_mul(2));
            padded.checked_sub(kernel).map(|room| room / stride + 1).ok_or_else(|| {
                let reason = format!("a kernel of {kernel} with padding {padding} does not fit");
                self.wrong(input, reason)
            })
        };
        Ok([channels, places(height)?, places(width)?])
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
