//! The kernel on AVX2: pixels of two taps are interleaved channel by channel and widened to 16 bits, so that one instruction
//! multiplies and adds both.
#![allow(
    unsafe_code,
    reason = "loads and stores by pointer in the inner loop, and calls into an instruction set"
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

/// Stores the sums of some pixels, `[pixels][channels / 16, rounded up]`.
pub(super) fn run(_avx2: Avx2, rows: &Rows<'_>, pairs: &[Pair], sums: &mut [[i32; LANES]]) {
    let taps = rows.shape.kernel * rows.shape.kernel;
    assert_eq!(pairs.len(), taps.div_ceil(TAPS) * rows.groups, "pairs for every tap");
    rows.check();
    assert!(rows.pixels * rows.groups <= sums.len(), "space for every sum");
    // SAFETY: `_avx2` proves that the processor has the instructions, and everything was checked.
    unsafe { all(rows, pairs, sums.as_mut_ptr()) }
}

/// # Safety
/// [`Rows::check`] passed, there are pairs for every tap, and there is space for the sums of all pixels.
#[target_feature(enable = "avx2")]
unsafe fn all(rows: &Rows<'_>, pairs: &[Pair], sums: *mut [i32; LANES]) {
    let (kernel, channels) = (rows.shape.kernel, rows.shape.channels);
    let taps = kernel * kernel;
    let place = |tap: usize| tap / kernel * rows.row + tap % kernel * channels;
    for Segment { first, start, count } in rows.segments() {
        for (pixel, group) in (0..count).flat_map(|p| (0..rows.groups).map(move |group| (p, group)))
        {
            let [mut low, mut high] = [_mm256_setzero_si256(); 2];
            // SAFETY: the windows lie inside the activations, 16 bytes can be read from each of their pixels, and there
            // are weights for all taps and space for the sums.
            unsafe {
                let window = rows.acts.as_ptr().add(start + pixel * rows.step() + group * LANES);
                let mut tap = 0;
                while tap < taps {
                    // Without a second tap, its weights are zero.
                    let (a, b) = (place(tap), place((tap + 1).min(taps - 1)));
                    let a = _mm_loadu_si128(window.add(a).cast());
                    let b = _mm_loadu_si128(window.add(b).cast());
                    let pair =
                        pairs.as_ptr().add(tap / TAPS * rows.groups + group).cast::<__m256i>();
                    let wide = |bytes| _mm256_cvtepu8_epi16(bytes);
                    let products =
                        _mm256_madd_epi16(wide(_mm_unpacklo_epi8(a, b)), _mm256_load_si256(pair));
                    low = _mm256_add_epi32(low, products);
                    let products = _mm256_madd_epi16(
                        wide(_mm_unpackhi_epi8(a, b)),
                        _mm256_load_si256(pair.add(1)),
                    );
                    high = _mm256_add_epi32(high, products);
                    tap += TAPS;
                }
                let to = sums.add((first + pixel) * rows.groups + group).cast::<__m256i>();
                _mm256_storeu_si256(to, low);
                _mm256_storeu_si256(to.add(1), high);
            }
        }
    }
}
