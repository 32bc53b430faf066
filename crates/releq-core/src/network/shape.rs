//! Shapes between layers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Shape of one sample between two layers, without the batch dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `[channels, height, width]`.
    Image {
        /// Number of channels.
        channels: usize,
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
    /// `[features]`.
    Vector {
        /// Number of features.
        features: usize,
    },
}

impl Shape {
    /// Number of values in one sample.
    #[must_use]
    pub fn len(&self) -> usize {
        match *self {
            Self::Image { channels, height, width } => channels * height * width,
            Self::Vector { features } => features,
        }
    }

    /// Number of channels of an image, or of features of a vector.
    #[must_use]
    pub const fn channels(&self) -> usize {
        match *self {
            Self::Image { channels, .. } => channels,
            Self::Vector { features } => features,
        }
    }

    /// The same shape with another number of channels (or features).
    pub(super) const fn with_channels(self, channels: usize) -> Self {
        match self {
            Self::Image { height, width, .. } => Self::Image { channels, height, width },
            Self::Vector { .. } => Self::Vector { features: channels },
        }
    }

    /// Whether a sample of this shape holds no value. Shapes of a checked network never are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { channels, height, width } => write!(f, "[{channels}, {height}, {width}]"),
            Self::Vector { features } => write!(f, "[{features}]"),
        }
    }
}
