//! The kernel on AVX-512 VNNI: one instruction for 64 products.
#![allow(
    unsafe_code,
    reason = "loads and stores by pointer in the inner loop, and calls into an instruction set"
)]

use std::arch::x86_64::*;

use super::{GROUP, Line, drive::Piece};
use crate::epilogue::LANES;

/// Lines that are asked for ahead of a single pixel, which meets every line once.
const AHEAD: usize = 64;

pub(super) fn run(piece: &Piece<'_>, starts: &[usize], sums: &mut [i32]) {
    // SAFETY: `drive::multiply` is the only caller and asserted that the instruction set is there, that every
    // segment of every start lies inside the activations, that there are `width` lines for every group, and
    // that there is space for `channels` sums, which fill `width` lines, every `pitch` sums.
    unsafe {
        match piece.width {
            1 => columns::<1, 12>(piece, starts, sums),
            2 => columns::<2, 12>(piece, starts, sums),
            3 => columns::<3, 8>(piece, starts, sums),
            _ => columns::<4, 6>(piece, starts, sums),
        }
    }
}

/// All pixels, `N` at a time: with `W` lines these fill the registers, and `N` pointers the others.
///
/// # Safety
/// What `drive::multiply` asserts, and `W` is the width.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn columns<const W: usize, const N: usize>(
    piece: &Piece<'_>,
    starts: &[usize],
    sums: &mut [i32],
) {
    let (mut starts, mut sums) = (starts, sums);
    while !starts.is_empty() {
        // SAFETY: the caller's promise, for a part of the starts and their sums.
        let taken = unsafe {
            match starts.len() {
                len if len >= N => tile::<W, N, 1>(piece, starts, sums),
                4.. => tile::<W, 4, 1>(piece, starts, sums),
                2.. => tile::<W, 2, 1>(piece, starts, sums),
                _ => tile::<W, 1, 4>(piece, starts, sums),
            }
        };
        starts = &starts[taken..];
        sums = sums.get_mut(taken * piece.pitch..).unwrap_or_default();
    }
}

/// `W` lines times `N` pixels, all sums in registers; `U` sums of each, to have enough that are independent.
/// Returns `N`.
///
/// # Safety
/// As for [`columns`], and there are `N` starts.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const W: usize, const N: usize, const U: usize>(
    piece: &Piece<'_>,
    starts: &[usize],
    sums: &mut [i32],
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
    for n in 0..N {
        for m in 0..W {
            let mut sum = acc[0][n][m];
            for acc in &acc[1..] {
                sum = _mm512_add_epi32(sum, acc[n][m]);
            }
            let channels = (piece.channels - m * LANES).min(LANES);
            let mask = u16::MAX >> (LANES - channels);
            // SAFETY: there is space for `channels` sums every `pitch`, and the mask ends with them.
            unsafe {
                let to = sums.as_mut_ptr().add(n * piece.pitch + m * LANES);
                if piece.add {
                    sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, to));
                }
                _mm512_mask_storeu_epi32(to, mask, sum);
            }
        }
    }
    N
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
