//! The kernel on AVX2, which has no population count: `VPSHUFB` looks up the counts of nibbles in a table.
//!
//! A tile is 8 outputs, one in each 32-bit lane, times `N` pixels. Counts accumulate in bytes for as many words
//! as a byte can hold (`BYTE_WORDS`), and only then move to 32-bit sums, with the weight of their plane.
#![allow(
    unsafe_code,
    reason = "loads by pointer in the inner loop, and calls into an instruction set"
)]

use std::arch::x86_64::*;

use super::{BYTE_WORDS, Job, LANES, WORD, conv::Image};
use crate::cpu::Avx2;

/// Outputs in one register: half a group.
const HALF: usize = LANES / 2;

/// The planes of whole words of codes.
pub(super) fn split(_avx2: Avx2, codes: &[u8], bits: u8, words: &mut [u32]) {
    // SAFETY: `_avx2` proves that the processor has the instructions.
    unsafe { split_words(codes, usize::from(bits), words) }
}

#[target_feature(enable = "avx2")]
fn split_words(codes: &[u8], bits: usize, words: &mut [u32]) {
    for (codes, words) in codes.as_chunks::<WORD>().0.iter().zip(words.chunks_exact_mut(bits)) {
        // SAFETY: the array holds the 32 bytes of the load.
        let mut codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
        // `movemask` collects the top bit of every byte. Shifting left brings the highest plane there, then
        // each addition doubles the bytes and brings up the next lower one. There is no shift of bytes, only of
        // 16-bit lanes, but codes are below 2^bits, so that no bit crosses into the next byte.
        codes = _mm256_sll_epi16(codes, _mm_cvtsi32_si128(8 - bits as i32));
        for word in words.iter_mut().rev() {
            *word = _mm256_movemask_epi8(codes) as u32;
            codes = _mm256_add_epi8(codes, codes);
        }
    }
}

/// [`Image::gather`] with these instructions.
pub(super) fn gather<const A: usize>(
    _avx2: Avx2,
    image: &Image<'_>,
    words: usize,
    first: usize,
    windows: &mut [u32],
) {
    #[target_feature(enable = "avx2")]
    fn compiled<const A: usize>(
        image: &Image<'_>,
        words: usize,
        first: usize,
        windows: &mut [u32],
    ) {
        image.gather::<A>(words, first, windows);
    }
    // SAFETY: `_avx2` proves that the processor has the instructions.
    unsafe { compiled::<A>(image, words, first, windows) }
}

/// The sums of all panels of a job.
pub(super) fn run(_avx2: Avx2, job: &Job<'_>, out: &mut [i32]) {
    // SAFETY: `_avx2` proves that the processor has the instructions.
    unsafe { block(job, out) }
}

/// Cuts the outputs into halves of a group and the pixels into tiles.
#[target_feature(enable = "avx2")]
fn block(job: &Job<'_>, out: &mut [i32]) {
    job.check();
    let end = job.weights.outputs.min(2 * LANES * job.panels.end);
    for first in (2 * LANES * job.panels.start..end).step_by(HALF) {
        let (mut starts, mut out) = (job.starts, &mut *out);
        while !starts.is_empty() {
            // SAFETY: `check` passed, and the starts are some of the job's.
            let taken = unsafe {
                match starts.len() {
                    8.. => tile::<8>(job, first, starts, out),
                    4.. => tile::<4>(job, first, starts, out),
                    _ => tile::<1>(job, first, starts, out),
                }
            };
            starts = &starts[taken..];
            out = out.get_mut(taken * job.pitch..).unwrap_or_default();
        }
    }
}

/// The sums of 8 outputs from `first` on and of the first `N` pixels. Returns `N`.
///
/// # Safety
/// [`Job::check`] passed, and the starts are some of the job's.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn tile<const N: usize>(
    job: &Job<'_>,
    first: usize,
    starts: &[usize],
    out: &mut [i32],
) -> usize {
    let (runs, bits) = (job.runs, job.bits);
    let planes = usize::from(job.weights.bits);
    let (lanes, width) = job.weights.panel(first / (2 * LANES));
    assert_eq!(lanes.len(), planes * runs.count * runs.words * width, "a line for every word");
    assert!(first / LANES % 2 < width, "a group of the panel");
    let starts = &starts[..N];
    // The first line of this group; 8 outputs are half a line, at its start or its middle.
    let lines = lanes.as_ptr().wrapping_add(first / LANES % 2);
    let mut sums = [_mm256_setzero_si256(); N];
    for plane in 0..planes {
        for bit in 0..bits {
            let mut counts = [_mm256_setzero_si256(); N];
            // How many more words the bytes of `counts` can hold.
            let mut room = BYTE_WORDS;
            for run in 0..runs.count {
                let mut acts = [job.acts.as_ptr(); N];
                for (acts, start) in acts.iter_mut().zip(starts) {
                    *acts = acts.wrapping_add(start + run * runs.stride + bit);
                }
                let lines = lines.wrapping_add((plane * runs.count + run) * runs.words * width);
                let mut word = 0;
                while word < runs.words {
                    if room == 0 {
                        add_counts(&mut sums, &mut counts, bit);
                        room = BYTE_WORDS;
                    }
                    let end = runs.words.min(word + room);
                    room -= end - word;
                    while word < end {
                        // SAFETY: there are as many lines as words, `width` apart; half a line of 16 words
                        // is read, aligned to its 32 bytes.
                        let weights = unsafe {
                            let line = lines.add(word * width).cast::<u32>();
                            _mm256_load_si256(line.add(first % LANES).cast())
                        };
                        for (counts, acts) in counts.iter_mut().zip(&acts) {
                            // SAFETY: `Job::check` found the words of every run inside the activations.
                            let act = unsafe { *acts.add(word * bits) };
                            let both = _mm256_and_si256(weights, _mm256_set1_epi32(act as i32));
                            *counts = _mm256_add_epi8(*counts, count(both));
                        }
                        word += 1;
                    }
                }
            }
            add_counts(&mut sums, &mut counts, bit);
        }
        for sum in &mut sums {
            // The sign plane comes first and is negative; every further plane doubles what was summed before.
            if plane == 0 {
                *sum = _mm256_sub_epi32(_mm256_setzero_si256(), *sum);
            }
            if plane + 1 < planes {
                *sum = _mm256_slli_epi32::<1>(*sum);
            }
        }
    }
    let (left, column) = job.outputs(first);
    for (sum, out) in sums.iter().zip(out.chunks_mut(job.pitch)) {
        let mut values = [0; HALF];
        // SAFETY: the array holds the 32 bytes of the store.
        unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), *sum) };
        for (out, value) in out[column..].iter_mut().zip(values).take(left) {
            *out = value;
        }
    }
    N
}

/// The population count of every byte.
#[inline]
#[target_feature(enable = "avx2")]
fn count(bytes: __m256i) -> __m256i {
    let table =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    let nibbles = _mm256_set1_epi8(15);
    let low = _mm256_and_si256(bytes, nibbles);
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibbles);
    _mm256_add_epi8(_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high))
}

/// Adds byte counts for plane `bit` of the activations to 32-bit sums, times `2^bit`, and clears them.
#[inline]
#[target_feature(enable = "avx2")]
fn add_counts<const N: usize>(sums: &mut [__m256i; N], counts: &mut [__m256i; N], bit: usize) {
    let factor = _mm256_set1_epi16(1 << bit);
    for (sum, counts) in sums.iter_mut().zip(counts) {
        let pairs = _mm256_maddubs_epi16(*counts, _mm256_set1_epi8(1));
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, factor));
        *counts = _mm256_setzero_si256();
    }
}
