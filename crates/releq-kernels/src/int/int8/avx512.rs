//! The kernel on AVX-512 VNNI: one instruction (`VPDPBUSD`) for 64 products, with exact 32-bit sums.
//!
//! A tile is `W` lines of 16 outputs times `N` pixels. Every step loads `W` lines once, broadcasts four
//! activations of each pixel and updates `W * N` registers of sums. `W` and `N` are chosen so that sums and
//! lines fill the 32 vector registers and the pointers to pixels fit in the general ones; the fewer loads per
//! product, the closer to the peak.
#![allow(
    unsafe_code,
    reason = "loads and stores by pointer in the inner loop, and calls into an instruction set"
)]
#![allow(
    clippy::needless_range_loop,
    reason = "iterators over registers would put them into memory"
)]

use std::{arch::x86_64::*, ptr};

use super::{GROUP, Line, drive::Piece};
use crate::{
    cpu::Avx512,
    int::{
        epilogue::{Codes, Factors, Fused, LANES},
        requantise::Requantise,
    },
};

/// How many lines ahead to prefetch for a single pixel, which reads every line once.
const AHEAD: usize = 64;

/// What a tile prefetches besides. The lines behind those of a piece are the ones that are multiplied next, and all tiles of
/// the piece together fetch them into the second-level cache, a few in every step. Otherwise the first tile of the next piece would
/// wait for all of them.
#[derive(Clone, Copy)]
struct Next {
    first: *const u8,
    /// Bytes in each step.
    step: usize,
}

impl Next {
    /// For tiles of `N` out of `pixels`.
    fn of<const W: usize, const N: usize>(piece: &Piece<'_>, pixels: usize) -> Self {
        let step = W * size_of::<Line>() / pixels.div_ceil(N);
        Self { first: piece.lines.as_ptr_range().end.cast(), step }
    }

    /// After a tile.
    fn after<const W: usize>(self, piece: &Piece<'_>) -> Self {
        Self { first: self.first.wrapping_add(self.step * (piece.lines.len() / W)), ..self }
    }
}

/// Multiplies a piece and stores the sums.
pub(super) fn run(_avx512: Avx512, piece: &Piece<'_>, starts: &[usize], sums: &mut [i32]) {
    piece.check(starts, sums.len());
    // SAFETY: `_avx512` proves that the processor has the instructions, and `check` passed for the sums.
    unsafe {
        let sums = sums.as_mut_ptr();
        let to = To { sums, codes: ptr::null_mut(), factors: &[], grid: Codes::NONE };
        all::<false>(piece, starts, to);
    }
}

/// As [`run`], but converts the sums to codes while they are in registers.
pub(super) fn run_fused(_avx512: Avx512, piece: &Piece<'_>, starts: &[usize], codes: Fused<'_>) {
    let Fused { factors, codes: grid, out } = codes;
    piece.check(starts, out.len());
    assert!(piece.width <= factors.len(), "factors for every channel");
    // SAFETY: `_avx512` proves that the processor has the instructions, and `check` passed for the codes.
    unsafe {
        let codes = out.as_mut_ptr();
        all::<true>(piece, starts, To { sums: ptr::null_mut(), codes, factors, grid });
    }
}

/// Destination of the results: sums or codes.
#[derive(Clone, Copy)]
struct To<'a> {
    sums: *mut i32,
    codes: *mut u8,
    factors: &'a [Factors],
    grid: Codes,
}

impl To<'_> {
    /// The destination after `results` results.
    const fn after(self, results: usize) -> Self {
        let (sums, codes) = (self.sums.wrapping_add(results), self.codes.wrapping_add(results));
        Self { sums, codes, ..self }
    }
}

/// Makes the width a constant.
///
/// # Safety
/// [`Piece::check`] passed for these starts and results.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn all<const CODES: bool>(piece: &Piece<'_>, starts: &[usize], to: To<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match piece.width {
            1 => columns::<1, 12, CODES>(piece, starts, to),
            2 => columns::<2, 12, CODES>(piece, starts, to),
            3 => columns::<3, 8, CODES>(piece, starts, to),
            _ => columns::<4, 6, CODES>(piece, starts, to),
        }
    }
}

/// All pixels, `N` at a time; what remains goes to smaller tiles.
///
/// # Safety
/// [`Piece::check`] passed for these starts and results, and `W` is the width.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn columns<const W: usize, const N: usize, const CODES: bool>(
    piece: &Piece<'_>,
    starts: &[usize],
    to: To<'_>,
) {
    let (mut starts, mut to) = (starts, to);
    let mut next = Next::of::<W, N>(piece, starts.len());
    while !starts.is_empty() {
        // SAFETY: the caller's promise, for a part of the starts and their results.
        let taken = unsafe {
            match starts.len() {
                len if len >= N => tile::<W, N, 1, CODES>(piece, starts, to, next),
                4.. => tile::<W, 4, 1, CODES>(piece, starts, to, next),
                2.. => tile::<W, 2, 1, CODES>(piece, starts, to, next),
                _ => tile::<W, 1, 4, CODES>(piece, starts, to, next),
            }
        };
        starts = &starts[taken..];
        to = to.after(taken * piece.pitch);
        next = next.after::<W>(piece);
    }
}

/// `W` lines times `N` pixels, with all sums in registers. A tile of few pixels has too few sums to hide the
/// latency of the dot products, so it keeps `U` partial sums of each. Returns `N`.
///
/// # Safety
/// As for [`columns`], and there are `N` starts.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const W: usize, const N: usize, const U: usize, const CODES: bool>(
    piece: &Piece<'_>,
    starts: &[usize],
    to: To<'_>,
    next: Next,
) -> usize {
    let mut acc = [[[_mm512_setzero_si512(); W]; N]; U];
    let mut lines = piece.lines.as_ptr();
    let mut next = next;
    // SAFETY: the starts lie inside the activations.
    let acts: [_; N] = std::array::from_fn(|n| unsafe { piece.acts.as_ptr().add(starts[n]) });
    for segment in piece.segments {
        // SAFETY: the segments of all starts lie inside the activations.
        let acts: [_; N] = std::array::from_fn(|n| unsafe { acts[n].add(segment.offset) });
        let mut group = 0;
        while group + U <= segment.groups {
            // Fewer than 33 outputs have few weights, and their tiles have no register left for this.
            if W > 2 && U == 1 {
                _mm_prefetch::<_MM_HINT_T1>(next.first.cast());
                next.first = next.first.wrapping_add(next.step);
            }
            for (u, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the group lies inside the segment, and there are `W` lines for every group.
                lines = unsafe { step(acc, lines, acts, group + u, U > 1) };
            }
            group += U;
        }
        while U > 1 && group < segment.groups {
            // SAFETY: the group lies inside the segment, and there are `W` lines for every group.
            lines = unsafe { step(&mut acc[0], lines, acts, group, false) };
            group += 1;
        }
    }
    let masks: [u16; W] =
        std::array::from_fn(|m| u16::MAX >> (LANES - (piece.channels - m * LANES).min(LANES)));
    // Short loops by index are unrolled completely. With iterators, or with more in one loop, the compiler
    // would index the sums at run time and so keep them in memory.
    for n in 0..N {
        for m in 0..W {
            for u in 1..U {
                acc[0][n][m] = _mm512_add_epi32(acc[0][n][m], acc[u][n][m]);
            }
        }
    }
    let [acc, ..] = &mut acc[..] else { return N };
    if CODES {
        for m in 0..W {
            let requantise = Requantise::new(&to.factors[m], to.grid);
            for acc in &mut acc[..] {
                acc[m] = requantise.codes(acc[m]);
            }
        }
    }
    for n in 0..N {
        for m in 0..W {
            let (mask, at) = (masks[m], n * piece.pitch + m * LANES);
            // SAFETY: there is space for `channels` results every `pitch`, and the mask ends with them.
            unsafe {
                if CODES {
                    let codes = _mm512_cvtepi32_epi8(acc[n][m]);
                    _mm_mask_storeu_epi8(to.codes.add(at).cast(), mask, codes);
                } else {
                    store(acc[n][m], mask, to.sums.add(at), piece.add);
                }
            }
        }
    }
    N
}

/// Stores sums, or adds them to those in memory.
///
/// # Safety
/// There is space for as many sums as the mask has bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn store(sum: __m512i, mask: u16, to: *mut i32, add: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        let sum = match add {
            true => _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, to)),
            false => sum,
        };
        _mm512_mask_storeu_epi32(to, mask, sum);
    }
}

/// Adds the products of one group of 4 inputs, for all pixels. Returns a pointer to the next lines.
///
/// # Safety
/// `W` lines and the 4 activations of every pixel can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn step<const W: usize, const N: usize>(
    acc: &mut [[__m512i; W]; N],
    lines: *const Line,
    acts: [*const u8; N],
    group: usize,
    prefetch: bool,
) -> *const Line {
    let mut weights = [_mm512_setzero_si512(); W];
    for (m, weights) in weights.iter_mut().enumerate() {
        // SAFETY: the caller promises `W` lines, which are aligned; prefetching touches nothing.
        unsafe {
            if prefetch {
                _mm_prefetch::<_MM_HINT_T0>(lines.wrapping_add(m + AHEAD).cast());
            }
            *weights = _mm512_load_si512(lines.add(m).cast());
        }
    }
    for (acc, acts) in acc.iter_mut().zip(acts) {
        // SAFETY: the caller promises 4 activations there.
        let four = unsafe { acts.add(group * GROUP).cast::<i32>().read_unaligned() };
        let four = _mm512_set1_epi32(four);
        for (acc, weights) in acc.iter_mut().zip(weights) {
            *acc = _mm512_dpbusd_epi32(*acc, four, weights);
        }
    }
    // SAFETY: the result is at most one past the last line.
    unsafe { lines.add(W) }
}
