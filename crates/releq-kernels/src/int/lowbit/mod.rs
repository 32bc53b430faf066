//! Weights stored at exactly their bitwidth, and expanded to bytes just before the int8 kernels multiply them.
//!
//! The products are those of [`Int8Weights`]; what is saved is memory, and the time to read it. That pays off
//! if each weight is read for few pixels only, as in fully connected layers of a single image, and the weights
//! do not stay in a near cache. Otherwise it is faster to expand them once, when they are packed.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod fields;

use std::ops::Range;

use crate::{
    ConvShape, GemmShape, Int8Weights, Isa, KernelError, Threads, Workspace,
    cpu::Cpu,
    int::{
        epilogue::Output,
        int8::{self, Line, Piece, Source, panel_lines},
        weight_rows::WeightRows,
    },
};
use fields::CHUNK;

/// Below this number of pixels, it is faster to expand the weights in registers for every pixel than once in memory.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 8;

/// Weights of 1 to 8 bits, stored at their bitwidth and laid out for one instruction set.
///
/// Layout: `[panels][inputs / 32, rounded up][outputs of the panel / 16, rounded up][bits]` lines of 64 bytes:
/// 32 inputs of 16 outputs fill as many lines as a weight has bits. A panel has 64 outputs on AVX-512 and 16
/// on other instruction sets. Lines are padded with zeros.
#[derive(Clone, Debug)]
pub struct LowBitWeights {
    cpu: Cpu,
    bits: u8,
    outputs: usize,
    depth: usize,
    /// Groups of 4 inputs of one output.
    groups: usize,
    /// See [`Int8Weights`].
    short: usize,
    lines: Vec<Line>,
}

impl LowBitWeights {
    /// Packs `[outputs][depth]` codes of `bits` bits.
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length, a code outside its bitwidth, a bitwidth outside 1 to 8, sums that could
    /// overflow, or an instruction set that this processor lacks.
    pub fn pack(
        codes: &[i8],
        outputs: usize,
        depth: usize,
        bits: u8,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        Self::pack_runs(&mut WeightRows::of(codes, outputs, depth, bits)?, outputs, 1, isa)
    }

    /// Packs `[outputs][runs][depth / runs]` codes, of which no more than a panel is in memory at a byte each.
    pub(crate) fn pack_runs<E: From<KernelError>>(
        rows: &mut WeightRows<'_, E>,
        outputs: usize,
        runs: usize,
        isa: Isa,
    ) -> Result<Self, E> {
        let (cpu, full) = (Cpu::new(isa)?, panel_lines(isa) * int8::LANES);
        let mut panel = Int8Weights::zeros(rows, outputs.min(full), runs, cpu)?;
        let mut weights = Self::none(&panel, outputs);
        for first in (0..outputs).step_by(full) {
            let left = outputs - first;
            if left < full {
                panel = Int8Weights::zeros(rows, left, runs, cpu)?;
            }
            panel.fill(rows, first, runs)?;
            weights.append(&panel);
        }
        Ok(weights)
    }

    /// Room for weights like these, for `outputs` outputs.
    fn none(like: &Int8Weights, outputs: usize) -> Self {
        let (cpu, bits, groups) = (Source::cpu(like), like.bits(), Source::groups(like));
        let lines = outputs.div_ceil(int8::LANES) * groups.div_ceil(CHUNK) * usize::from(bits);
        let lines = Vec::with_capacity(lines);
        Self { cpu, bits, outputs, depth: like.depth(), groups, short: Source::short(like), lines }
    }

    /// Compresses the weights of the next outputs, which fill all panels but the last one of all.
    fn append(&mut self, weights: &Int8Weights) {
        // What sums of the first panels allow is not what those of all do.
        self.short = match self.lines.is_empty() {
            true => Source::short(weights),
            false => self.short.min(Source::short(weights)),
        };
        let panel_outputs = panel_lines(self.isa()) * int8::LANES;
        for panel in 0..weights.outputs().div_ceil(panel_outputs) {
            for first in (0..self.groups).step_by(CHUNK) {
                let groups = first..self.groups.min(first + CHUNK);
                let (chunk, width) = weights.panel_groups(panel, groups);
                for lane_group in 0..width {
                    let mut codes = [Line::ZERO; CHUNK];
                    for (to, from) in
                        codes.iter_mut().zip(chunk.iter().skip(lane_group).step_by(width))
                    {
                        *to = *from;
                    }
                    let bits = usize::from(self.bits);
                    self.lines.extend_from_slice(&fields::pack(&codes, self.bits)[..bits]);
                }
            }
        }
    }

    /// Bits of a weight.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// The instruction set that the weights are packed for.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.cpu.isa()
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

    /// Size of the packed weights, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// `out[pixel][output] = sum_k acts[pixel][k] * weights[output][k]`, written in the form that `out` asks
    /// for. The sums equal [`reference::gemm`](crate::reference::gemm). One pixel makes it a matrix-vector
    /// product.
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length.
    pub fn gemm<'a>(
        &self,
        acts: &[u8],
        pixels: usize,
        out: impl Into<Output<'a>>,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let (outputs, depth) = (self.outputs, self.depth);
        int8::gemm(self, acts, GemmShape { pixels, outputs, depth }, out.into(), threads)
    }

    /// The lines of some chunks of 32 inputs, `[chunks][outputs of the panel / 16, rounded up][bits]`, and the
    /// number of groups of 16 outputs side by side.
    fn chunks(&self, panel: usize, chunks: Range<usize>) -> (&[Line], usize) {
        let (full, bits) = (panel_lines(self.isa()), usize::from(self.bits));
        let width = (self.outputs.div_ceil(int8::LANES) - panel * full).min(full);
        let panel = &self.lines[panel * full * self.groups.div_ceil(CHUNK) * bits..];
        (&panel[chunks.start * width * bits..chunks.end * width * bits], width)
    }
}

impl From<&Int8Weights> for LowBitWeights {
    /// Compresses weights to their bitwidth.
    fn from(weights: &Int8Weights) -> Self {
        let mut compressed = Self::none(weights, weights.outputs());
        compressed.append(weights);
        compressed
    }
}

impl Source for LowBitWeights {
    const BLOCK: usize = 256;

    fn cpu(&self) -> Cpu {
        self.cpu
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn groups(&self) -> usize {
        self.groups
    }

    fn short(&self) -> usize {
        self.short
    }

    fn multiply(
        &self,
        panel: usize,
        groups: Range<usize>,
        piece: Piece<'_>,
        starts: &[usize],
        sums: &mut [i32],
        scratch: &mut Vec<Line>,
    ) {
        let chunks = groups.start / CHUNK..groups.end.div_ceil(CHUNK);
        let (packed, width) = self.chunks(panel, chunks);
        #[cfg(target_arch = "x86_64")]
        // `gemv` reads the activations of a pixel from one contiguous slice, so it needs a single segment.
        if let (Cpu::Avx512(avx512), [segment]) = (self.cpu, piece.segments)
            && starts.len() < FEW
        {
            for (&start, sums) in starts.iter().zip(sums.chunks_mut(piece.pitch)) {
                let acts = &piece.acts[start + segment.offset..][..segment.groups * int8::GROUP];
                let sums = &mut sums[..piece.channels];
                avx512::gemv(avx512, self.bits, packed, width, acts, piece.add, sums);
            }
            return;
        }
        // For many pixels, the block of the panel is expanded once into `scratch`, which stays in the cache.
        fields::unpack(self.cpu, self.bits, packed, width, scratch);
        let lines = &scratch[..groups.len() * width];
        int8::multiply(self.cpu, &Piece { lines, ..piece }, starts, sums);
    }
}

/// A convolution with [`LowBitWeights`].
#[derive(Clone, Debug)]
pub struct LowBitConv {
    shape: ConvShape,
    weights: LowBitWeights,
    padding_code: u8,
}

impl LowBitConv {
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
        let weights = LowBitWeights::pack_runs(rows, shape.outputs, shape.kernel, isa)?;
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
    pub const fn weights(&self) -> &LowBitWeights {
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
        int8::conv(&self.weights, (shape, padding_code), acts, out.into(), workspace, threads)
    }
}
