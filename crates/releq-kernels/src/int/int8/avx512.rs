//! The kernel on AVX-512 VNNI: one instruction for 64 products.
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
        epilogue::{Fused, LANES},
        requantise::Requantise,
    },
};

/// Lines that are asked for ahead of a single pixel, which meets every line once.
const AHEAD: usize = 64;

pub(super) fn run(_avx512: Avx512, piece: &Piece<'_>, starts: &[usize], sums: &mut [i32]) {
    piece.check(starts, sums.len());
    // SAFETY: `_avx512` proves that the processor has the instructions, and `check` passed for the sums.
    unsafe {
        let sums = sums.as_mut_ptr();
        let to = To { sums, codes: ptr::null_mut(), factors: &[], largest: 0.0 };
        all::<false>(piece, starts, to);
    }
}

/// As [`run`], but makes codes of the sums while they are in registers.
pub(super) fn run_fused(_avx512: Avx512, piece: &Piece<'_>, starts: &[usize], codes: Fused<'_>) {
    let Fused { factors, largest, out } = codes;
    piece.check(starts, out.len());
    assert!(piece.width <= factors.len(), "factors for every channel");
    // SAFETY: `_avx512` proves that the processor has the instructions, and `check` passed for the codes.
    unsafe {
        let codes = out.as_mut_ptr();
        all::<true>(piece, starts, To { sums: ptr::null_mut(), codes, factors, largest });
    }
}

/// Where results go: sums or codes.
#[derive(Clone, Copy)]
struct To<'a> {
    sums: *mut i32,
    codes: *mut u8,
    factors: &'a [[[f32; LANES]; 2]],
    largest: f32,
}

impl To<'_> {
    /// So many results later.
    const fn after(self, results: usize) -> Self {
        let (sums, codes) = (self.sums.wrapping_add(results), self.codes.wrapping_add(results));
        Self { sums, codes, ..self }
    }
}

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

/// All pixels, `N` at a time: with `W` lines these fill the registers, and `N` pointers the others.
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
    while !starts.is_empty() {
        // SAFETY: the caller's promise, for a part of the starts and their results.
        let taken = unsafe {
            match starts.len() {
                len if len >= N => tile::<W, N, 1, CODES>(piece, starts, to),
                4.. => tile::<W, 4, 1, CODES>(piece, starts, to),
                2.. => tile::<W, 2, 1, CODES>(piece, starts, to),
                _ => tile::<W, 1, 4, CODES>(piece, starts, to),
            }
        };
        starts = &starts[taken..];
        to = to.after(taken * piece.pitch);
    }
}

/// `W` lines times `N` pixels, all sums in registers; `U` sums of each, to have enough that are independent.
/// Returns `N`.
///
/// # Safety
/// As for [`columns`], and there are `N` starts.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const W: usize, const N: usize, const U: usize, const CODES: bool>(
    piece: &Piece<'_>,
    starts: &[usize],
    to: To<'_>,
) -> usize {
    let mut acc = [[[_mm512_setzero_si512(); W]; N]; U];
    let mut lines = piece.lines.as_ptr();
    // SAFETY: the starts lie inside the activations.
    let acts: [_; N] = std::array::from_fn(|n| unsafe { piece.acts.as_ptr().add(starts[n]) });
    for segment in piece.segments {
        // SAFETY: so do the segments of every start.
        let acts: [_; N] = std::array::from_fn(|n| unsafe { acts[n].add(segment.offset) });
        let mut group = 0;
        while group + U <= segment.groups {
            for (u, acc) in acc.iter_mut().enumerate() {
                // SAFETY: less than `groups` of a segment, and `W` lines for every group before.
                lines = unsafe { step(acc, lines, acts, group + u, U > 1) };
            }
            group += U;
        }
        while U > 1 && group < segment.groups {
            // SAFETY: as before.
            lines = unsafe { step(&mut acc[0], lines, acts, group, false) };
            group += 1;
        }
    }
    let masks: [u16; W] =
        std::array::from_fn(|m| u16::MAX >> (LANES - (piece.channels - m * LANES).min(LANES)));
    // By index and with little to do in one loop, so that all of them vanish; else the sums would live in memory.
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
            let requantise = Requantise::new(&to.factors[m], to.largest);
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

/// Stores sums, or adds them to those there are.
///
/// # Safety
/// There are as many as the mask has bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn store(sum: __m512i, mask: u16, to: *mut i32, add: bool) {
    // SAFETY: the caller promises it.
    unsafe {
        let sum = match add {
            true => _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, to)),
            false => sum,
        };
        _mm512_mask_storeu_epi32(to, mask, sum);
    }
}

/// One group of 4 activations of every pixel. Returns where the next lines are.
///
/// # Safety
/// There are `W` lines, and 4 activations at the group of every pixel.
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
    // SAFETY: at most one past the last line.
    unsafe { lines.add(W) }
}
