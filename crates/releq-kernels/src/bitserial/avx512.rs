//! The kernel on AVX-512 with VNNI, BITALG and VPOPCNTDQ: three instructions for 512 products of bits.
#![allow(
    unsafe_code,
    reason = "loads by pointer in the inner loop, and calls into an instruction set"
)]

use std::arch::x86_64::*;

use super::{Job, LANES, Lanes, WORD};

/// Where the bytes of planes come from, for 1 to 8 bits. Byte `j` of group `g` of 8 holds bit `j` of codes
/// `8 g` to `8 g + 7`; this brings together the four groups of each plane of each word.
static ORDERS: [[u8; 64]; 8] = {
    let mut orders = [[0; 64]; 8];
    let mut at = 0;
    while at < 8 * 64 {
        let (bits, to) = (at / 64 + 1, at % 64);
        let (word, plane, group) = (to / 4 / bits, to / 4 % bits, to % 4);
        if word < 2 {
            orders[bits - 1][to] = (8 * (4 * word + group) + plane) as u8;
        }
        at += 1;
    }
    orders
};

/// The planes of whole words of codes.
pub(super) fn split(codes: &[u8], bits: u8, words: &mut [u32]) {
    // SAFETY: `planes::split` is the only caller and asserted that the instruction set is there.
    unsafe { split_blocks(codes, usize::from(bits), words) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn split_blocks(codes: &[u8], bits: usize, words: &mut [u32]) {
    // SAFETY: the array holds the 64 bytes of the load.
    let order = unsafe { _mm512_loadu_si512(ORDERS[bits - 1].as_ptr().cast()) };
    for (codes, words) in codes.chunks(2 * WORD).zip(words.chunks_mut(2 * bits)) {
        let mask = u64::MAX >> (64 - codes.len());
        // SAFETY: the mask reads no more bytes than the chunk has.
        let mut x = unsafe { _mm512_maskz_loadu_epi8(mask, codes.as_ptr().cast()) };
        // Transposes 8x8 bits in every group: swaps single bits, then blocks of 2x2, then of 4x4.
        x = swap::<7>(x, 0x00aa_00aa_00aa_00aa);
        x = swap::<14>(x, 0x0000_cccc_0000_cccc);
        x = swap::<28>(x, 0x0000_0000_f0f0_f0f0);
        let planes = _mm512_permutexvar_epi8(order, x);
        let mask = u16::MAX >> (16 - words.len());
        // SAFETY: the mask writes no more words than the chunk has.
        unsafe { _mm512_mask_storeu_epi32(words.as_mut_ptr().cast(), mask, planes) };
    }
}

/// Swaps the bits of `mask` with those `N` above them.
#[inline]
#[target_feature(enable = "avx512f")]
fn swap<const N: u32>(x: __m512i, mask: i64) -> __m512i {
    const XOR_THEN_AND: i32 = 0x28;
    const XOR: i32 = 0x96;
    let mask = _mm512_set1_epi64(mask);
    let moved = _mm512_ternarylogic_epi64::<XOR_THEN_AND>(x, _mm512_srli_epi64::<N>(x), mask);
    _mm512_ternarylogic_epi64::<XOR>(x, moved, _mm512_slli_epi64::<N>(moved))
}

pub(super) fn run(job: &Job<'_>, out: &mut [i32]) {
    // SAFETY: `multiply` is the only caller and asserted that the instruction set is there.
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
    for panel in 0..job.weights.panels() {
        match job.weights.panel(panel) {
            (lanes, 2) => columns::<2, 8, A>(job, lanes, 2 * LANES * panel, out),
            (lanes, _) => columns::<1, 16, A>(job, lanes, 2 * LANES * panel, out),
        }
    }
}

/// `W` groups of 16 outputs over all pixels, `N` at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
fn columns<const W: usize, const N: usize, const A: usize>(
    job: &Job<'_>,
    lanes: &[Lanes],
    first: usize,
    out: &mut [i32],
) {
    let outputs = job.weights.outputs;
    let mut starts = job.pixels.starts();
    let (mut starts, mut left) = (|| starts.next().unwrap_or(0), job.pixels.count);
    let mut out = out;
    while left > 0 {
        let taken = match left {
            _ if left >= N => {
                tile::<W, N, A>(job, lanes, first, std::array::from_fn(|_| starts()), out);
                N
            }
            4.. => {
                tile::<W, 4, A>(job, lanes, first, std::array::from_fn(|_| starts()), out);
                4
            }
            _ => {
                tile::<W, 1, A>(job, lanes, first, [starts()], out);
                1
            }
        };
        left -= taken;
        out = &mut out[taken * outputs..];
    }
}

/// The sums of `W` groups and of `N` pixels, in registers from the first plane to the last; `out` begins at the
/// first of the pixels, and the groups at output `first`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
fn tile<const W: usize, const N: usize, const A: usize>(
    job: &Job<'_>,
    lanes: &[Lanes],
    first: usize,
    starts: [usize; N],
    out: &mut [i32],
) {
    let (outputs, runs) = (job.weights.outputs, job.runs);
    let planes = usize::from(job.weights.bits);
    let mut sums = [[_mm512_setzero_si512(); W]; N];
    let mut lines = lanes.chunks_exact(runs.words * W);
    for plane in 0..planes {
        for run in 0..runs.count {
            let Some(weights) = lines.next() else { return };
            let acts: [&[u32]; N] = std::array::from_fn(|n| {
                &job.acts[starts[n] + run * runs.stride..][..runs.words * A]
            });
            let pairs = runs.words / 2 * 2;
            for word in (0..pairs).step_by(2) {
                // SAFETY: both words are of the run, whose weights and activations were just cut out.
                unsafe { multiply::<W, N, A, 2>(weights, acts, word, &mut sums) };
            }
            if pairs < runs.words {
                // SAFETY: as above, for the last word.
                unsafe { multiply::<W, N, A, 1>(weights, acts, pairs, &mut sums) };
            }
        }
        for sum in sums.iter_mut().flatten() {
            // The sign plane comes first and counts negative; what follows doubles it.
            if plane == 0 {
                *sum = _mm512_sub_epi32(_mm512_setzero_si512(), *sum);
            }
            if plane + 1 < planes {
                *sum = _mm512_slli_epi32::<1>(*sum);
            }
        }
    }
    let masks: [u16; W] = std::array::from_fn(|w| {
        let kept = (outputs - first).saturating_sub(LANES * w).min(LANES);
        (u32::MAX >> (32 - kept)) as u16
    });
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(outputs)) {
        let out = &mut out[first..];
        for (w, sum) in sums.iter().enumerate() {
            // SAFETY: the mask lets through no more values than the row has left.
            unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr().add(LANES * w), masks[w], *sum) };
        }
    }
}

/// Adds the products of `U` words, 1 or 2, with all planes of the activations.
///
/// # Safety
/// `weights` must hold words up to `word + U`, of `W` lines each, and so must `acts`, of `A` planes each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
unsafe fn multiply<const W: usize, const N: usize, const A: usize, const U: usize>(
    weights: &[Lanes],
    acts: [&[u32]; N],
    word: usize,
    sums: &mut [[__m512i; W]; N],
) {
    let weights: [[__m512i; W]; U] = std::array::from_fn(|u| {
        std::array::from_fn(|w| {
            // SAFETY: by the contract, `weights` has this line; lines are aligned.
            unsafe { _mm512_load_si512(weights.as_ptr().add((word + u) * W + w).cast()) }
        })
    });
    for (sums, acts) in sums.iter_mut().zip(acts) {
        for plane in 0..A {
            let acts: [__m512i; U] = std::array::from_fn(|u| {
                // SAFETY: by the contract, `acts` has this word.
                _mm512_set1_epi32(unsafe { *acts.as_ptr().add((word + u) * A + plane) } as i32)
            });
            for (w, sum) in sums.iter_mut().enumerate() {
                let both: [__m512i; U] =
                    std::array::from_fn(|u| _mm512_and_si512(weights[u][w], acts[u]));
                if A == 1 {
                    for both in both {
                        *sum = _mm512_add_epi32(*sum, _mm512_popcnt_epi32(both));
                    }
                } else {
                    // Two words share the dot product, which counts and it compete for ports on Zen 4:
                    // unsigned 2^plane times counts of at most 16, four to a sum.
                    let mut counts = _mm512_popcnt_epi8(both[0]);
                    for both in &both[1..] {
                        counts = _mm512_add_epi8(counts, _mm512_popcnt_epi8(*both));
                    }
                    let factor = _mm512_set1_epi8((1_u8 << plane) as i8);
                    *sum = _mm512_dpbusd_epi32(*sum, factor, counts);
                }
            }
        }
    }
}
