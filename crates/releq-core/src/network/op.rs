//! What a layer computes.

use serde::{Deserialize, Serialize};

/// Square two-dimensional convolution; the input channels come from shape inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv2d {
    /// Number of output channels.
    pub out_channels: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Distance between windows.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Groups that the channels are split into; the number of input channels makes it depthwise.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Conv2d {
    /// Stride 1, no padding, one group, with bias.
    #[must_use]
    pub const fn new(out_channels: usize, kernel: usize) -> Self {
        Self { out_channels, kernel, stride: 1, padding: 0, groups: 1, bias: true }
    }

    /// Sets the distance between windows.
    #[must_use]
    pub const fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Sets the zeros added on every side.
    #[must_use]
    pub const fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Sets the number of groups.
    #[must_use]
    pub const fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Leaves the bias out, as before a batch norm.
    #[must_use]
    pub const fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }
}

/// Window of a pooling layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool2d {
    /// Side of the window.
    pub kernel: usize,
    /// Distance between windows.
    pub stride: usize,
    /// Padding on every side: never the maximum, and not counted in an average.
    pub padding: usize,
}

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
    /// `max(x, 0)`.
    Relu,
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
            Self::Relu => "relu",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Flatten => "flatten",
            Self::Dropout { .. } => "dropout",
            Self::Add => "add",
            Self::PaddedShortcut { .. } => "padded_shortcut",
        }
    }

    /// Whether the layer has weights that a quantizer can act on.
    #[must_use]
    pub const fn is_quantizable(&self) -> bool {
        matches!(self, Self::Conv2d(_) | Self::Linear { .. })
    }
}
