//! Bit-serial kernels: operands split into bit planes, products as AND and population count.
//!
//! `sum(w x) = sum over planes i, j of s_i 2^(i+j) popcount(w_i AND x_j)`, with `s_i = -1` for the sign plane
//! of the weights and 1 for the others. The time grows with the product of the two bitwidths, as for the
//! kernels of the ReLeQ paper, which are those of TVM (Cowan et al., CGO 2020). These kernels are for
//! comparison with that paper: by peak rates, they beat the 8-bit dot products of AVX-512 only if the product
//! of the bitwidths is small, at most 2 on Emerald Rapids and 5 on Zen 4.
//!
//! All kernels go through the planes of the weights from the sign plane down and double the sums after each plane, so
//! that every partial product is shifted by the plane of the activations only.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod conv;
mod planes;
mod portable;

pub use conv::BitSerialConv;
pub use planes::BitPlanes;

use std::ops::Range;

use crate::{
    BitPair, Isa, KernelError, Threads,
    cpu::Cpu,
    int::{
        epilogue::{AsCodes, AsSums, AsValues, Block, Finish, Output},
        weight_rows::WeightRows,
    },
    threads::{Grid, Part, share},
};

/// Codes in one word of a bit plane.
const WORD: usize = 32;
/// Outputs whose words lie side by side, one in each lane.
const LANES: usize = 16;
/// Pixels that are multiplied with all weights before the next pixels.
const BLOCK: usize = 64;
/// Number of words whose population counts, at most 8 per byte, can be summed in a byte.
const BYTE_WORDS: usize = 31;

/// One word of each of 16 outputs, in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Lanes([u32; LANES]);

/// Weights as bit planes, laid out for one instruction set.
///
/// A weight takes as many bits as its bitwidth, apart from padding to 32 codes and 16 outputs.
#[derive(Clone, Debug)]
pub struct BitSerialWeights {
    cpu: Cpu,
    bits: u8,
    outputs: usize,
    depth: usize,
    /// Number of words of one output in one plane.
    words: usize,
    /// `[outputs / 32][plane, sign first][words][2]`; the last panel may have one group of 16 outputs instead of 2.
    lanes: Vec<Lanes>,
}

impl BitSerialWeights {
    /// Packs `[outputs][depth]` codes.
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length, a code outside its bitwidth, a bitwidth outside 1 to 8, or an instruction
    /// set that this processor lacks.
    pub fn pack(
        codes: &[i8],
        outputs: usize,
        depth: usize,
        bits: u8,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        Self::pack_taps(&mut WeightRows::of(codes, outputs, depth, bits)?, outputs, 1, isa)
    }

    /// Packs `[outputs][taps][depth / taps]` codes. Every tap starts a new word.
    pub(crate) fn pack_taps<E: From<KernelError>>(
        rows: &mut WeightRows<'_, E>,
        outputs: usize,
        taps: usize,
        isa: Isa,
    ) -> Result<Self, E> {
        let cpu = Cpu::new(isa)?;
        let (bits, depth) = (rows.pair().weight(), rows.depth());
        let channels = depth / taps;
        let codes = rows.get(0, outputs)?;
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
                        // The sign plane comes first.
                        let bit = code as u8 >> (usize::from(bits) - 1 - plane) & 1;
                        // All panels before this one are full, two lines for every word.
                        let at = 2 * panel * usize::from(bits) * words
                            + (plane * words + word) * width
                            + group;
                        lanes[at].0[output % LANES] |= u32::from(bit) << (channel % WORD);
                    }
                }
            }
        }
        Ok(Self { cpu, bits, outputs, depth, words, lanes })
    }

    /// Bits of a weight.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Number of outputs.
    #[must_use]
    pub const fn outputs(&self) -> usize {
        self.outputs
    }

    /// Products in one sum.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// The instruction set that the weights are packed for.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.cpu.isa()
    }

    /// Size of the packed weights, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.lanes.len() * size_of::<Lanes>()
    }

    /// `out[pixel][output] = sum_k acts[pixel][k] * weights[output][k]`, written in the form that `out` asks
    /// for. The sums equal [`reference::gemm`](crate::reference::gemm).
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length, or sums that could overflow.
    pub fn gemm<'a>(
        &self,
        acts: &BitPlanes,
        out: impl Into<Output<'a>>,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let out = out.into();
        out.check(self.outputs)?;
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
        let bits = usize::from(acts.bits());
        let runs = Runs { count: 1, words: self.words, stride: 0 };
        let pixels = Pixels::in_line(acts.pixels(), self.words * bits);
        Product { weights: self, acts: Acts::InPlace(acts.words()), bits, pixels, runs }
            .run(out, threads);
        Ok(())
    }

    /// The words of a panel, `[plane][words][width]`, and its width: 2 groups of 16 outputs, or 1 in the last panel.
    fn panel(&self, panel: usize) -> (&[Lanes], usize) {
        let full = 2 * usize::from(self.bits) * self.words;
        let lanes = &self.lanes[panel * full..];
        if lanes.len() >= full { (&lanes[..full], 2) } else { (lanes, 1) }
    }
}

/// The words of one pixel: `count` runs of `words` words of all planes; runs are `stride` `u32`s apart.
#[derive(Clone, Copy, Debug)]
struct Runs {
    count: usize,
    words: usize,
    stride: usize,
}

/// The starts of pixels: rows of `columns` pixels, `step` `u32`s from one to the next and `row_step` from row to row.
#[derive(Clone, Copy, Debug)]
struct Pixels {
    count: usize,
    columns: usize,
    step: usize,
    row_step: usize,
}

impl Pixels {
    /// One row of pixels.
    const fn in_line(count: usize, step: usize) -> Self {
        Self { count, columns: count, step, row_step: 0 }
    }

    /// The starts of all pixels from `first` on.
    fn starts(self, first: usize) -> impl Iterator<Item = usize> {
        let mut column = first % self.columns.max(1);
        let mut row = first / self.columns.max(1) * self.row_step;
        (first..self.count).map(move |_| {
            if column == self.columns {
                row += self.row_step;
                column = 0;
            }
            column += 1;
            row + (column - 1) * self.step
        })
    }
}

/// The planes of the activations.
#[derive(Clone, Copy)]
enum Acts<'a> {
    /// Multiplied where they are.
    InPlace(&'a [u32]),
    /// Windows are gathered from the planes of an image, block by block, so that they stay in the L1 cache.
    Gathered(conv::Image<'a>),
}

/// A product of all planes of weights and activations. The shapes must have been checked.
struct Product<'a> {
    weights: &'a BitSerialWeights,
    acts: Acts<'a>,
    /// Number of planes of the activations.
    bits: usize,
    pixels: Pixels,
    runs: Runs,
}

impl Product<'_> {
    /// Multiplies, and writes results in the form that `out` asks for.
    fn run(&self, out: Output<'_>, threads: &Threads) {
        match out {
            Output::Sums(out) => self.finish(&AsSums, out, threads),
            Output::Codes { epilogue, bits, out } => {
                self.finish(&AsCodes::new(epilogue, bits), out, threads);
            }
            Output::Values { epilogue, out } => self.finish(&AsValues(epilogue), out, threads),
        }
    }

    fn finish<F: Finish>(&self, finish: &F, out: &mut [F::Out], threads: &Threads) {
        let Self { weights, pixels, runs, .. } = *self;
        let words = runs.count * runs.words;
        assert_eq!(words, weights.words, "as many words as the weights have");
        assert_eq!(out.len(), pixels.count * weights.outputs, "space for every pixel and output");
        let grid = Grid { outputs: weights.outputs, panel: 2 * LANES, depth: weights.depth };
        share(grid, out, threads, |part| self.work(finish, part));
    }

    /// Computes the panels and pixels of one thread.
    fn work<F: Finish>(&self, finish: &F, part: Part<'_, F::Out>) {
        let Part { first_pixel, panels, out, pitch } = part;
        let cpu = self.weights.cpu;
        let mut all = self.pixels.starts(first_pixel);
        let (mut starts, mut sums, mut windows) = ([0; BLOCK], Vec::new(), Vec::new());
        // Block by block, so that gathered windows and intermediate sums stay small.
        for (index, out) in out.chunks_mut(BLOCK * pitch).enumerate() {
            let starts = &mut starts[..out.len() / pitch];
            starts.iter_mut().zip(&mut all).for_each(|(to, start)| *to = start);
            let acts = match self.acts {
                Acts::InPlace(acts) => acts,
                Acts::Gathered(image) => {
                    let words = self.weights.words;
                    windows.resize(starts.len() * words * self.bits, 0);
                    let first = first_pixel + index * BLOCK;
                    image.gather_on(cpu, self.bits, words, first, &mut windows);
                    for (index, start) in starts.iter_mut().enumerate() {
                        *start = index * words * self.bits;
                    }
                    &windows
                }
            };
            let Self { weights, bits, runs, .. } = *self;
            let groups = pitch.div_ceil(LANES);
            let job = Job { weights, acts, bits, starts, runs, panels: panels.clone(), pitch };
            // Results are sums: the kernel writes them in place.
            if let Some(out) = F::direct(out) {
                job.run(out);
                continue;
            }
            // Results are codes: AVX-512 converts the sums in registers. Without any words, there is no kernel
            // to do it.
            #[cfg(target_arch = "x86_64")]
            if let (Cpu::Avx512(avx512), 1.., Some(mut codes)) =
                (cpu, runs.words, finish.fused(out))
            {
                codes.factors = &codes.factors[2 * panels.start..];
                avx512::run_fused(avx512, &job, codes);
                continue;
            }
            // All else goes through sums in whole groups of 16 channels, which the epilogue reads.
            sums.resize(starts.len() * groups, [0; LANES]);
            Job { pitch: groups * LANES, ..job }.run(sums.as_flattened_mut());
            let first = 2 * LANES * panels.start;
            finish.finish(Block { cpu, sums: &sums, first, channels: pitch, pitch }, out);
        }
    }
}

/// What a kernel multiplies: the outputs of some panels with the pixels at `starts`. The words of all runs are
/// as many as a plane of the weights has. Results lie `pitch` apart from start to start.
struct Job<'a> {
    weights: &'a BitSerialWeights,
    acts: &'a [u32],
    bits: usize,
    starts: &'a [usize],
    runs: Runs,
    panels: Range<usize>,
    pitch: usize,
}

impl Job<'_> {
    fn run(&self, out: &mut [i32]) {
        if self.runs.words == 0 {
            return out.fill(0);
        }
        match self.weights.cpu {
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512(avx512) => avx512::run(avx512, self, out),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2(avx2) => avx2::run(avx2, self, out),
            Cpu::Portable => portable::run(self, out),
        }
    }

    /// Checks what the vector kernels rely on, since they read activations through pointers: the runs of every start
    /// lie inside the activations. Inlined, so that the maximum is taken with the instructions of the caller.
    ///
    /// # Panics
    /// If one of them does not.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn check(&self) {
        let Runs { count, words, stride } = self.runs;
        assert!((1..=8).contains(&self.bits) && count > 0, "planes and runs to multiply");
        let last = self.starts.iter().copied().max().unwrap_or(0);
        let end = last + stride * (count - 1) + words * self.bits;
        assert!(end <= self.acts.len(), "the words of every pixel");
    }

    /// Number of outputs of the panels from output `first` of the weights on, and the column of their sums in a row.
    fn outputs(&self, first: usize) -> (usize, usize) {
        let end = self.weights.outputs.min(2 * LANES * self.panels.end);
        (end - first, first - 2 * LANES * self.panels.start)
    }
}
