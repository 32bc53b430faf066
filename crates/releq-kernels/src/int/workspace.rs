//! Temporary memory of the integer kernels.

use crate::{BitPlanes, ConvShape, KernelError, Threads, int::epilogue::LANES};

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
        threads: &Threads,
    ) -> Result<&[u8], KernelError> {
        let ConvShape { channels, height, width, padding, .. } = shape;
        let row = (width + 2 * padding) * channels;
        let image = row * (height + 2 * padding);
        let len = image + LANES;
        let padded = &mut self.padded;
        let missing = len.saturating_sub(padded.len());
        padded.try_reserve(missing).map_err(|_| KernelError::TooLarge { what: "activations" })?;
        padded.resize(len, 0);
        let (rows, after) = padded.split_at_mut(image);
        after.fill(code);
        let side = padding * channels;
        threads.split(rows, row, |first, rows| {
            for (y, row) in (first..).zip(rows.chunks_exact_mut(row)) {
                if y < padding || y >= padding + height {
                    row.fill(code);
                    continue;
                }
                let (left, rest) = row.split_at_mut(side);
                let (middle, right) = rest.split_at_mut(width * channels);
                left.fill(code);
                middle.copy_from_slice(&acts[(y - padding) * width * channels..][..middle.len()]);
                right.fill(code);
            }
        });
        Ok(padded)
    }
}
