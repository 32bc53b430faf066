//! What a cost model needs to know about one quantizable layer.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    Axes, Bitwidth, Conv2d, LayerBits, Network, NetworkError, Shape, Sides,
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
    /// No layer with weights, but the values that such layers read, rounded: [`Op::FakeQuantize`](crate::Op::FakeQuantize).
    Activations,
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
    /// Name of the [`Activations`](LayerKind::Activations) that the layer reads, where those are rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<String>,
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
            reads: None,
        }
    }

    /// Values of this shape that are rounded: a layer without weights and computation.
    #[must_use]
    pub fn activations(name: impl Into<String>, shape: Shape) -> Self {
        let (height, width) = match shape {
            Shape::Image { height, width, .. } => (height, width),
            Shape::Vector { .. } => (1, 1),
        };
        Self {
            kind: LayerKind::Activations,
            kernel: 0.into(),
            in_height: height,
            in_width: width,
            out_height: height,
            out_width: width,
            ..Self::linear(name, shape.channels(), shape.channels())
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

/// What the layers that compute multiply, where every layer has a bitwidth, those that only round activations too.
#[derive(Clone, Debug)]
pub struct Operands {
    /// Of every layer that computes: itself, and the activations that it reads.
    places: Vec<(usize, Option<usize>)>,
}

impl Operands {
    /// Of those of `layers` that have weights and are `counted`, by their place.
    #[must_use]
    pub fn new(layers: &[LayerProfile], counted: impl Fn(usize) -> bool) -> Self {
        let named: HashMap<&str, usize> = layers
            .iter()
            .enumerate()
            .filter(|(_, layer)| layer.kind == LayerKind::Activations)
            .map(|(place, layer)| (layer.name.as_str(), place))
            .collect();
        let computing = layers
            .iter()
            .enumerate()
            .filter(|&(place, layer)| layer.kind != LayerKind::Activations && counted(place));
        let read = |layer: &LayerProfile| named.get(layer.reads.as_deref()?).copied();
        Self { places: computing.map(|(place, layer)| (place, read(layer))).collect() }
    }

    /// The layers that compute, from the same list.
    #[must_use]
    pub fn of(&self, layers: &[LayerProfile]) -> Vec<LayerProfile> {
        self.places.iter().filter_map(|&(place, _)| layers.get(place).cloned()).collect()
    }

    /// Bitwidths of their weights, and of the activations that they read: 8 where those are not rounded. A layer whose
    /// bitwidth is not there is left out.
    #[must_use]
    pub fn bits(&self, bits: &[Bitwidth]) -> Vec<LayerBits> {
        let of = |&(place, read): &(usize, Option<usize>)| {
            let read = read.map_or(Some(Bitwidth::EIGHT), |read| bits.get(read).copied());
            Some(LayerBits::new(*bits.get(place)?, read?))
        };
        self.places.iter().filter_map(of).collect()
    }
}
