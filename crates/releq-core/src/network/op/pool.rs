//! Windows of pooling layers.

use serde::{Deserialize, Serialize};

use super::{Axes, Sides};

/// Window of a pooling layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pool2d {
    /// Sides of the window.
    pub kernel: Axes,
    /// Distance between windows.
    pub stride: Axes,
    /// Padding on every side: never the maximum, and counted in an average only with
    /// [`count_include_pad`](Self::count_include_pad).
    pub padding: Sides,
    /// Whether a last window that reaches beyond the padding is kept, unless it begins there. What lies
    /// beyond is never counted in an average.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ceil_mode: bool,
    /// Whether an average counts padding, as zeros.
    #[serde(default, skip_serializing_if = "is_false")]
    pub count_include_pad: bool,
}

/// For `skip_serializing_if`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
pub(crate) const fn is_false(value: &bool) -> bool {
    !*value
}

impl Pool2d {
    /// No padding; only whole windows.
    #[must_use]
    pub fn new(kernel: impl Into<Axes>, stride: impl Into<Axes>) -> Self {
        Self {
            kernel: kernel.into(),
            stride: stride.into(),
            padding: 0.into(),
            ceil_mode: false,
            count_include_pad: false,
        }
    }

    /// Sets the padding on every side.
    #[must_use]
    pub fn padding(self, padding: impl Into<Sides>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// Sets whether a last window that reaches beyond the padding is kept.
    #[must_use]
    pub const fn ceil_mode(self, ceil_mode: bool) -> Self {
        Self { ceil_mode, ..self }
    }

    /// Sets whether an average counts padding.
    #[must_use]
    pub const fn count_include_pad(self, count_include_pad: bool) -> Self {
        Self { count_include_pad, ..self }
    }
}
