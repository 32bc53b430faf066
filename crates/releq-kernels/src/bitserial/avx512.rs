//! The kernel on AVX-512 with BITALG, VNNI and VPOPCNTDQ: AND, count, accumulate are three instructions for
//! 512 products of bits.
#![allow(
    unsafe_code,
    reason = "loads by pointer in the inner loop, and calls into an instruction set"
)]

use std::arch::x86_64::*;

use super::{Job, LANES, Lanes};

pub(super) fn run(job: &Job<'_>, out: &mut [i32]) {
    assert!(job.weights.isa.is_available(), "weights are packed for what is there");
    // SAFETY: the processor has the instruction set, just asked.
    unsafe {
        match job.bits {
            1 => block::<1>(job, out),
            2 => block::<2>(job, out),
            3 => block::<3>(job, out),
            4 => block::<4>(job, out),
            5 => block::<5>(job, out),
            6 => block::<6>(job, out),
            7 => block::<7>(job, out),
            _ => block::<8>(job, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
fn block<const A: usize>(job: &Job<'_>, out: &mut [i32]) {
    let (panels, pixels) = (job.weights.panels(), job.starts.len());
    let full = job.weights.outputs.div_ceil(LANES) / 2;
    let mut panel = 0;
    // Few pixels leave too few sums to hide the latency of the additions: take panels together.
    while pixels < 8 && panel + 4 <= full {
        columns::<4, 2, 2, A>(job, panel, out);
        panel += 4;
    }
    while panel < panels {
        if panel < full {
            columns::<1, 2, 8, A>(job, panel, out);
        } else {
            columns::<1, 1, 16, A>(job, panel, out);
        }
        panel += 1;
    }
}

/// `P` panels of `W` groups of 16 outputs over all pixels, `N` at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
fn columns<const P: usize, const W: usize, const N: usize, const A: usize>(
    job: &Job<'_>,
    panel: usize,
    out: &mut [i32],
) {
    let outputs = job.weights.outputs;
    let panels: [&[Lanes]; P] = std::array::from_fn(|p| job.weights.panel(panel + p).0);
    let mut pixel = 0;
    while pixel + N <= job.starts.len() {
        tile::<P, W, N, A>(job, &panels, panel, pixel, &mut out[pixel * outputs..]);
        pixel += N;
    }
    while pixel + 4 <= job.starts.len() && N > 4 {
        tile::<P, W, 4, A>(job, &panels, panel, pixel, &mut out[pixel * outputs..]);
        pixel += 4;
    }
    while pixel < job.starts.len() {
        tile::<P, W, 1, A>(job, &panels, panel, pixel, &mut out[pixel * outputs..]);
        pixel += 1;
    }
}

/// The sums of `P` panels and `N` pixels, in registers from the first plane to the last; `out` begins at the
/// first of the pixels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
fn tile<const P: usize, const W: usize, const N: usize, const A: usize>(
    job: &Job<'_>,
    panels: &[&[Lanes]; P],
    panel: usize,
    pixel: usize,
    out: &mut [i32],
) {
    let (words, runs) = (job.weights.words, job.runs);
    let planes = usize::from(job.weights.bits);
    for lanes in panels {
        assert_eq!(lanes.len(), planes * words * W);
    }
    let starts: [usize; N] = std::array::from_fn(|n| job.starts[pixel + n]);
    let factors: [__m512i; A] = std::array::from_fn(|j| _mm512_set1_epi8((1_u8 << j) as i8));
    let mut sums = [[[_mm512_setzero_si512(); W]; P]; N];
    for plane in 0..planes {
        let mut word = plane * words;
        for run in 0..runs.count {
            for index in 0..runs.words {
                let weights: [[__m512i; W]; P] = std::array::from_fn(|p| {
                    std::array::from_fn(|w| {
                        // SAFETY: `word` counts the words of this plane, and every panel was checked to
                        // hold W cache lines for each word of each plane.
                        unsafe { _mm512_load_si512(panels[p].as_ptr().add(word * W + w).cast()) }
                    })
                });
                for (n, sums) in sums.iter_mut().enumerate() {
                    for (j, factor) in factors.iter().enumerate() {
                        let at = starts[n] + run * runs.stride + index * A + j;
                        // SAFETY: `Job` promises that all words of all runs of a start are in `acts`.
                        let act = unsafe { *job.acts.as_ptr().add(at) };
                        let act = _mm512_set1_epi32(act as i32);
                        for (sums, weights) in sums.iter_mut().zip(&weights) {
                            for (sum, weights) in sums.iter_mut().zip(weights) {
                                let both = _mm512_and_si512(*weights, act);
                                *sum = if A == 1 {
                                    _mm512_add_epi32(*sum, _mm512_popcnt_epi32(both))
                                } else {
                                    // Unsigned 2^j times counts of at most 8, four to a sum.
                                    let counts = _mm512_popcnt_epi8(both);
                                    _mm512_dpbusd_epi32(*sum, *factor, counts)
                                };
                            }
                        }
                    }
                }
                word += 1;
            }
        }
        for sum in sums.iter_mut().flatten().flatten() {
            // The sign plane comes first and counts negative; what follows doubles it.
            if plane == 0 {
                *sum = _mm512_sub_epi32(_mm512_setzero_si512(), *sum);
            }
            if plane + 1 < planes {
                *sum = _mm512_slli_epi32::<1>(*sum);
            }
        }
    }
    let outputs = job.weights.outputs;
    for (n, sums) in sums.iter().enumerate() {
        let row = &mut out[n * outputs..][..outputs];
        for (group, sum) in sums.iter().flatten().enumerate() {
            let row = &mut row[LANES * (2 * panel + group)..];
            let mask = if row.len() >= LANES { u16::MAX } else { (1 << row.len()) - 1 };
            // SAFETY: the mask lets through no more values than the row has left.
            unsafe { _mm512_mask_storeu_epi32(row.as_mut_ptr(), mask, *sum) };
        }
    }
}
