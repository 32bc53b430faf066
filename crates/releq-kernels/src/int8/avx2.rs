//! The kernel on AVX2: exact, because nothing is summed in 16 bits that could overflow there.
#![allow(
    unsafe_code,
    reason = "loads and stores by pointer in the inner loop, and calls into an instruction set"
)]

use std::arch::x86_64::*;

use super::{GROUP, Line, drive::Piece};
use crate::epilogue::LANES;

/// Vectors of a line.
const HALVES: usize = 2;
const HALF: usize = LANES / HALVES;

pub(super) fn run(piece: &Piece<'_>, starts: &[usize], sums: &mut [i32]) {
    assert_eq!(piece.width, 1, "a panel is one line wide");
    // SAFETY: `drive::multiply` is the only caller and asserted that the instruction set is there, that every
    // segment of every start lies inside the activations, that there is a line for every group, and that there
    // is space for `channels` sums every `pitch` sums.
    unsafe {
        match piece.short {
            0 => columns::<3, 0>(piece, starts, sums),
            1..4 => columns::<3, 1>(piece, starts, sums),
            _ => columns::<4, 2>(piece, starts, sums),
        }
    }
}

/// All pixels, `N` at a time.
///
/// # Safety
/// What `drive::multiply` asserts.
#[target_feature(enable = "avx2")]
unsafe fn columns<const N: usize, const MODE: u8>(
    piece: &Piece<'_>,
    starts: &[usize],
    sums: &mut [i32],
) {
    let (mut starts, mut sums) = (starts, sums);
    while !starts.is_empty() {
        // SAFETY: the caller's promise, for a part of the starts and their sums.
        let taken = unsafe {
            if starts.len() >= N {
                tile::<N, MODE>(piece, starts, sums)
            } else {
                tile::<1, MODE>(piece, starts, sums)
            }
        };
        starts = &starts[taken..];
        sums = sums.get_mut(taken * piece.pitch..).unwrap_or_default();
    }
}

/// 16 outputs of `N` pixels. In `MODE` 0 products are summed in 32 bits, else in 16 bits for as many groups as
/// are safe. Returns `N`.
///
/// # Safety
/// As for [`columns`], and there are `N` starts.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn tile<const N: usize, const MODE: u8>(
    piece: &Piece<'_>,
    starts: &[usize],
    sums: &mut [i32],
) -> usize {
    let mut acc = [[_mm256_setzero_si256(); HALVES]; N];
    let mut lines = piece.lines.as_ptr();
    // SAFETY: the starts lie inside the activations.
    let acts: [_; N] = std::array::from_fn(|n| unsafe { piece.acts.as_ptr().add(starts[n]) });
    for segment in piece.segments {
        // SAFETY: so do the segments of every start.
        let acts: [_; N] = std::array::from_fn(|n| unsafe { acts[n].add(segment.offset) });
        let mut group = 0;
        while group < segment.groups {
            let end = match MODE {
                0 => group + 1,
                _ => (group + piece.short).min(segment.groups),
            };
            // SAFETY: the groups are inside the segment, with one line for each group before.
            lines = unsafe {
                if MODE == 0 {
                    wide(&mut acc, lines, acts, group)
                } else {
                    narrow(&mut acc, lines, acts, group, end)
                }
            };
            group = end;
        }
    }
    for (n, acc) in acc.iter().enumerate() {
        let sums = &mut sums[n * piece.pitch..][..piece.channels];
        let mut all = [0; LANES];
        for (half, acc) in all.chunks_exact_mut(HALF).zip(acc) {
            // SAFETY: 8 values of 32 bits.
            unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), *acc) };
        }
        for (sum, new) in sums.iter_mut().zip(all) {
            *sum = if piece.add { *sum + new } else { new };
        }
    }
    N
}

/// Four activations of a pixel, in every lane.
///
/// # Safety
/// They are there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn broadcast(acts: *const u8, group: usize) -> __m256i {
    // SAFETY: the caller promises it.
    _mm256_set1_epi32(unsafe { acts.add(group * GROUP).cast::<i32>().read_unaligned() })
}

/// Half of a line.
///
/// # Safety
/// There is a line.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn weights(line: *const Line, half: usize) -> __m256i {
    // SAFETY: the caller promises it, and lines are aligned.
    unsafe { _mm256_load_si256(line.cast::<__m256i>().add(half)) }
}

/// Groups `from..to`, no more than 16 bits can sum. Returns where the next lines are.
///
/// # Safety
/// The groups of every pixel and their lines are there.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn narrow<const N: usize>(
    acc: &mut [[__m256i; HALVES]; N],
    lines: *const Line,
    acts: [*const u8; N],
    from: usize,
    to: usize,
) -> *const Line {
    let ones = _mm256_set1_epi16(1);
    let mut short = [[_mm256_setzero_si256(); HALVES]; N];
    let mut lines = lines;
    for group in from..to {
        // SAFETY: the caller promises the line and the activations.
        unsafe {
            let weights = [weights(lines, 0), weights(lines, 1)];
            for (short, acts) in short.iter_mut().zip(acts) {
                let acts = broadcast(acts, group);
                for (short, weights) in short.iter_mut().zip(weights) {
                    *short = _mm256_add_epi16(*short, _mm256_maddubs_epi16(acts, weights));
                }
            }
            lines = lines.add(1);
        }
    }
    for (acc, short) in acc.iter_mut().flatten().zip(short.into_iter().flatten()) {
        *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(short, ones));
    }
    lines
}

/// One group, widened to 16 bits and summed in 32. Returns where the next line is.
///
/// # Safety
/// The group of every pixel and its line are there.
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
    // SAFETY: at most one past the last line.
    unsafe { lines.add(1) }
}
