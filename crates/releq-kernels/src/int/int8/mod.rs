//! Products of 8-bit weights: the kernels of the 8-bit baseline and of all compute-bound layers.
//!
//! `drive` holds the loops around the tiles (pixels, panels, blocks of inputs, threads). `avx512`, `avx2` and
//! `portable` each hold one tile: some pixels times the outputs of a panel, with all sums in registers.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod conv;
mod drive;
mod portable;

use std::ops::Range;

pub(crate) use crate::int::epilogue::LANES;
pub use conv::Int8Conv;
pub(crate) use conv::conv;
pub(crate) use drive::{Piece, Source, gemm, multiply};

#[cfg(target_arch = "x86_64")]
use crate::int::epilogue::Fused;
use crate::{
    GemmShape, Isa, KernelError, Threads,
    cpu::Cpu,
    int::{epilogue::Output, weight_rows::WeightRows},
};

/// Inputs whose products the dot product instructions sum in one 32-bit lane.
pub(crate) const GROUP: usize = 4;

/// Weights of 16 outputs and 4 inputs, `[16][4]`, in one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct Line(pub(crate) [i8; LANES * GROUP]);

impl Line {
    pub(crate) const ZERO: Self = Self([0; LANES * GROUP]);
}

/// Weights of 1 to 8 bits, one byte each, laid out for one instruction set.
///
/// Layout: `[panels][inputs / 4, rounded up][outputs of the panel / 16, rounded up][16 outputs][4 inputs]`. A
/// panel has 64 outputs on AVX-512 and 16 on other instruction sets. Lines are padded with zeros.
#[derive(Clone, Debug)]
pub struct Int8Weights {
    cpu: Cpu,
    bits: u8,
    outputs: usize,
    depth: usize,
    /// Groups of 4 inputs of one output.
    groups: usize,
    /// How many groups AVX2 can sum in 16 bits; 0 if a single one could overflow, and on other instruction sets.
    short: usize,
    lines: Vec<Line>,
}

/// Lines side by side in a full panel. On AVX-512, 4 lines times 6 pixels fill 24 of the 32 registers with
/// sums; AVX2 has 16 registers of half the size, so that one line times 4 pixels is the most.
pub(crate) const fn panel_lines(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 4,
        Isa::Portable | Isa::Avx2 => 1,
    }
}

impl Int8Weights {
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

    /// Packs `[outputs][runs][depth / runs]` codes. Every run starts a new group, so that groups never span two image rows.
    pub(crate) fn pack_runs<E: From<KernelError>>(
        rows: &mut WeightRows<'_, E>,
        outputs: usize,
        runs: usize,
        isa: Isa,
    ) -> Result<Self, E> {
        let mut weights = Self::zeros(rows, outputs, runs, Cpu::new(isa)?)?;
        weights.fill(rows, 0, runs)?;
        Ok(weights)
    }

    /// Packs the codes of as many outputs as there are, from `first` on.
    pub(crate) fn fill<E: From<KernelError>>(
        &mut self,
        rows: &mut WeightRows<'_, E>,
        first: usize,
        runs: usize,
    ) -> Result<(), E> {
        let depth = self.depth;
        if self.outputs * depth == 0 {
            return Ok(());
        }
        let len = depth / runs;
        for lane_group in 0..self.outputs.div_ceil(LANES) {
            let output = lane_group * LANES;
            let rows = rows.get(first + output, LANES.min(self.outputs - output))?;
            // Lines of the same outputs are as far apart as there are lines side by side.
            let (first, step) = (self.line(lane_group, 0), self.line(lane_group, 1));
            let mut lines = self.lines[first..].iter_mut().step_by(step - first);
            for run in (0..depth).step_by(len) {
                // Line by line, so that every line is written once and rows are read from front to back.
                for at in (run..run + len).step_by(GROUP) {
                    let Some(line) = lines.next() else { break };
                    let whole = at + GROUP <= run + len;
                    for (to, row) in line.0.as_chunks_mut().0.iter_mut().zip(rows.chunks(depth)) {
                        match row[at..].first_chunk::<GROUP>() {
                            Some(codes) if whole => *to = *codes,
                            _ => to[..run + len - at].copy_from_slice(&row[at..run + len]),
                        }
                    }
                }
            }
        }
        // No other instruction set sums in 16 bits.
        if self.isa() == Isa::Avx2 {
            self.short = short_groups(&self.lines);
        }
        Ok(())
    }

    /// Weights of zero for `outputs` of these rows.
    ///
    /// Zeros fill incomplete groups and lines. They cancel whatever activations they meet, so that kernels need no special
    /// case at the edges.
    pub(crate) fn zeros<E: From<KernelError>>(
        rows: &WeightRows<'_, E>,
        outputs: usize,
        runs: usize,
        cpu: Cpu,
    ) -> Result<Self, E> {
        let (bits, depth) = (rows.pair().weight(), rows.depth());
        rows.pair().check_depth(depth)?;
        let groups = runs * (depth / runs).div_ceil(GROUP);
        let lines = vec![Line::ZERO; outputs.div_ceil(LANES) * groups];
        Ok(Self { cpu, bits, outputs, depth, groups, short: 0, lines })
    }

    /// Index of the line of one group of inputs for the given 16 outputs.
    const fn line(&self, lane_group: usize, group: usize) -> usize {
        let full = panel_lines(self.isa());
        let (panel, within) = (lane_group / full, lane_group % full);
        let left = self.outputs.div_ceil(LANES) - panel * full;
        let width = if left < full { left } else { full };
        panel * full * self.groups + group * width + within
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
        drive::gemm(self, acts, GemmShape { pixels, outputs, depth }, out.into(), threads)
    }

    /// The lines of some groups of a panel, `[groups][lines side by side]`, and the number of lines side by side.
    pub(crate) fn panel_groups(&self, panel: usize, groups: Range<usize>) -> (&[Line], usize) {
        let full = panel_lines(self.isa());
        let width = (self.outputs.div_ceil(LANES) - panel * full).min(full);
        let panel = &self.lines[panel * full * self.groups..];
        (&panel[groups.start * width..groups.end * width], width)
    }
}

impl Source for Int8Weights {
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

    #[cfg(target_arch = "x86_64")]
    fn multiply_fused(
        &self,
        panel: usize,
        piece: Piece<'_>,
        starts: &[usize],
        codes: Fused<'_>,
    ) -> bool {
        let Cpu::Avx512(avx512) = self.cpu else { return false };
        let (lines, _) = self.panel_groups(panel, 0..self.groups);
        avx512::run_fused(avx512, &Piece { lines, ..piece }, starts, codes);
        true
    }

    fn multiply(
        &self,
        panel: usize,
        groups: Range<usize>,
        piece: Piece<'_>,
        starts: &[usize],
        sums: &mut [i32],
        _scratch: &mut Vec<Line>,
    ) {
        let (lines, _) = self.panel_groups(panel, groups);
        multiply(self.cpu, &Piece { lines, ..piece }, starts, sums);
    }
}

/// How many groups can be summed in 16 bits whatever the activations: `VPMADDUBSW` adds the products of two adjacent
/// inputs in one 16-bit lane, at most 255 times the sum of their weights of equal sign. This depends on the actual
/// weights; narrow ones allow many groups.
fn short_groups(lines: &[Line]) -> usize {
    let extreme = |[a, b]: &[i8; 2]| {
        let (a, b) = (i32::from(*a), i32::from(*b));
        (a.max(0) + b.max(0)).max(-(a.min(0) + b.min(0)))
    };
    let pairs = lines.iter().flat_map(|line| line.0.as_chunks().0);
    let worst = pairs.map(extreme).max().unwrap_or(0).max(1);
    (i32::from(i16::MAX) / (255 * worst)) as usize
}
