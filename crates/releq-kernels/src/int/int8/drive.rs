//! The loops around the tiles: threads, blocks of pixels, panels of outputs, blocks of inputs, from the outside in.
//!
//! A block of 96 pixels is multiplied with one panel after the other. Of a panel, a block of inputs whose
//! weights stay in a near cache is multiplied with all of these pixels before the next block of inputs; in
//! between, sums are in memory. If all inputs of a layer fit in one block, sums stay in registers until the
//! epilogue is applied (`multiply_fused`).

use std::{cell::Cell, ops::Range};

use super::{GROUP, Line, panel_lines};
use crate::{
    GemmShape, KernelError, Threads,
    cpu::Cpu,
    int::{
        epilogue::{AsCodes, AsSums, AsValues, Block, Finish, Fused, LANES, Output},
        scratch::{SCRATCH, Scratch},
    },
    threads::{Grid, Part, share},
};

/// Pixels that share one pass over the weights: a multiple of the pixels of every tile.
const PIXELS: usize = 96;

/// Packed weights that can be multiplied panel by panel.
pub(crate) trait Source: Sync {
    /// Groups of 4 inputs per block. A group is 64 bytes of weights for every 16 outputs of a panel.
    const BLOCK: usize;

    fn cpu(&self) -> Cpu;

    fn outputs(&self) -> usize;

    /// Groups of 4 inputs of one output.
    fn groups(&self) -> usize;

    /// See [`Int8Weights`](super::Int8Weights).
    fn short(&self) -> usize;

    /// Multiplies all groups of a panel with all starts and converts the sums to codes without storing them. Returns
    /// whether that is supported; if not, nothing was done.
    fn multiply_fused(
        &self,
        _panel: usize,
        _piece: Piece<'_>,
        _starts: &[usize],
        _codes: Fused<'_>,
    ) -> bool {
        false
    }

    /// Multiplies some groups of a panel with all starts. The range starts at a multiple of 8; the lines of the
    /// piece are empty and must be filled in.
    fn multiply(
        &self,
        panel: usize,
        groups: Range<usize>,
        piece: Piece<'_>,
        starts: &[usize],
        sums: &mut [i32],
        scratch: &mut Vec<Line>,
    );
}

/// The activations of one pixel: `count` runs of `groups` groups of 4, `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs {
    pub(crate) count: usize,
    pub(crate) groups: usize,
    pub(crate) stride: usize,
}

/// The starts of pixels: rows of `columns` pixels, `step` bytes from one to the next and `row_step` from row to row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pixels {
    pub(crate) columns: usize,
    pub(crate) step: usize,
    pub(crate) row_step: usize,
}

impl Pixels {
    /// The starts of all pixels from `first` on.
    fn starts(self, first: usize, starts: &mut [usize]) {
        let (mut row, mut column) = (first / self.columns, first % self.columns);
        for start in starts {
            *start = row * self.row_step + column * self.step;
            column += 1;
            if column == self.columns {
                (column, row) = (0, row + 1);
            }
        }
    }
}

/// Contiguous groups of 4 activations, `offset` bytes after the start of a pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) offset: usize,
    pub(crate) groups: usize,
}

/// Blocks of inputs, each of which is multiplied with all pixels before the next one.
#[derive(Debug, Default)]
struct Blocks {
    /// The groups of a block, and its segments among all.
    blocks: Vec<(Range<usize>, Range<usize>)>,
    segments: Vec<Segment>,
}

thread_local! {
    /// Kept from call to call, as [`SCRATCH`] is.
    static BLOCKS: Cell<Blocks> = const { Cell::new(Blocks { blocks: Vec::new(), segments: Vec::new() }) };
}

impl Blocks {
    /// All groups of `runs`, in blocks of nearly equal size; at least one block. Sizes are multiples of 8, the groups
    /// that low-bit weights pack together.
    fn split(&mut self, runs: Runs, limit: usize) {
        self.blocks.clear();
        self.segments.clear();
        let total = runs.count * runs.groups;
        let count = total.div_ceil(limit).max(1);
        let size = total.div_ceil(count).next_multiple_of(8);
        for index in 0..count {
            let groups = (index * size).min(total)..((index + 1) * size).min(total);
            let (mut at, first) = (groups.start, self.segments.len());
            while at < groups.end {
                let (run, within) = (at / runs.groups, at % runs.groups);
                let len = (runs.groups - within).min(groups.end - at);
                let offset = run * runs.stride + within * GROUP;
                self.segments.push(Segment { offset, groups: len });
                at += len;
            }
            self.blocks.push((groups, first..self.segments.len()));
        }
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = (Range<usize>, &[Segment])> {
        self.blocks
            .iter()
            .map(|(groups, segments)| (groups.clone(), &self.segments[segments.clone()]))
    }
}

/// What to multiply. The runs of every pixel must lie inside `acts`.
pub(crate) struct Job<'a, S> {
    pub(crate) weights: &'a S,
    pub(crate) acts: &'a [u8],
    pub(crate) pixels: Pixels,
    pub(crate) runs: Runs,
}

/// One call of a kernel: all lines are multiplied with the activations at all starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// `[groups of all segments][width]`
    pub(crate) lines: &'a [Line],
    /// Lines side by side, one for 16 channels.
    pub(crate) width: usize,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "read by AVX2 alone"))]
    pub(crate) short: usize,
    pub(crate) acts: &'a [u8],
    pub(crate) segments: &'a [Segment],
    /// Channels of the panel.
    pub(crate) channels: usize,
    /// Distance between the sums of adjacent pixels.
    pub(crate) pitch: usize,
    /// Whether to add to the sums instead of replacing them.
    pub(crate) add: bool,
}

impl Piece<'_> {
    /// Checks what the vector kernels rely on, since they read and write through pointers: the segments of all starts
    /// lie inside the activations, there is a line for every group and every 16 channels, and there is space for the
    /// results.
    ///
    /// # Panics
    /// If one of these does not hold.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn check(&self, starts: &[usize], space: usize) {
        let end = |segment: &Segment| segment.offset + segment.groups * GROUP;
        let end = self.segments.iter().map(end).max().unwrap_or(0);
        let last = starts.iter().copied().max().unwrap_or(0);
        assert!(last + end <= self.acts.len(), "every segment of every pixel is there");
        let groups = self.segments.iter().map(|segment| segment.groups).sum::<usize>();
        assert_eq!(self.lines.len(), groups * self.width, "lines for every segment");
        assert_eq!(self.channels.div_ceil(LANES), self.width, "a line for 16 channels");
        let needed = starts.len().saturating_sub(1) * self.pitch + self.channels;
        assert!(self.channels <= self.pitch && needed <= space, "space for every result");
    }
}

/// A matrix product; the pixels are rows of `depth` activations.
pub(crate) fn gemm<S: Source>(
    weights: &S,
    acts: &[u8],
    shape: GemmShape,
    out: Output<'_>,
    threads: &Threads,
) -> Result<(), KernelError> {
    let GemmShape { pixels, outputs, depth } = shape;
    shape.check(outputs * depth, acts.len(), out.len())?;
    out.check(outputs)?;
    let padded = depth.next_multiple_of(GROUP);
    let runs = Runs { count: 1, groups: padded / GROUP, stride: 0 };
    // If the depth is no multiple of 4, the last group of a pixel reads into the next pixel, where zero weights
    // make it harmless. Only the last pixels would read past the slice; these are multiplied from a padded
    // copy.
    let over = if depth == 0 { 0 } else { (padded - depth).div_ceil(depth).min(pixels) };
    let direct = pixels - over;
    let (most, last) = out.split_at(direct * outputs);
    let at = |step| Pixels { columns: usize::MAX, step, row_step: 0 };
    run(&Job { weights, acts, pixels: at(depth), runs }, most, threads);
    if over > 0 {
        let mut kept = SCRATCH.take();
        let mut copy = std::mem::take(&mut kept.acts);
        SCRATCH.set(kept);
        copy.clear();
        copy.resize(over * padded, 0);
        let rest = acts[direct * depth..].chunks_exact(depth);
        for (to, from) in copy.chunks_exact_mut(padded).zip(rest) {
            to[..depth].copy_from_slice(from);
        }
        run(&Job { weights, acts: &copy, pixels: at(padded), runs }, last, threads);
        let kept = SCRATCH.take();
        SCRATCH.set(Scratch { acts: copy, ..kept });
    }
    Ok(())
}

/// Multiplies, and writes results in the form that `out` asks for.
pub(crate) fn run<S: Source>(job: &Job<'_, S>, out: Output<'_>, threads: &Threads) {
    match out {
        Output::Sums(out) => each_part(job, &AsSums, out, threads),
        Output::Codes { epilogue, bits, out } => {
            each_part(job, &AsCodes::new(epilogue, bits), out, threads);
        }
        Output::Values { epilogue, out } => each_part(job, &AsValues(epilogue), out, threads),
    }
}

/// Splits the work among threads.
fn each_part<S: Source, F: Finish>(
    job: &Job<'_, S>,
    finish: &F,
    out: &mut [F::Out],
    threads: &Threads,
) {
    let groups = job.runs.count * job.runs.groups;
    assert_eq!(groups, job.weights.groups(), "as many as the weights have");
    let mut blocks = BLOCKS.take();
    blocks.split(job.runs, S::BLOCK);
    let panel = panel_lines(job.weights.cpu().isa()) * LANES;
    let grid = Grid { outputs: job.weights.outputs(), panel, depth: groups * GROUP };
    share(grid, out, threads, |part| work(job, finish, &blocks, part));
    BLOCKS.set(blocks);
}

/// Computes the panels and pixels of one thread.
fn work<S: Source, F: Finish>(
    job: &Job<'_, S>,
    finish: &F,
    blocks: &Blocks,
    part: Part<'_, F::Out>,
) {
    let Part { first_pixel, panels, out, pitch } = part;
    let cpu = job.weights.cpu();
    let outputs = job.weights.outputs();
    let panel_channels = panel_lines(cpu.isa()) * LANES;
    let mut kept = SCRATCH.take();
    let Scratch { lines: scratch, sums, .. } = &mut kept;
    let mut starts = [0; PIXELS];
    for (index, out) in out.chunks_mut(PIXELS * pitch).enumerate() {
        let starts = &mut starts[..out.len() / pitch];
        job.pixels.starts(first_pixel + index * PIXELS, starts);
        for panel in panels.clone() {
            let first = panel * panel_channels;
            let channels = (outputs - first).min(panel_channels);
            let width = channels.div_ceil(LANES);
            let out = &mut out[(panel - panels.start) * panel_channels..];
            let piece = Piece {
                lines: &[],
                width,
                short: job.weights.short(),
                acts: job.acts,
                segments: &[],
                channels,
                pitch,
                add: false,
            };
            // Codes, and a single block of inputs: the kernel can apply the epilogue in registers.
            if let ([_], Some(mut codes)) = (blocks.blocks.as_slice(), finish.fused(out)) {
                codes.factors = &codes.factors[first / LANES..];
                let piece = Piece { segments: &blocks.segments, ..piece };
                if job.weights.multiply_fused(panel, piece, starts, codes) {
                    continue;
                }
            }
            // Otherwise sums go to `out` itself or, if results are something else, to `sums` for the epilogue.
            let is_direct = F::direct(out).is_some();
            if !is_direct {
                sums.resize(starts.len() * width, [0; LANES]);
            }
            for (index, (groups, segments)) in blocks.iter().enumerate() {
                let piece = Piece { segments, add: index > 0, ..piece };
                let (piece, sums) = match F::direct(out) {
                    Some(out) => (piece, out),
                    None => {
                        let whole = width * LANES;
                        let piece = Piece { channels: whole, pitch: whole, ..piece };
                        (piece, sums.as_flattened_mut())
                    }
                };
                job.weights.multiply(panel, groups, piece, starts, sums, scratch);
            }
            if !is_direct {
                finish.finish(Block { cpu, sums, first, channels, pitch }, out);
            }
        }
    }
    SCRATCH.set(kept);
}

/// Multiplies all lines of a piece with all starts.
pub(crate) fn multiply(cpu: Cpu, piece: &Piece<'_>, starts: &[usize], sums: &mut [i32]) {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512(avx512) => super::avx512::run(avx512, piece, starts, sums),
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2(avx2) => super::avx2::run(avx2, piece, starts, sums),
        Cpu::Portable => super::portable::run(piece, starts, sums),
    }
}
