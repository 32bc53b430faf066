//! Writing a network down, layer by layer.

use super::{Activation, Axes, Conv2d, Network, NetworkError, Node, Op, Pool2d};

/// Lists layers one after the other; [`from`](Self::from) and [`add`](Self::add) make it a graph.
#[derive(Clone, Debug)]
pub struct NetworkBuilder {
    name: String,
    input: [usize; 3],
    nodes: Vec<Node>,
    softmax: bool,
}

impl NetworkBuilder {
    pub(super) const fn new(name: String, input: [usize; 3]) -> Self {
        Self { name, input, nodes: Vec::new(), softmax: false }
    }

    /// Appends any layer; empty `inputs` mean the layer before it.
    #[must_use]
    pub fn layer(mut self, name: impl Into<String>, op: Op, inputs: &[&str]) -> Self {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.nodes.push(Node { name: name.into(), op, inputs });
        self
    }

    /// Makes the layer appended last read the layer named `input` instead of the one before it.
    #[must_use]
    pub fn from(mut self, input: impl Into<String>) -> Self {
        if let Some(node) = self.nodes.last_mut() {
            node.inputs = vec![input.into()];
        }
        self
    }

    /// Convolution with stride 1, no padding and a bias; for others see [`conv`](Self::conv).
    #[must_use]
    pub fn conv2d(
        self,
        name: impl Into<String>,
        out_channels: usize,
        kernel: impl Into<Axes>,
    ) -> Self {
        self.conv(name, Conv2d::new(out_channels, kernel))
    }

    /// Convolution.
    #[must_use]
    pub fn conv(self, name: impl Into<String>, conv: Conv2d) -> Self {
        self.layer(name, Op::Conv2d(conv), &[])
    }

    /// Fully connected layer with a bias.
    #[must_use]
    pub fn linear(self, name: impl Into<String>, out_features: usize) -> Self {
        self.layer(name, Op::Linear { out_features, bias: true }, &[])
    }

    /// Batch normalization with PyTorch's defaults: epsilon 1e-5, momentum 0.1.
    #[must_use]
    pub fn batch_norm(self, name: impl Into<String>) -> Self {
        self.layer(name, Op::BatchNorm { epsilon: 1e-5, momentum: 0.1 }, &[])
    }

    /// `max(x, 0)`.
    #[must_use]
    pub fn relu(self, name: impl Into<String>) -> Self {
        self.layer(name, Op::Relu, &[])
    }

    /// A function of every value.
    #[must_use]
    pub fn activation(self, name: impl Into<String>, activation: Activation) -> Self {
        self.layer(name, Op::Activation(activation), &[])
    }

    /// A factor and a summand for every channel.
    #[must_use]
    pub fn scale_shift(self, name: impl Into<String>) -> Self {
        self.layer(name, Op::ScaleShift, &[])
    }

    /// Max pooling without padding; for others see [`Pool2d`].
    #[must_use]
    pub fn max_pool(
        self,
        name: impl Into<String>,
        kernel: impl Into<Axes>,
        stride: impl Into<Axes>,
    ) -> Self {
        self.layer(name, Op::MaxPool(Pool2d::new(kernel, stride)), &[])
    }

    /// Average pooling without padding; for others see [`Pool2d`].
    #[must_use]
    pub fn avg_pool(
        self,
        name: impl Into<String>,
        kernel: impl Into<Axes>,
        stride: impl Into<Axes>,
    ) -> Self {
        self.layer(name, Op::AvgPool(Pool2d::new(kernel, stride)), &[])
    }

    /// Mean of every channel.
    #[must_use]
    pub fn global_avg_pool(self, name: impl Into<String>) -> Self {
        self.layer(name, Op::GlobalAvgPool, &[])
    }

    /// Image to vector.
    #[must_use]
    pub fn flatten(self, name: impl Into<String>) -> Self {
        self.layer(name, Op::Flatten, &[])
    }

    /// Dropout while training.
    #[must_use]
    pub fn dropout(self, name: impl Into<String>, probability: f64) -> Self {
        self.layer(name, Op::Dropout { probability }, &[])
    }

    /// Sum of the named layers.
    #[must_use]
    pub fn add(self, name: impl Into<String>, inputs: &[&str]) -> Self {
        self.layer(name, Op::Add, inputs)
    }

    /// Product of two named layers, see [`Op::Mul`].
    #[must_use]
    pub fn mul(self, name: impl Into<String>, inputs: [&str; 2]) -> Self {
        self.layer(name, Op::Mul, &inputs)
    }

    /// Channels of the named layers, one after the other.
    #[must_use]
    pub fn concat(self, name: impl Into<String>, inputs: &[&str]) -> Self {
        self.layer(name, Op::Concat, inputs)
    }

    /// Shortcut without parameters, see [`Op::PaddedShortcut`].
    #[must_use]
    pub fn padded_shortcut(
        self,
        name: impl Into<String>,
        out_channels: usize,
        stride: usize,
    ) -> Self {
        self.layer(name, Op::PaddedShortcut { out_channels, stride }, &[])
    }

    /// Says that users of the network see the softmax of what the last layer gives, see
    /// [`Network::has_softmax`].
    #[must_use]
    pub const fn softmax(mut self) -> Self {
        self.softmax = true;
        self
    }

    /// Checks everything and infers the shapes.
    ///
    /// # Errors
    /// [`NetworkError`], naming the first layer that does not fit.
    pub fn build(self) -> Result<Network, NetworkError> {
        let network = Network::new(self.name, self.input, self.nodes)?;
        Ok(network.with_softmax(self.softmax))
    }
}
