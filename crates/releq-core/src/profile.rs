//! What a cost model needs to know of one quantizable layer.

use serde::{Deserialize, Serialize};

/// Kind of a layer with quantizable weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    /// Two-dimensional convolution, grouped or not.
    Conv2d,
    /// Convolution with one group for every input channel.
    DepthwiseConv2d,
    /// Fully connected layer.
    Linear,
}

/// Shapes of one layer whose weights can be quantized, for a batch of one.
///
/// A [`Linear`](LayerKind::Linear) layer is a 1x1 convolution over one pixel: its features are the
/// channels, its kernel and its image sides are 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LayerProfile {
    /// Name of the layer in its network.
    pub name: String,
    /// Kind of layer.
    pub kind: LayerKind,
    /// Input channels or features.
    pub in_channels: usize,
    /// Height of the input image.
    pub in_height: usize,
    /// Width of the input image.
    pub in_width: usize,
    /// Output channels or features.
    pub out_channels: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Distance between windows, the same in both directions.
    pub stride: usize,
    /// Zeros added on each side of the image.
    pub padding: usize,
    /// Groups that the channels are split into.
    pub groups: usize,
    /// Height of the output image.
    pub out_height: usize,
    /// Width of the output image.
    pub out_width: usize,
    /// Whether the layer adds a bias to every output channel.
    pub bias: bool,
}

impl LayerProfile {
    /// Number of weights, without biases.
    #[must_use]
    pub fn weights(&self) -> u64 {
        (self.out_channels * (self.in_channels / self.groups.max(1))) as u64
            * (self.kernel * self.kernel) as u64
    }

    /// Multiply-accumulates of one inference, without biases.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.weights() * (self.out_height * self.out_width) as u64
    }

    /// Number of input activations.
    #[must_use]
    pub fn in_activations(&self) -> u64 {
        (self.in_channels * self.in_height * self.in_width) as u64
    }

    /// Number of output activations.
    #[must_use]
    pub fn out_activations(&self) -> u64 {
        (self.out_channels * self.out_height * self.out_width) as u64
    }
}
