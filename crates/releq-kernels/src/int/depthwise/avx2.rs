//! The kernel on AVX2: pixels of two taps are interleaved channel by channel and widened to 16 bits, so that one instruction
//! multiplies and adds both.
#![allow(
    unsafe_code,
    reason = "loads and stores by pointer in the inner loop, and calls into an instruction set"
)]
#![allow(
    clippy::needless_range_loop,
    reason = "iterators over registers would put them into memory"
)]

use std::arch::x86_64::*;

use super::{Rows, Segment};
use crate::{cpu::Avx2, int::epilogue::LANES};

/// Taps that are multiplied together.
pub(super) const TAPS: usize = 2;

/// Weights of 16 channels and two taps, `[16][2]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Pair(pub(super) [i16; LANES * TAPS]);

/// Pairs of the commonest window, of 3 x 3.
const NINE: usize = 5;

/// Where the taps are, from the start of a window, two by two. Without a second tap, its weights are zero.
pub(super) fn places(kernel: usize, row: usize, channels: usize) -> Vec<[usize; TAPS]> {
    let taps = kernel * kernel;
    let place = |tap: usize| tap / kernel * row + tap % kernel * channels;
    let pair = |pair: usize| [place(TAPS * pair), place((TAPS * pair + 1).min(taps - 1))];
    (0..taps.div_ceil(TAPS)).map(pair).collect()
}

/// Stores the sums of some pixels, `[pixels][channels / 16, rounded up]`. The places are those of [`places`].
pub(super) fn run(
    _avx2: Avx2,
    rows: &Rows<'_>,
    pairs: &[Pair],
    places: &[[usize; TAPS]],
    sums: &mut [[i32; LANES]],
) {
    assert_eq!(pairs.len(), places.len() * rows.groups, "weights for every tap");
    rows.check();
    let kernel = rows.shape.kernel - 1;
    let last = kernel * rows.row + kernel * rows.shape.channels;
    assert!(places.iter().flatten().all(|&place| place <= last), "taps inside of the window");
    assert!(rows.pixels * rows.groups <= sums.len(), "space for every sum");
    let sums = sums.as_mut_ptr();
    for segment in rows.segments() {
        for group in 0..rows.groups {
            // SAFETY: `_avx2` proves that the processor has the instructions, and everything was checked.
            unsafe {
                match places.first_chunk::<NINE>() {
                    Some(places) if pairs.len() == NINE * rows.groups => {
                        nine(rows, segment, pairs, places, group, sums);
                    }
                    _ => any(rows, segment, pairs, places, group, sums),
                }
            }
        }
    }
}

/// Sums of 16 channels: the first eight, and the others.
type Sums = [__m256i; 2];

/// Adds the products of a pair of taps.
///
/// # Safety
/// Sixteen bytes can be read from both taps.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn step(sums: Sums, taps: [*const u8; TAPS], weights: [__m256i; 2]) -> Sums {
    let [low, high] = sums;
    // SAFETY: the caller's promise.
    let [a, b] = unsafe { [_mm_loadu_si128(taps[0].cast()), _mm_loadu_si128(taps[1].cast())] };
    let first = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
    let others = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
    [
        _mm256_add_epi32(low, _mm256_madd_epi16(first, weights[0])),
        _mm256_add_epi32(high, _mm256_madd_epi16(others, weights[1])),
    ]
}

/// The weights of a pair of taps for one group.
///
/// # Safety
/// There are weights for the pair and the group.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn weights(pairs: &[Pair], at: usize) -> [__m256i; 2] {
    // SAFETY: the caller's promise; pairs are aligned.
    unsafe {
        let pair = pairs.as_ptr().add(at).cast::<__m256i>();
        [_mm256_load_si256(pair), _mm256_load_si256(pair.add(1))]
    }
}

/// Stores the sums of 16 channels.
///
/// # Safety
/// There is space for them.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store([low, high]: Sums, to: *mut [i32; LANES]) {
    // SAFETY: the caller's promise.
    unsafe {
        _mm256_storeu_si256(to.cast(), low);
        _mm256_storeu_si256(to.cast::<__m256i>().add(1), high);
    }
}

/// Nine taps, whose weights stay in registers.
///
/// # Safety
/// The windows lie inside the activations, 16 bytes can be read from each of their pixels, and there are weights for all
/// taps and space for the sums.
#[target_feature(enable = "avx2")]
unsafe fn nine(
    rows: &Rows<'_>,
    Segment { first, start, count }: Segment,
    pairs: &[Pair],
    places: &[[usize; TAPS]; NINE],
    group: usize,
    to: *mut [i32; LANES],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let weights: [_; NINE] =
            std::array::from_fn(|pair| weights(pairs, pair * rows.groups + group));
        let mut window = rows.acts.as_ptr().add(start + group * LANES);
        for pixel in 0..count {
            let mut sums = [_mm256_setzero_si256(); 2];
            for pair in 0..NINE {
                let taps = places[pair].map(|place| window.wrapping_add(place));
                sums = step(sums, taps, weights[pair]);
            }
            store(sums, to.add((first + pixel) * rows.groups + group));
            window = window.wrapping_add(rows.step());
        }
    }
}

/// Any number of taps.
///
/// # Safety
/// As for [`nine`].
#[target_feature(enable = "avx2")]
unsafe fn any(
    rows: &Rows<'_>,
    Segment { first, start, count }: Segment,
    pairs: &[Pair],
    places: &[[usize; TAPS]],
    group: usize,
    to: *mut [i32; LANES],
) {
    for pixel in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            let window = rows.acts.as_ptr().add(start + pixel * rows.step() + group * LANES);
            let mut sums = [_mm256_setzero_si256(); 2];
            for (pair, places) in places.iter().enumerate() {
                let taps = places.map(|place| window.wrapping_add(place));
                sums = step(sums, taps, weights(pairs, pair * rows.groups + group));
            }
            store(sums, to.add((first + pixel) * rows.groups + group));
        }
    }
}
