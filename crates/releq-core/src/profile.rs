//! What a cost model needs to know about one quantizable layer.

use serde::{Deserialize, Serialize};

use crate::{
    Axes, Conv2d, Network, NetworkError, Sides,
    network::{is_no_dilation, no_dilation},
};

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
///
/// [`Network::profiles`] derives the profiles of a network; [`conv2d`](Self::conv2d) and
/// [`linear`](Self::linear) make one for a layer on its own. All fields can be changed afterwards.
///
/// ```
/// use releq_core::{Conv2d, LayerProfile};
///
/// let layer = LayerProfile::conv2d("conv", [3, 32, 32], Conv2d::new(16, 3).padding(1))?;
/// assert_eq!(layer.macs(), 16 * 3 * 3 * 3 * 32 * 32);
/// assert_eq!(LayerProfile::linear("fc", 800, 500).weights(), 400_000);
/// # Ok::<(), releq_core::NetworkError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
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
    /// Sides of the kernel.
    pub kernel: Axes,
    /// Distance between windows.
    pub stride: Axes,
    /// Zeros added on each side of the image.
    pub padding: Sides,
    /// Distance between the pixels of a window.
    #[serde(default = "no_dilation", skip_serializing_if = "is_no_dilation")]
    pub dilation: Axes,
    /// Groups that the channels are split into.
    pub groups: usize,
    /// Height of the output image.
    pub out_height: usize,
    /// Width of the output image.
    pub out_width: usize,
    /// Whether the layer adds a bias to every output channel.
    pub bias: bool,
    /// Whether a batch norm, or a factor and a summand for every channel, reads the layer's output. Folded into the layer for inference, it becomes a bias
    /// for every output channel.
    #[serde(default)]
    pub batch_norm: bool,
}

impl LayerProfile {
    /// A convolution over an image of `[channels, height, width]`.
    ///
    /// # Errors
    /// [`NetworkError`] if a network with this layer would be invalid.
    pub fn conv2d(
        name: impl Into<String>,
        input: [usize; 3],
        conv: Conv2d,
    ) -> Result<Self, NetworkError> {
        let name = name.into();
        let network = Network::builder(&name, input).conv(&name, conv).build()?;
        let profile = network.profiles().pop();
        profile.ok_or(NetworkError::NothingToQuantize { network: name })
    }

    /// A fully connected layer without a bias and batch norm.
    #[must_use]
    pub fn linear(name: impl Into<String>, in_features: usize, out_features: usize) -> Self {
        Self {
            name: name.into(),
            kind: LayerKind::Linear,
            in_channels: in_features,
            in_height: 1,
            in_width: 1,
            out_channels: out_features,
            kernel: 1.into(),
            stride: 1.into(),
            padding: 0.into(),
            dilation: no_dilation(),
            groups: 1,
            out_height: 1,
            out_width: 1,
            bias: false,
            batch_norm: false,
        }
    }

    /// Number of weights, without biases.
    #[must_use]
    pub fn weights(&self) -> u64 {
        (self.out_channels * (self.in_channels / self.groups.max(1))) as u64
            * self.kernel.area() as u64
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
