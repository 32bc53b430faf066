//! Convolution.

use serde::{Deserialize, Serialize};

use super::{Axes, Sides};

/// Two-dimensional convolution; the input channels come from shape inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Conv2d {
    /// Number of output channels.
    pub out_channels: usize,
    /// Sides of the kernel.
    pub kernel: Axes,
    /// Distance between windows.
    pub stride: Axes,
    /// Zeros added on every side.
    pub padding: Sides,
    /// Distance between the pixels of a window; 1 is none left out.
    #[serde(default = "no_dilation", skip_serializing_if = "is_no_dilation")]
    pub dilation: Axes,
    /// Groups that the channels are split into; the number of input channels makes it depthwise.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

/// Windows without gaps.
pub(crate) const fn no_dilation() -> Axes {
    Axes::new(1, 1)
}

/// For `skip_serializing_if`.
pub(crate) fn is_no_dilation(dilation: &Axes) -> bool {
    *dilation == no_dilation()
}

impl Conv2d {
    /// Stride 1, no padding, one group, with bias.
    #[must_use]
    pub fn new(out_channels: usize, kernel: impl Into<Axes>) -> Self {
        Self {
            out_channels,
            kernel: kernel.into(),
            stride: 1.into(),
            padding: 0.into(),
            dilation: no_dilation(),
            groups: 1,
            bias: true,
        }
    }

    /// Sets the distance between windows.
    #[must_use]
    pub fn stride(self, stride: impl Into<Axes>) -> Self {
        Self { stride: stride.into(), ..self }
    }

    /// Sets the zeros added on every side.
    #[must_use]
    pub fn padding(self, padding: impl Into<Sides>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// Sets the distance between the pixels of a window.
    #[must_use]
    pub fn dilation(self, dilation: impl Into<Axes>) -> Self {
        Self { dilation: dilation.into(), ..self }
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
