//! Depthwise convolution: each channel is convolved with its own kernel.

use std::num::NonZeroUsize;

use crate::{
    BitPair, ConvShape, Isa, KernelError, Workspace,
    cpu::Cpu,
    int::{
        epilogue::{AsCodes, AsSums, AsValues, Block, Finish, LANES, Output},
        scratch::SCRATCH,
    },
    threads::{Grid, Part, share},
    vectorise::{Loops, vectorise},
};

/// Pixels whose sums are kept before the epilogue runs over them.
const PIXELS: usize = 32;

/// A depthwise convolution with weights of 1 to 8 bits.
///
/// Each sum has few products, so moving activations dominates the time and fewer bits would save nothing. One kernel
/// therefore serves all bitwidths: plain loops, compiled for every instruction set.
#[derive(Clone, Debug)]
pub struct DepthwiseConv {
    cpu: Cpu,
    shape: ConvShape,
    bits: u8,
    /// `[kernel][kernel][channels / 16, rounded up]`, padded with zeros.
    weights: Vec<[i16; LANES]>,
    padding_code: u8,
}

impl DepthwiseConv {
    /// Packs `[channels][kernel][kernel]` codes of `bits` bits. The shape must have as many outputs as channels.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, a wrong length, a code outside its bitwidth, a bitwidth outside 1 to 8,
    /// or an instruction set that this processor lacks.
    pub fn pack(codes: &[i8], shape: ConvShape, bits: u8, isa: Isa) -> Result<Self, KernelError> {
        let cpu = Cpu::new(isa)?;
        check(shape)?;
        let taps = shape.kernel * shape.kernel;
        let expected = shape.channels * taps;
        if codes.len() != expected {
            return Err(KernelError::Length { what: "weights", expected, got: codes.len() });
        }
        let pair = BitPair::new(bits, 8)?;
        pair.check_depth(taps)?;
        pair.check_weights(codes)?;
        let groups = shape.channels.div_ceil(LANES);
        let mut weights = vec![[0; LANES]; taps * groups];
        for (channel, codes) in codes.chunks_exact(taps).enumerate() {
            for (tap, &code) in codes.iter().enumerate() {
                weights[tap * groups + channel / LANES][channel % LANES] = code.into();
            }
        }
        Ok(Self { cpu, shape, bits, weights, padding_code: 0 })
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

    /// Bits of a weight.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Size of the packed weights, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(self.weights.as_slice())
    }

    /// The instruction set that the weights are packed for.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.cpu.isa()
    }

    /// Convolves activations `[height][width][channels]` into `[out_height][out_width][channels]`, written in
    /// the form that `out` asks for. The sums equal [`reference::depthwise`](crate::reference::depthwise).
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length.
    pub fn run<'a>(
        &self,
        acts: &[u8],
        out: impl Into<Output<'a>>,
        workspace: &mut Workspace,
        threads: NonZeroUsize,
    ) -> Result<(), KernelError> {
        let (shape, out) = (self.shape, out.into());
        let pixels = shape.out_height() * shape.out_width();
        for (what, expected, got) in [
            ("activations", shape.height * shape.width * shape.channels, acts.len()),
            ("out", pixels * shape.channels, out.len()),
        ] {
            if got != expected {
                return Err(KernelError::Length { what, expected, got });
            }
        }
        out.check(shape.channels)?;
        let acts = workspace.pad(acts, shape, self.padding_code)?;
        match out {
            Output::Sums(out) => self.finish(&AsSums, acts, out, threads),
            Output::Codes { epilogue, bits, out } => {
                self.finish(&AsCodes::new(epilogue, bits), acts, out, threads);
            }
            Output::Values { epilogue, out } => {
                self.finish(&AsValues(epilogue), acts, out, threads);
            }
        }
        Ok(())
    }

    fn finish<F: Finish>(
        &self,
        finish: &F,
        acts: &[u8],
        out: &mut [F::Out],
        threads: NonZeroUsize,
    ) {
        let channels = self.shape.channels;
        // A single panel, so that threads always split the pixels: a depthwise layer has few channels and many
        // pixels.
        share(Grid { outputs: channels, panel: channels }, out, threads, |part| {
            let Part { first_pixel, out, pitch, .. } = part;
            let mut scratch = SCRATCH.take();
            let sums = &mut scratch.sums;
            sums.resize(PIXELS * channels.div_ceil(LANES), [0; LANES]);
            for (index, out) in out.chunks_mut(PIXELS * pitch).enumerate() {
                let count = out.len() / pitch;
                let sums = &mut sums[..count * channels.div_ceil(LANES)];
                let first = first_pixel + index * PIXELS;
                vectorise(self.cpu, Pixels { conv: self, acts, first, sums: &mut *sums });
                finish.finish(Block { cpu: self.cpu, sums, first: 0, channels, pitch }, out);
            }
            SCRATCH.set(scratch);
        });
    }
}

/// Checks that a shape is that of a depthwise convolution.
///
/// # Errors
/// [`KernelError`] if it is not.
pub(crate) fn check(shape: ConvShape) -> Result<(), KernelError> {
    shape.check()?;
    if shape.outputs != shape.channels {
        let reason = "must be the number of channels in a depthwise convolution";
        return Err(KernelError::Shape { what: "outputs", got: shape.outputs, reason });
    }
    Ok(())
}

/// Computes the sums of some pixels from activations of [`Workspace::pad`], which can be read 16 at a time.
struct Pixels<'a> {
    conv: &'a DepthwiseConv,
    acts: &'a [u8],
    first: usize,
    /// `[pixels][channels / 16, rounded up]`
    sums: &'a mut [[i32; LANES]],
}

impl Loops for Pixels<'_> {
    #[inline(always)]
    fn run(self) {
        let ConvShape { channels, width, kernel, stride, padding, .. } = self.conv.shape;
        let (columns, groups) = (self.conv.shape.out_width(), channels.div_ceil(LANES));
        let row = (width + 2 * padding) * channels;
        for (index, sums) in self.sums.chunks_exact_mut(groups).enumerate() {
            let pixel = self.first + index;
            let start = pixel / columns * stride * row + pixel % columns * stride * channels;
            for (group, sums) in sums.iter_mut().enumerate() {
                let mut acc = [0; LANES];
                for ky in 0..kernel {
                    for kx in 0..kernel {
                        let at = start + ky * row + kx * channels + group * LANES;
                        let weights = &self.conv.weights[(ky * kernel + kx) * groups + group];
                        let acts: &[u8] = &self.acts[at..at + LANES];
                        for i in 0..LANES {
                            // At most 128 * 255 in magnitude, which fits in 16 bits.
                            acc[i] += i32::from(weights[i] * i16::from(acts[i]));
                        }
                    }
                }
                *sums = acc;
            }
        }
    }
}
