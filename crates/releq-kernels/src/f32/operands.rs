//! Shapes, memory and results that the f32 convolutions share.

use crate::{ConvShape, KernelError};

/// A square convolution over channels-last images, perhaps in groups.
///
/// # Shapes
/// - weights: `[outputs][channels / groups][kernel][kernel]`, as PyTorch has them
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatConvShape {
    /// Everything but the groups.
    pub image: ConvShape,
    /// Groups that the channels are split into.
    pub groups: usize,
}

impl FloatConvShape {
    /// # Errors
    /// [`KernelError`] for a shape that cannot be.
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

    /// Values of one image as it enters.
    #[must_use]
    pub const fn inputs(self) -> usize {
        self.image.height * self.image.width * self.image.channels
    }

    /// Values of one image as it leaves.
    #[must_use]
    pub const fn outputs(self) -> usize {
        self.image.out_height() * self.image.out_width() * self.image.outputs
    }

    /// # Panics
    /// If buffers are no whole number of images, or not of as many.
    pub(super) fn batch(self, x: &[f32], out: &[f32]) -> usize {
        let batch = x.len() / self.inputs();
        assert_eq!(x.len(), batch * self.inputs(), "whole images");
        assert_eq!(out.len(), batch * self.outputs(), "as many results as images");
        batch
    }
}

/// Memory that kernels work in; one serves all layers of a network in turn, and stays in the cache.
#[derive(Clone, Debug, Default)]
pub struct FloatScratch {
    /// Images with their margin of zeros.
    pub(super) x: Vec<f32>,
    /// Gradients with theirs.
    pub(super) gradient: Vec<f32>,
    /// Gradients of packed weights.
    pub(super) sums: Vec<f32>,
}

/// Where the gradient of a layer's input goes.
#[derive(Debug)]
pub struct Upstream<'a> {
    /// `[images][height][width][channels]`.
    pub gradient: &'a mut [f32],
    /// Adds to what is there, instead of replacing it.
    pub accumulate: bool,
}

/// What a backward pass writes.
#[derive(Debug)]
pub struct ConvGradients<'a> {
    /// As the weights; replaced.
    pub weights: &'a mut [f32],
    /// `[outputs]`; replaced.
    pub bias: Option<&'a mut [f32]>,
    /// Left out where nobody asks for it.
    pub input: Option<Upstream<'a>>,
}
