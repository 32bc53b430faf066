//! Temporary memory of the integer kernels.

use crate::{BitPlanes, ConvShape, KernelError, int::epilogue::LANES};

/// Temporary memory that calls of all layers can share. It only allocates when it has to grow.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// An image with its padding.
    padded: Vec<u8>,
    /// One input row of codes with its padding.
    pub(crate) row: Vec<u8>,
    /// An image of bit planes.
    pub(crate) planes: Vec<u32>,
    /// A matrix of bit planes.
    pub(crate) bit_planes: BitPlanes,
}

impl Workspace {
    /// A copy of the image with a margin of `code`, followed by enough of them to read 16 bytes from any pixel.
    pub(crate) fn pad(
        &mut self,
        acts: &[u8],
        shape: ConvShape,
        code: u8,
    ) -> Result<&[u8], KernelError> {
        let ConvShape { channels, height, width, padding, .. } = shape;
        let row = (width + 2 * padding) * channels;
        let len = row * (height + 2 * padding) + LANES;
        let padded = &mut self.padded;
        let missing = len.saturating_sub(padded.len());
        padded.try_reserve(missing).map_err(|_| KernelError::TooLarge { what: "activations" })?;
        padded.resize(len, 0);
        // The right padding of a row and the left padding of the next are adjacent, so that one fill writes
        // both. `at` is where the pixels of the next row go.
        let (mut at, side) = (padding * (row + channels), 2 * padding * channels);
        padded[..at].fill(code);
        for acts in acts.chunks_exact(width * channels) {
            padded[at..][..acts.len()].copy_from_slice(acts);
            at += acts.len();
            padded[at..][..side].fill(code);
            at += side;
        }
        padded[at..].fill(code);
        Ok(padded)
    }
}
