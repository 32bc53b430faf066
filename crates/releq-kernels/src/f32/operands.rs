//! Shapes, temporary memory and gradients of the f32 convolutions.

use crate::{ConvShape, KernelError};

/// A square convolution over channels-last images, optionally in groups.
///
/// # Shapes
/// - weights: `[outputs][channels / groups][kernel][kernel]`, as in PyTorch
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatConvShape {
    /// The convolution without groups.
    pub image: ConvShape,
    /// Number of groups that the channels are split into.
    pub groups: usize,
}

impl FloatConvShape {
    /// Checks that the shape is possible.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape.
    pub fn check(self) -> Result<Self, KernelError> {
        self.image.check()?;
        let (channels, outputs) = (self.image.channels, self.image.outputs);
        if self.groups == 0
            || !channels.is_multiple_of(self.groups)
            || !outputs.is_multiple_of(self.groups)
        {
            let reason = "does not divide the channels and the outputs";
            return Err(KernelError::Shape { what: "groups", got: self.groups, reason });
        }
        Ok(self)
    }

    /// Number of weights.
    #[must_use]
    pub const fn weights(self) -> usize {
        self.image.outputs * self.image.depth() / self.groups
    }

    /// Number of input values of one image.
    #[must_use]
    pub const fn inputs(self) -> usize {
        self.image.height * self.image.width * self.image.channels
    }

    /// Number of output values of one image.
    #[must_use]
    pub const fn outputs(self) -> usize {
        self.image.out_height() * self.image.out_width() * self.image.outputs
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
    /// Gradients of outputs with their zero padding.
    pub(super) gradient: Vec<f32>,
    /// Gradients of packed weights.
    pub(super) sums: Vec<f32>,
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
