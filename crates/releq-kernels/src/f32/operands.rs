//! Shapes, temporary memory and gradients of the f32 convolutions.

use super::axis::FloatAxis;
use crate::KernelError;

/// A convolution over channels-last images, optionally in groups.
///
/// # Shapes
/// - weights: `[outputs][channels / groups][kernel rows][kernel columns]`, as in PyTorch
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatConvShape {
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub outputs: usize,
    /// Number of groups that the channels are split into.
    pub groups: usize,
    /// Rows of images and windows.
    pub rows: FloatAxis,
    /// Columns of images and windows.
    pub columns: FloatAxis,
}

impl FloatConvShape {
    /// Checks that the shape is possible.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape.
    pub fn check(self) -> Result<Self, KernelError> {
        let Self { channels, outputs, groups, rows, columns } = self;
        for (what, got) in [("channels", channels), ("outputs", outputs)] {
            if got == 0 {
                return Err(KernelError::Shape { what, got, reason: "must be positive" });
            }
        }
        rows.check("height")?;
        columns.check("width")?;
        if groups == 0 || !channels.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
            let reason = "does not divide the channels and the outputs";
            return Err(KernelError::Shape { what: "groups", got: groups, reason });
        }
        let fits = |what, factors: &[usize]| {
            let product = factors.iter().try_fold(1_usize, |a, &b| a.checked_mul(b));
            let product = product.filter(|&p| p <= isize::MAX as usize / 8);
            product.ok_or(KernelError::TooLarge { what }).map(drop)
        };
        fits("activations", &[rows.padded(), columns.padded(), channels])?;
        fits("weights", &[outputs, rows.kernel, columns.kernel, channels])?;
        fits("out", &[rows.windows(), columns.windows(), outputs])?;
        Ok(self)
    }

    /// Taps of a window.
    #[must_use]
    pub const fn area(self) -> usize {
        self.rows.kernel * self.columns.kernel
    }

    /// Number of weights.
    #[must_use]
    pub const fn weights(self) -> usize {
        self.outputs * self.area() * (self.channels / self.groups)
    }

    /// Number of input values of one image.
    #[must_use]
    pub const fn inputs(self) -> usize {
        self.rows.size * self.columns.size * self.channels
    }

    /// Number of output values of one image.
    #[must_use]
    pub const fn outputs(self) -> usize {
        self.rows.windows() * self.columns.windows() * self.outputs
    }

    /// Number of images in a batch.
    ///
    /// # Panics
    /// If `x` is not a whole number of images, or `out` is not the same number.
    pub(super) fn batch(self, x: &[f32], out: &[f32]) -> usize {
        let batch = x.len() / self.inputs();
        assert_eq!(x.len(), batch * self.inputs(), "whole images");
        assert_eq!(out.len(), batch * self.outputs(), "as many results as images");
        batch
    }
}

/// Temporary memory. All layers of a network should share one, so that it stays in the cache.
#[derive(Clone, Debug, Default)]
pub struct FloatScratch {
    /// Images with their zero padding.
    pub(super) x: Vec<f32>,
    /// Operands in bf16: images or gradients, and pairs of pixels of both.
    pub(super) rounded: Vec<u16>,
    pub(super) x_pairs: Vec<u16>,
    pub(super) gradient_pairs: Vec<u16>,
    /// Gradients of outputs with their zero padding.
    pub(super) gradient: Vec<f32>,
    /// Gradients of packed weights.
    pub(super) sums: Vec<f32>,
    /// Shares of windows in the gradients of inputs.
    pub(super) product: Vec<f32>,
}

/// Destination of the gradient of a layer's input.
#[derive(Debug)]
pub struct Upstream<'a> {
    /// `[images][height][width][channels]`.
    pub gradient: &'a mut [f32],
    /// Whether to add to `gradient` instead of replacing it.
    pub accumulate: bool,
}

/// The gradients that a backward pass computes.
#[derive(Debug)]
pub struct ConvGradients<'a> {
    /// Gradient of the weights, in the same layout; replaced.
    pub weights: &'a mut [f32],
    /// Gradient of the bias, `[outputs]`; replaced.
    pub bias: Option<&'a mut [f32]>,
    /// Gradient of the input; `None` to skip computing it.
    pub input: Option<Upstream<'a>>,
}
