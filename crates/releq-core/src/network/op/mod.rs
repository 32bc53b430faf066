//! What a layer computes.

mod activation;
mod conv;
mod geometry;
mod pool;

pub use activation::Activation;
pub use conv::Conv2d;
pub(crate) use conv::{is_no_dilation, no_dilation};
pub use geometry::{Axes, Sides};
pub use pool::Pool2d;
pub(crate) use pool::is_false;
use serde::{Deserialize, Serialize};

/// What a layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Op {
    /// Convolution over an image.
    Conv2d(Conv2d),
    /// Fully connected layer over a vector.
    Linear {
        /// Number of output features.
        out_features: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// Normalization of every channel (or feature) over the batch.
    BatchNorm {
        /// Added to the variance.
        epsilon: f64,
        /// Weight of the newest batch in the running statistics.
        momentum: f64,
    },
    /// A factor and a summand for every channel (or feature), without statistics: what remains of a batch norm
    /// whose statistics were made part of it.
    ScaleShift,
    /// `max(x, 0)`.
    Relu,
    /// Another function of every value.
    Activation(Activation),
    /// Largest value of every window.
    MaxPool(Pool2d),
    /// Mean value of every window.
    AvgPool(Pool2d),
    /// Mean of every channel; gives a vector.
    GlobalAvgPool,
    /// Image to vector, channel by channel.
    Flatten,
    /// Zeroes values at random while training.
    Dropout {
        /// Share of values that are zeroed.
        probability: f64,
    },
    /// Sum of its inputs, as in a residual block.
    Add,
    /// Product of its two inputs: of one shape, or an image and a vector with a factor for every channel, as in
    /// squeeze and excitation (Hu et al. 2017, arXiv 1709.01507).
    Mul,
    /// Channels (or features) of its inputs, one input after the other.
    Concat,
    /// Some of the channels (or features).
    ChannelSlice {
        /// The first of them.
        start: usize,
        /// Their number.
        channels: usize,
    },
    /// Channels (or features) of the groups in turn: the first of every group, then the second of every group,
    /// and so on (Zhang et al. 2017, arXiv 1707.01083).
    ChannelShuffle {
        /// Number of groups that the channels are in.
        groups: usize,
    },
    /// Every value divided by `(bias + alpha / size * s) ^ beta`, where `s` is the sum of the squares of `size`
    /// neighbouring channels of the same pixel, `(size - 1) / 2` (rounded down) of them before it
    /// (Krizhevsky et al. 2012, section 3.3, with `alpha` divided as in PyTorch and ONNX).
    LocalResponseNorm {
        /// Number of channels.
        size: usize,
        /// Weight of their mean square.
        alpha: f32,
        /// Exponent.
        beta: f32,
        /// What is added.
        bias: f32,
    },
    /// Every value rounded to the nearest of the levels that its bitwidth has over its range, and passed on as it is without
    /// a bitwidth. The gradient passes within the range ([`Network::with_fake_quantize`](super::Network::with_fake_quantize)).
    FakeQuantize,
    /// Shortcut without parameters: every `stride`-th pixel of every `stride`-th row, and channels of
    /// zeros around the ones that came, half of them (rounded down) before.
    ///
    /// # Source
    /// Option A of He et al. 2015 (arXiv 1512.03385), section 4.1; the halves before and after are
    /// those of the ResNets for CIFAR-10 in akamaster/pytorch_resnet_cifar10.
    PaddedShortcut {
        /// Channels that leave it, not fewer than come.
        out_channels: usize,
        /// Distance between the pixels that are kept.
        stride: usize,
    },
}

impl Op {
    /// Word for this operation in errors and tables.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Conv2d(_) => "conv2d",
            Self::Linear { .. } => "linear",
            Self::BatchNorm { .. } => "batch_norm",
            Self::ScaleShift => "scale_shift",
            Self::Relu => "relu",
            Self::Activation(activation) => activation.name(),
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Flatten => "flatten",
            Self::Dropout { .. } => "dropout",
            Self::Add => "add",
            Self::Mul => "mul",
            Self::Concat => "concat",
            Self::ChannelSlice { .. } => "channel_slice",
            Self::ChannelShuffle { .. } => "channel_shuffle",
            Self::LocalResponseNorm { .. } => "local_response_norm",
            Self::FakeQuantize => "fake_quantize",
            Self::PaddedShortcut { .. } => "padded_shortcut",
        }
    }

    /// Whether a bitwidth acts on the layer: on its weights, or on the values that pass.
    #[must_use]
    pub const fn is_quantizable(&self) -> bool {
        self.has_weights() || matches!(self, Self::FakeQuantize)
    }

    /// Whether the layer gives values that came, and zeros.
    #[must_use]
    pub const fn moves_values(&self) -> bool {
        matches!(
            self,
            Self::MaxPool(_)
                | Self::Flatten
                | Self::Dropout { .. }
                | Self::ChannelSlice { .. }
                | Self::ChannelShuffle { .. }
                | Self::PaddedShortcut { .. }
        )
    }

    /// Whether the layer has weights that a quantizer can act on.
    #[must_use]
    pub const fn has_weights(&self) -> bool {
        matches!(self, Self::Conv2d(_) | Self::Linear { .. })
    }
}
