//! The kernel on AVX2.
//!
//! AVX2 has no dot product of bytes with 32-bit sums. `VPMADDUBSW` multiplies bytes and adds pairs in 16 bits,
//! saturating. This kernel stays exact by bounding what is summed in 16 bits: `short` groups, as many as cannot
//! overflow with the actual weights, and widening only after those. Wide weights, of which not even one group
//! is safe, are multiplied in 16 bits after sign extension (`VPMADDWD`), which takes twice as many
//! multiplications.
//!
//! A tile is one line of 16 outputs, two registers, times `N` pixels. Four pixels take 8 of the 16 registers
//! for 16-bit sums. The 32-bit sums are only touched once every `short` groups, so it does little harm that
//! they are spilled.
#![allow(
    unsafe_code,
    reason = "loads and stores by pointer in the inner loop, and calls into an instruction set"
)]

use std::arch::x86_64::*;

use super::{GROUP, Line, drive::Piece};
use crate::{cpu::Avx2, int::epilogue::LANES};

/// Number of vectors in a line.
const HALVES: usize = 2;
const HALF: usize = LANES / HALVES;
/// Stands for any number of groups that is too large to be unrolled by a constant.
const LOOP: usize = 4;
/// Groups in one iteration of that loop.
const UNROLL: usize = 4;

/// Multiplies a piece, and picks the tile by how many groups can be summed in 16 bits.
pub(super) fn run(_avx2: Avx2, piece: &Piece<'_>, starts: &[usize], sums: &mut [i32]) {
    piece.check(starts, sums.len());
    assert_eq!(piece.width, 1, "a panel is one line wide");
    // SAFETY: `_avx2` proves that the processor has the instructions, and `check` passed.
    unsafe {
        match piece.short {
            0 => columns::<3, 0>(piece, starts, sums),
            1 => columns::<4, 1>(piece, starts, sums),
            2 | 3 => columns::<4, 2>(piece, starts, sums),
            _ => columns::<4, LOOP>(piece, starts, sums),
        }
    }
}

/// All pixels, `N` at a time.
///
/// # Safety
/// [`Piece::check`] passed for these starts and sums, and the width is 1.
#[target_feature(enable = "avx2")]
unsafe fn columns<const N: usize, const S: usize>(
    piece: &Piece<'_>,
    starts: &[usize],
    sums: &mut [i32],
) {
    let (mut starts, mut sums) = (starts, sums);
    while !starts.is_empty() {
        // SAFETY: the caller's promise, for a part of the starts and their sums.
        let taken = unsafe {
            if starts.len() >= N {
                tile::<N, S>(piece, starts, sums)
            } else {
                tile::<1, S>(piece, starts, sums)
            }
        };
        starts = &starts[taken..];
        sums = sums.get_mut(taken * piece.pitch..).unwrap_or_default();
    }
}

/// 16 outputs of `N` pixels. Products of `S` groups are summed in 16 bits before they are widened; if `S` is 0, the
/// factors are widened instead. Returns `N`.
///
/// # Safety
/// As for [`columns`], and there are `N` starts.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn tile<const N: usize, const S: usize>(
    piece: &Piece<'_>,
    starts: &[usize],
    sums: &mut [i32],
) -> usize {
    let mut acc = [[_mm256_setzero_si256(); HALVES]; N];
    let mut lines = piece.lines.as_ptr();
    // SAFETY: the starts lie inside the activations.
    let acts: [_; N] = std::array::from_fn(|n| unsafe { piece.acts.as_ptr().add(starts[n]) });
    for segment in piece.segments {
        // SAFETY: the segments of all starts lie inside the activations.
        let acts: [_; N] = std::array::from_fn(|n| unsafe { acts[n].add(segment.offset) });
        let mut group = 0;
        // SAFETY: every call reads groups inside the segment, and there is one line for every group.
        unsafe {
            // `S` is a constant: only the loops for it remain after compilation.
            if S == 0 {
                while group < segment.groups {
                    lines = wide(&mut acc, lines, acts, group);
                    group += 1;
                }
            }
            while S == LOOP && group < segment.groups {
                let count = piece.short.min(segment.groups - group);
                lines = narrow(&mut acc, lines, acts, group, count);
                group += count;
            }
            while S == 2 && group + 2 <= segment.groups {
                lines = narrow(&mut acc, lines, acts, group, 2);
                group += 2;
            }
            while (S == 1 || S == 2) && group < segment.groups {
                lines = narrow(&mut acc, lines, acts, group, 1);
                group += 1;
            }
        }
    }
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (n, acc) in acc.iter().enumerate() {
        for (half, &acc) in acc.iter().enumerate() {
            let channels = piece.channels.saturating_sub(half * HALF).min(HALF);
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(channels as i32), lane);
            // SAFETY: there is space for `channels` sums every `pitch`, and the mask ends with them.
            unsafe {
                let to = sums.as_mut_ptr().add(n * piece.pitch).wrapping_add(half * HALF);
                let mut sum = acc;
                if piece.add {
                    sum = _mm256_add_epi32(sum, _mm256_maskload_epi32(to, mask));
                }
                if channels == HALF {
                    _mm256_storeu_si256(to.cast(), sum);
                } else {
                    // Only for partial lines: masked stores are much slower on some processors.
                    _mm256_maskstore_epi32(to, mask, sum);
                }
            }
        }
    }
    N
}

/// Four activations of a pixel, repeated in every lane.
///
/// # Safety
/// Four activations can be read there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn broadcast(acts: *const u8, group: usize) -> __m256i {
    // SAFETY: the caller's promise.
    _mm256_set1_epi32(unsafe { acts.add(group * GROUP).cast::<i32>().read_unaligned() })
}

/// Half of a line.
///
/// # Safety
/// `line` points to a line.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn weights(line: *const Line, half: usize) -> __m256i {
    // SAFETY: the caller's promise; lines are aligned.
    unsafe { _mm256_load_si256(line.cast::<__m256i>().add(half)) }
}

/// Adds `count` groups, summed in 16 bits first. Returns a pointer to the next lines.
///
/// # Safety
/// The groups of every pixel and their lines can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn narrow<const N: usize>(
    acc: &mut [[__m256i; HALVES]; N],
    lines: *const Line,
    acts: [*const u8; N],
    group: usize,
    count: usize,
) -> *const Line {
    let mut short = [[_mm256_setzero_si256(); HALVES]; N];
    let mut s = 0;
    // SAFETY: the caller promises the lines and the activations of all groups.
    unsafe {
        while s + UNROLL <= count {
            for u in 0..UNROLL {
                multiply(&mut short, lines.add(s + u), acts, group + s + u);
            }
            s += UNROLL;
        }
        while s < count {
            multiply(&mut short, lines.add(s), acts, group + s);
            s += 1;
        }
    }
    let ones = _mm256_set1_epi16(1);
    for n in 0..N {
        for half in 0..HALVES {
            let sums = _mm256_madd_epi16(short[n][half], ones);
            acc[n][half] = _mm256_add_epi32(acc[n][half], sums);
        }
    }
    // SAFETY: the result is at most one past the last line.
    unsafe { lines.add(count) }
}

/// Adds one group to 16-bit sums.
///
/// # Safety
/// The group of every pixel and its line can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn multiply<const N: usize>(
    short: &mut [[__m256i; HALVES]; N],
    line: *const Line,
    acts: [*const u8; N],
    group: usize,
) {
    // SAFETY: the caller promises the line.
    let weights = unsafe { [weights(line, 0), weights(line, 1)] };
    for (short, acts) in short.iter_mut().zip(acts) {
        // SAFETY: the caller promises the activations.
        let acts = unsafe { broadcast(acts, group) };
        for (short, weights) in short.iter_mut().zip(weights) {
            *short = _mm256_add_epi16(*short, _mm256_maddubs_epi16(acts, weights));
        }
    }
}

/// Adds one group to 32-bit sums, with factors widened to 16 bits. Returns a pointer to the next line.
///
/// # Safety
/// The group of every pixel and its line can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn wide<const N: usize>(
    acc: &mut [[__m256i; HALVES]; N],
    lines: *const Line,
    acts: [*const u8; N],
    group: usize,
) -> *const Line {
    // SAFETY: the caller promises the line.
    let weights = unsafe { [weights(lines, 0), weights(lines, 1)] };
    // Bytes at even and odd positions, sign extended to 16 bits. The products of each half pair up in 32-bit
    // lanes, and since a sum takes all four inputs of a group, their order does not matter.
    let even = weights.map(|w| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)));
    let odd = weights.map(|w| _mm256_srai_epi16::<8>(w));
    let low = _mm256_set1_epi16(255);
    for (acc, acts) in acc.iter_mut().zip(acts) {
        // SAFETY: the caller promises the activations.
        let acts = unsafe { broadcast(acts, group) };
        let (a, b) = (_mm256_and_si256(acts, low), _mm256_srli_epi16::<8>(acts));
        for ((acc, even), odd) in acc.iter_mut().zip(even).zip(odd) {
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(a, even));
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(b, odd));
        }
    }
    // SAFETY: the result is at most one past the last line.
    unsafe { lines.add(1) }
}
