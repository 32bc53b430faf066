//! Bit-serial kernels: operands split into bit planes, products as AND and population count.
//!
//! `sum(w x) = sum over planes i, j of s_i 2^(i+j) popcount(w_i AND x_j)`, with `s_i = -1` for the sign
//! plane of the weights. The time grows with weight bits times activation bits, as in the kernels of the
//! ReLeQ paper (TVM's; Cowan et al. 2020, CGO). For comparison with that paper: on a processor with 8-bit
//! dot products they win only where the product of the two bitwidths is 2 or less.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod planes;
mod portable;

pub use planes::BitPlanes;

use crate::{BitPair, ConvShape, GemmShape, Isa, KernelError};

/// Codes in one word of a bit plane.
const WORD: usize = 32;
/// Outputs whose words lie side by side.
const LANES: usize = 16;

/// The words of 16 outputs, in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Lanes([u32; LANES]);

/// Weights as bit planes, laid out for one instruction set.
///
/// Stored are the planes alone, so a weight takes its bits, up to padding to 32 codes and 32 outputs.
#[derive(Clone, Debug)]
pub struct BitSerialWeights {
    isa: Isa,
    bits: u8,
    outputs: usize,
    depth: usize,
    /// Words of one output in one plane.
    words: usize,
    /// `[outputs / 32][plane, sign first][words][2]`; the last panel may be half as wide.
    lanes: Vec<Lanes>,
}

impl BitSerialWeights {
    /// Packs `[outputs][depth]` codes.
    ///
    /// # Errors
    /// [`KernelError`] for a length, a code, a bitwidth or an instruction set that does not fit.
    pub fn pack(
        codes: &[i8],
        outputs: usize,
        depth: usize,
        bits: u8,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        Self::pack_taps(codes, outputs, 1, depth, bits, isa)
    }

    /// Packs `[outputs][taps][channels]` codes, every tap in words of its own.
    fn pack_taps(
        codes: &[i8],
        outputs: usize,
        taps: usize,
        channels: usize,
        bits: u8,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        isa.check()?;
        let pair = BitPair::new(bits, 1)?;
        let depth = taps * channels;
        GemmShape { pixels: 0, outputs, depth }.check(codes.len(), 0, 0)?;
        pair.check_weights(codes)?;
        let tap_words = channels.div_ceil(WORD);
        let words = taps * tap_words;
        let groups = outputs.div_ceil(LANES);
        let mut lanes = vec![Lanes([0; LANES]); groups * usize::from(bits) * words];
        for (output, row) in codes.chunks_exact(depth.max(1)).enumerate() {
            let (panel, group) = (output / (2 * LANES), output / LANES % 2);
            let width = (groups - 2 * panel).min(2);
            for (tap, codes) in row.chunks_exact(channels.max(1)).enumerate() {
                for (channel, &code) in codes.iter().enumerate() {
                    let word = tap * tap_words + channel / WORD;
                    for plane in 0..usize::from(bits) {
                        // Sign first.
                        let bit = code as u8 >> (usize::from(bits) - 1 - plane) & 1;
                        let at = 2 * panel * usize::from(bits) * words
                            + (plane * words + word) * width
                            + group;
                        lanes[at].0[output % LANES] |= u32::from(bit) << (channel % WORD);
                    }
                }
            }
        }
        Ok(Self { isa, bits, outputs, depth, words, lanes })
    }

    /// Bits of a weight.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// The instruction set that they are multiplied with.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// Bytes in memory.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.lanes.len() * size_of::<Lanes>()
    }

    /// `out[pixel][output] = sum_k acts[pixel][k] * weights[output][k]`; equals
    /// [`reference::gemm`](crate::reference::gemm).
    ///
    /// # Errors
    /// [`KernelError`] for lengths that do not fit or sums that could overflow.
    pub fn gemm(&self, acts: &BitPlanes, out: &mut [i32]) -> Result<(), KernelError> {
        let pair = BitPair::new(self.bits, acts.bits())?;
        let expected = acts.pixels().checked_mul(self.outputs);
        let expected = expected.ok_or(KernelError::TooLarge { what: "out" })?;
        if acts.depth() != self.depth {
            let (expected, got) = (self.depth, acts.depth());
            return Err(KernelError::Length { what: "codes of a pixel", expected, got });
        }
        if out.len() != expected {
            return Err(KernelError::Length { what: "out", expected, got: out.len() });
        }
        pair.check_depth(self.depth)?;
        let stride = self.words * usize::from(acts.bits());
        let starts: Vec<usize> = (0..acts.pixels()).map(|pixel| pixel * stride).collect();
        let runs = Runs { count: 1, words: self.words, stride: 0 };
        self.multiply(acts.words(), acts.bits(), &starts, runs, out);
        Ok(())
    }

    /// All planes of all runs of every start; the callers checked the shapes.
    fn multiply(&self, acts: &[u32], act_bits: u8, starts: &[usize], runs: Runs, out: &mut [i32]) {
        if self.words == 0 || self.outputs == 0 {
            out.fill(0);
            return;
        }
        let bits = usize::from(act_bits);
        let last = starts
            .iter()
            .max()
            .map_or(0, |&start| start + runs.stride * (runs.count - 1) + runs.words * bits);
        assert!(last <= acts.len(), "the words of every pixel are there");
        assert_eq!(runs.count * runs.words, self.words, "as many words as the weights have");
        assert_eq!(out.len(), starts.len() * self.outputs, "a sum for every pixel and output");
        let job = Job { weights: self, acts, bits, starts, runs };
        match self.isa {
            Isa::Portable => portable::run(&job, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::run(&job, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::run(&job, out),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => portable::run(&job, out),
        }
    }

    /// The words of 32 outputs, or of 16 in a last panel: `([plane][words][width], width)`.
    fn panel(&self, panel: usize) -> (&[Lanes], usize) {
        let full = 2 * usize::from(self.bits) * self.words;
        let lanes = &self.lanes[panel * full..];
        if lanes.len() >= full { (&lanes[..full], 2) } else { (lanes, 1) }
    }

    const fn panels(&self) -> usize {
        self.outputs.div_ceil(2 * LANES)
    }
}

/// Where the words of one pixel lie: `count` runs of `words` groups of planes, `stride` words apart.
#[derive(Clone, Copy, Debug)]
struct Runs {
    count: usize,
    words: usize,
    stride: usize,
}

/// What a kernel multiplies, checked: `starts` and `runs` stay inside `acts`, and their words are as many
/// as a plane of the weights has.
struct Job<'a> {
    weights: &'a BitSerialWeights,
    acts: &'a [u32],
    bits: usize,
    starts: &'a [usize],
    runs: Runs,
}

/// A convolution by bit planes, without any copy of overlapping windows where the channels fill their
/// words, and with one where they would not.
#[derive(Clone, Debug)]
pub struct BitSerialConv {
    shape: ConvShape,
    weights: BitSerialWeights,
    /// Whether every window is gathered into words of its own.
    gathers: bool,
}

/// Memory that calls share, so that only the first one allocates.
#[derive(Clone, Debug, Default)]
pub struct BitSerialScratch {
    planes: Vec<u32>,
    padded: Vec<u8>,
    starts: Vec<usize>,
}

impl BitSerialConv {
    /// Packs `[outputs][kernel][kernel][channels]` codes.
    ///
    /// # Errors
    /// [`KernelError`] for a shape, length, code, bitwidth or instruction set that does not fit.
    pub fn pack(codes: &[i8], shape: ConvShape, bits: u8, isa: Isa) -> Result<Self, KernelError> {
        shape.check()?;
        let taps = shape.kernel * shape.kernel;
        // Words that are half empty cost as much as full ones; a gathered window has at most one.
        let gathered = shape.depth().div_ceil(WORD);
        let gathers = 5 * gathered < 4 * taps * shape.channels.div_ceil(WORD);
        let (taps, channels) = if gathers { (1, shape.depth()) } else { (taps, shape.channels) };
        let weights = BitSerialWeights::pack_taps(codes, shape.outputs, taps, channels, bits, isa)?;
        Ok(Self { shape, weights, gathers })
    }

    /// The packed weights.
    #[must_use]
    pub const fn weights(&self) -> &BitSerialWeights {
        &self.weights
    }

    /// Splits the activations into planes and convolves; equals
    /// [`reference::conv2d`](crate::reference::conv2d), whose operands it takes.
    ///
    /// # Errors
    /// [`KernelError`] for lengths or codes that do not fit, or sums that could overflow.
    pub fn run(
        &self,
        acts: &[u8],
        act_bits: u8,
        out: &mut [i32],
        scratch: &mut BitSerialScratch,
    ) -> Result<(), KernelError> {
        let shape = self.shape;
        let pair = BitPair::new(self.weights.bits, act_bits)?;
        shape.check_lengths(shape.outputs * shape.depth(), acts.len(), out.len())?;
        pair.check_depth(shape.depth())?;
        pair.check_acts(acts)?;
        let ConvShape { channels, height, width, kernel, stride, padding, .. } = shape;
        let BitSerialScratch { planes, padded, starts } = scratch;

        let padded_width = width + 2 * padding;
        let image = if padding == 0 {
            acts
        } else {
            padded.clear();
            padded.resize((height + 2 * padding) * padded_width * channels, 0);
            for (row, pixels) in acts.chunks_exact(width * channels).enumerate() {
                let at = ((row + padding) * padded_width + padding) * channels;
                padded[at..at + pixels.len()].copy_from_slice(pixels);
            }
            padded
        };
        let bits = usize::from(act_bits);
        let isa = self.weights.isa;
        planes.clear();
        starts.clear();
        let outs = (0..shape.out_height())
            .flat_map(|row| (0..shape.out_width()).map(move |column| (row, column)));
        let runs = if self.gathers {
            let row = kernel * channels;
            let mut window = vec![0; shape.depth()];
            for (y, x) in outs {
                for (ky, part) in window.chunks_exact_mut(row).enumerate() {
                    let at = ((y * stride + ky) * padded_width + x * stride) * channels;
                    part.copy_from_slice(&image[at..at + row]);
                }
                starts.push(planes.len());
                planes::append(&window, act_bits, isa, planes);
            }
            Runs { count: 1, words: self.weights.words, stride: 0 }
        } else {
            for pixel in image.chunks_exact(channels) {
                planes::append(pixel, act_bits, isa, planes);
            }
            let pixel = channels.div_ceil(WORD) * bits;
            starts.extend(outs.map(|(y, x)| (y * stride * padded_width + x * stride) * pixel));
            let words = kernel * channels.div_ceil(WORD);
            Runs { count: kernel, words, stride: padded_width * pixel }
        };
        self.weights.multiply(planes, act_bits, starts, runs, out);
        Ok(())
    }
}
