//! The kernel on AVX2: population counts of bytes from a table of 16 nibbles.
#![allow(
    unsafe_code,
    reason = "loads by pointer in the inner loop, and calls into an instruction set"
)]

use std::arch::x86_64::*;

use super::{Job, LANES, Lanes, WORD};

/// Pixels in one tile.
const PIXELS: usize = 4;

/// The planes of 32 codes, appended.
pub(super) fn split(codes: &[u8; WORD], bits: u8, words: &mut Vec<u32>) {
    // SAFETY: only reached for instruction sets that `Isa::check` found, and each contains AVX2.
    unsafe { split_avx2(codes, bits, words) }
}

#[target_feature(enable = "avx2")]
fn split_avx2(codes: &[u8; WORD], bits: u8, words: &mut Vec<u32>) {
    // SAFETY: the array holds the 32 bytes of the load.
    let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
    for plane in 0..bits {
        // The wanted bit of every byte to its top, where the mask is taken; bits that cross from one
        // byte into its neighbour stay below it.
        let top = _mm256_sll_epi16(codes, _mm_cvtsi32_si128(i32::from(7 - plane)));
        words.push(_mm256_movemask_epi8(top) as u32);
    }
}

pub(super) fn run(job: &Job<'_>, out: &mut [i32]) {
    assert!(job.weights.isa.is_available(), "weights are packed for what is there");
    // SAFETY: the processor has AVX2, just asked.
    unsafe { block(job, out) }
}

#[target_feature(enable = "avx2")]
fn block(job: &Job<'_>, out: &mut [i32]) {
    let outputs = job.weights.outputs;
    for panel in 0..job.weights.panels() {
        let (lanes, width) = job.weights.panel(panel);
        // Each group of 16 outputs in two halves of 8.
        for half in 0..2 * width {
            let first = 2 * LANES * panel + 8 * half;
            if first >= outputs {
                break;
            }
            let mut pixel = 0;
            while pixel < job.starts.len() {
                let out = &mut out[pixel * outputs..];
                if pixel + PIXELS <= job.starts.len() {
                    tile::<PIXELS>(job, lanes, width, [half, first, pixel], out);
                    pixel += PIXELS;
                } else {
                    tile::<1>(job, lanes, width, [half, first, pixel], out);
                    pixel += 1;
                }
            }
        }
    }
}

/// The sums of 8 outputs, half a group, and of `N` pixels; `out` begins at the first of the pixels.
#[target_feature(enable = "avx2")]
fn tile<const N: usize>(
    job: &Job<'_>,
    lanes: &[Lanes],
    width: usize,
    [half, first, pixel]: [usize; 3],
    out: &mut [i32],
) {
    let (words, runs) = (job.weights.words, job.runs);
    let planes = usize::from(job.weights.bits);
    assert_eq!(lanes.len(), planes * words * width);
    let table = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3,
        3, 4,
    );
    let nibbles = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); N];
    for plane in 0..planes {
        let mut word = plane * words;
        for run in 0..runs.count {
            for index in 0..runs.words {
                // SAFETY: `lanes` was checked to hold `width` cache lines for each word of each plane,
                // and `half` counts halves of those lines.
                let weights = unsafe {
                    let line = lanes.as_ptr().add(word * width + half / 2).cast::<i32>();
                    _mm256_load_si256(line.add(8 * (half % 2)).cast())
                };
                for (n, sum) in sums.iter_mut().enumerate() {
                    let at = job.starts[pixel + n] + run * runs.stride + index * job.bits;
                    let acts = &job.acts[at..at + job.bits];
                    // Twice the higher planes plus the next lower one: at most 16 * 255 in 16 bits.
                    let mut counts = _mm256_setzero_si256();
                    for &act in acts.iter().rev() {
                        let both = _mm256_and_si256(weights, _mm256_set1_epi32(act as i32));
                        let low = _mm256_and_si256(both, nibbles);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), nibbles);
                        let bytes = _mm256_add_epi8(
                            _mm256_shuffle_epi8(table, low),
                            _mm256_shuffle_epi8(table, high),
                        );
                        let pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
                        counts = _mm256_add_epi16(_mm256_add_epi16(counts, counts), pairs);
                    }
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(counts, ones));
                }
                word += 1;
            }
        }
        for sum in &mut sums {
            // The sign plane comes first and counts negative; what follows doubles it.
            if plane == 0 {
                *sum = _mm256_sub_epi32(_mm256_setzero_si256(), *sum);
            }
            if plane + 1 < planes {
                *sum = _mm256_slli_epi32::<1>(*sum);
            }
        }
    }
    let outputs = job.weights.outputs;
    let kept = (outputs - first).min(8);
    for (n, sum) in sums.iter().enumerate() {
        let mut values = [0; 8];
        // SAFETY: the array holds the 32 bytes of the store.
        unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), *sum) };
        out[n * outputs + first..][..kept].copy_from_slice(&values[..kept]);
    }
}
