//! Convolution without im2col: a window is `kernel` contiguous runs of the padded image, which are read in place.

use super::{
    GROUP, Int8Weights,
    drive::{Job, Pixels, Runs, Source, run},
};
use crate::{
    ConvShape, Isa, KernelError, Threads, Workspace,
    int::{epilogue::Output, weight_rows::WeightRows},
};

/// A convolution with 8-bit weights.
#[derive(Clone, Debug)]
pub struct Int8Conv {
    shape: ConvShape,
    weights: Int8Weights,
    padding_code: u8,
}

impl Int8Conv {
    /// Packs `[outputs][kernel][kernel][channels]` codes of `bits` bits.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, a wrong length, a code outside its bitwidth, a bitwidth outside 1 to 8,
    /// sums that could overflow, or an instruction set that this processor lacks.
    pub fn pack(codes: &[i8], shape: ConvShape, bits: u8, isa: Isa) -> Result<Self, KernelError> {
        Self::pack_rows(&mut WeightRows::of_conv(codes, shape, bits)?, shape, isa)
    }

    /// As [`pack`](Self::pack), of a shape that was checked.
    pub(crate) fn pack_rows<E: From<KernelError>>(
        rows: &mut WeightRows<'_, E>,
        shape: ConvShape,
        isa: Isa,
    ) -> Result<Self, E> {
        let weights = Int8Weights::pack_runs(rows, shape.outputs, shape.kernel, isa)?;
        Ok(Self { shape, weights, padding_code: 0 })
    }

    /// Sets the code that images are padded with: the zero point of the activations.
    #[must_use]
    pub fn with_padding_code(self, padding_code: u8) -> Self {
        Self { padding_code, ..self }
    }

    /// The shape that the weights were packed for.
    #[must_use]
    pub const fn shape(&self) -> ConvShape {
        self.shape
    }

    /// The packed weights.
    #[must_use]
    pub const fn weights(&self) -> &Int8Weights {
        &self.weights
    }

    /// Convolves activations `[height][width][channels]` into `[out_height][out_width][outputs]`, written in
    /// the form that `out` asks for. The sums equal [`reference::conv2d`](crate::reference::conv2d).
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length.
    pub fn run<'a>(
        &self,
        acts: &[u8],
        out: impl Into<Output<'a>>,
        workspace: &mut Workspace,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let Self { shape, padding_code, .. } = *self;
        conv(&self.weights, (shape, padding_code), acts, out.into(), workspace, threads)
    }
}

/// Convolves with weights that were packed for the shape, and pads with the code.
pub(crate) fn conv<S: Source>(
    weights: &S,
    (shape, padding_code): (ConvShape, u8),
    acts: &[u8],
    out: Output<'_>,
    workspace: &mut Workspace,
    threads: &Threads,
) -> Result<(), KernelError> {
    shape.check_lengths(shape.outputs * shape.depth(), acts.len(), out.len())?;
    out.check(shape.outputs)?;
    let ConvShape { channels, height, width, kernel, padding, .. } = shape;
    // A stride larger than the image gives a single output, whatever the stride. Clamping it keeps offsets from
    // overflowing.
    let stride = shape.stride.min(height.max(width) + 2 * padding);
    let groups = (kernel * channels).div_ceil(GROUP);
    let row = (width + 2 * padding) * channels;
    let pixels =
        Pixels { columns: shape.out_width(), step: stride * channels, row_step: stride * row };
    let runs = Runs { count: kernel, groups, stride: row };
    // Without padding, the image itself can be read, unless the last group of a run could reach past its end.
    let in_place = padding == 0 && (kernel * channels).is_multiple_of(GROUP);
    let acts = if in_place { acts } else { workspace.pad(acts, shape, padding_code, threads)? };
    run(&Job { weights, acts, pixels, runs }, out, threads);
    Ok(())
}
