//! Functions of one value.

use serde::{Deserialize, Serialize};

/// A function that is applied to every value on its own; the one used most, ReLU, is
/// [`Op::Relu`](super::Op::Relu).
///
/// Names and formulas are those of PyTorch, except that the constants of [`HardSigmoid`](Self::HardSigmoid) can
/// be chosen, as in ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `min(max(x, min), max)`; ReLU6 has 0 and 6.
    Clip {
        /// Smallest value.
        min: f32,
        /// Largest value.
        max: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `min(max(alpha * x + beta, 0), 1)`. PyTorch has 1/6 and 1/2, ONNX 0.2 and 1/2 where nothing is said.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// `x / (1 + exp(-x))`, also known as swish.
    Silu,
    /// `x * min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// `x` where that is positive, `slope * x` elsewhere.
    LeakyRelu {
        /// Slope below 0.
        slope: f32,
    },
    /// Hyperbolic tangent.
    Tanh,
    /// `x` times the standard normal distribution function of `x`, without approximation.
    Gelu,
}

impl Activation {
    /// ReLU that ends at 6.
    pub const RELU6: Self = Self::Clip { min: 0.0, max: 6.0 };

    /// Word for this function in errors and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clip { .. } => "clip",
            Self::Sigmoid => "sigmoid",
            Self::HardSigmoid { .. } => "hard_sigmoid",
            Self::Silu => "silu",
            Self::HardSwish => "hard_swish",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
        }
    }
}
