//! Max and sum pooling of codes.

use crate::{
    Isa, KernelError, PoolShape, Threads,
    cpu::Cpu,
    int::{
        epilogue::{AsCodes, AsSums, AsValues, Block, Finish, LANES, Output},
        scratch::SCRATCH,
    },
    vectorise::{Loops, vectorise},
};

/// Channels whose largest codes stay in registers.
const BLOCK: usize = 64;

impl PoolShape {
    fn check_lengths(self, acts: usize, out: usize) -> Result<(), KernelError> {
        self.check()?;
        for (what, expected, got) in [
            ("activations", self.height * self.width * self.channels, acts),
            ("out", self.out_height() * self.out_width() * self.channels, out),
        ] {
            if got != expected {
                return Err(KernelError::Length { what, expected, got });
            }
        }
        Ok(())
    }

    /// Rows (or columns) of the image inside window `index`, where the image has `len` of them.
    #[inline(always)]
    fn window(self, index: usize, len: usize) -> std::ops::Range<usize> {
        let start = index * self.stride;
        start.saturating_sub(self.padding)..(start + self.kernel - self.padding).min(len)
    }
}

/// The largest code of every window, `[out_height][out_width][channels]`.
///
/// # Errors
/// [`KernelError`] for an invalid shape, a wrong length, or an instruction set that this processor lacks.
pub fn max_pool(
    shape: PoolShape,
    acts: &[u8],
    out: &mut [u8],
    isa: Isa,
    threads: &Threads,
) -> Result<(), KernelError> {
    let cpu = Cpu::new(isa)?;
    shape.check_lengths(acts.len(), out.len())?;
    threads.split(out, shape.channels, |first, out| {
        vectorise(cpu, Max { shape, acts, first, out });
    });
    Ok(())
}

/// The sum of every window, `[out_height][out_width][channels]`, written in the form that `out` asks for: an
/// average, if the scales are divided by the number of pixels in a window. The padding must be 0, so that all
/// windows have the same number of pixels.
///
/// # Errors
/// [`KernelError`] for an invalid shape, a wrong length, or an instruction set that this processor lacks.
pub fn sum_pool<'a>(
    shape: PoolShape,
    acts: &[u8],
    out: impl Into<Output<'a>>,
    isa: Isa,
    threads: &Threads,
) -> Result<(), KernelError> {
    let out = out.into();
    let cpu = Cpu::new(isa)?;
    if shape.padding > 0 {
        let reason = "must be 0 in a sum, or windows would have fewer pixels";
        return Err(KernelError::Shape { what: "padding", got: shape.padding, reason });
    }
    shape.check_lengths(acts.len(), out.len())?;
    // The sum of 2^23 codes, of at most 255 each, still fits in 32 bits.
    if shape.kernel.checked_mul(shape.kernel).is_none_or(|count| count > 1 << 23) {
        return Err(KernelError::TooLarge { what: "kernel" });
    }
    out.check(shape.channels)?;
    let windows = Windows { shape, acts, cpu };
    match out {
        Output::Sums(out) => windows.sum(&AsSums, out, threads),
        Output::Codes { epilogue, bits, out } => {
            windows.sum(&AsCodes::new(epilogue, bits), out, threads);
        }
        Output::Values { epilogue, out } => windows.sum(&AsValues(epilogue), out, threads),
    }
    Ok(())
}

struct Max<'a> {
    shape: PoolShape,
    acts: &'a [u8],
    /// The first pixel of `out`.
    first: usize,
    out: &'a mut [u8],
}

impl Loops for Max<'_> {
    #[inline(always)]
    fn run(self) {
        let PoolShape { channels, height, width, .. } = self.shape;
        let columns = self.shape.out_width();
        for (pixel, out) in self.out.chunks_exact_mut(channels).enumerate() {
            let pixel = self.first + pixel;
            let rows = self.shape.window(pixel / columns, height);
            let places = self.shape.window(pixel % columns, width);
            let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
            let first = blocks.len() * BLOCK;
            for (block, out) in blocks.iter_mut().enumerate() {
                // In registers, until all of the window was seen.
                let mut largest = [0; BLOCK];
                for y in rows.clone() {
                    for x in places.clone() {
                        let acts =
                            &self.acts[(y * width + x) * channels + block * BLOCK..][..BLOCK];
                        for (largest, &act) in largest.iter_mut().zip(acts) {
                            *largest = act.max(*largest);
                        }
                    }
                }
                *out = largest;
            }
            if rest.is_empty() {
                continue;
            }
            rest.fill(0);
            for (y, x) in rows.flat_map(|y| places.clone().map(move |x| (y, x))) {
                let acts = &self.acts[(y * width + x) * channels + first..][..rest.len()];
                for (out, &act) in rest.iter_mut().zip(acts) {
                    *out = act.max(*out);
                }
            }
        }
    }
}

/// Windows that are summed.
struct Windows<'a> {
    shape: PoolShape,
    acts: &'a [u8],
    cpu: Cpu,
}

impl Windows<'_> {
    fn sum<F: Finish>(&self, finish: &F, out: &mut [F::Out], threads: &Threads) {
        let Self { shape, acts, cpu } = *self;
        let channels = shape.channels;
        threads.split(out, channels, |first, out| {
            let mut kept = SCRATCH.take();
            let sums = &mut kept.sums;
            sums.resize(channels.div_ceil(LANES), [0; LANES]);
            for (pixel, out) in out.chunks_exact_mut(channels).enumerate() {
                vectorise(cpu, Sum { shape, acts, pixel: first + pixel, sums: &mut *sums });
                finish
                    .finish(Block { cpu, sums: &*sums, first: 0, channels, pitch: channels }, out);
            }
            SCRATCH.set(kept);
        });
    }
}

/// The sums of one window.
struct Sum<'a> {
    shape: PoolShape,
    acts: &'a [u8],
    pixel: usize,
    sums: &'a mut [[i32; LANES]],
}

impl Loops for Sum<'_> {
    #[inline(always)]
    fn run(self) {
        let PoolShape { channels, height, width, .. } = self.shape;
        let columns = self.shape.out_width();
        let sums = &mut self.sums.as_flattened_mut()[..channels];
        sums.fill(0);
        for y in self.shape.window(self.pixel / columns, height) {
            for x in self.shape.window(self.pixel % columns, width) {
                let acts = &self.acts[(y * width + x) * channels..][..channels];
                for (sum, &act) in sums.iter_mut().zip(acts) {
                    *sum += i32::from(act);
                }
            }
        }
    }
}
