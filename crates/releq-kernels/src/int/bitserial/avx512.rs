//! The kernel on AVX-512 with VNNI, BITALG and VPOPCNTDQ: three instructions for 512 products of bits.
//!
//! A tile is `W` groups of 16 outputs, one output in each 32-bit lane, times `N` pixels, with all sums in
//! registers from the first plane to the last. One word of a pixel is broadcast to all lanes, ANDed with a line
//! of weights and counted. Counts of bytes are summed by `VPDPBUSD`, which also multiplies them by the weight
//! of the activation's plane.
#![allow(
    unsafe_code,
    reason = "loads by pointer in the inner loop, and calls into an instruction set"
)]

use std::arch::x86_64::*;

use super::{Job, LANES, Lanes, WORD, conv::Image};
use crate::{
    cpu::Avx512,
    int::{
        epilogue::{Codes, Factors, Fused},
        requantise::Requantise,
    },
};

/// The last step of splitting, for 1 to 8 bits: where each byte of the planes comes from. After the
/// transposition, byte `j` of group `g` holds bit `j` of codes `8 g` to `8 g + 7`; this permutation joins the
/// four groups of a word, plane by plane.
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
pub(super) fn split(_avx512: Avx512, codes: &[u8], bits: u8, words: &mut [u32]) {
    // SAFETY: `_avx512` proves that the processor has the instructions.
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
        // Transposes the 8x8 bits of every 64-bit lane: swaps single bits, then blocks of 2x2, then of 4x4.
        x = swap::<7>(x, 0x00aa_00aa_00aa_00aa);
        x = swap::<14>(x, 0x0000_cccc_0000_cccc);
        x = swap::<28>(x, 0x0000_0000_f0f0_f0f0);
        let planes = _mm512_permutexvar_epi8(order, x);
        let mask = u16::MAX >> (16 - words.len());
        // SAFETY: the mask writes no more words than the chunk has.
        unsafe { _mm512_mask_storeu_epi32(words.as_mut_ptr().cast(), mask, planes) };
    }
}

/// Swaps the bits in `mask` with those `N` positions above them.
#[inline]
#[target_feature(enable = "avx512f")]
fn swap<const N: u32>(x: __m512i, mask: i64) -> __m512i {
    const XOR_THEN_AND: i32 = 0x28;
    const XOR: i32 = 0x96;
    let mask = _mm512_set1_epi64(mask);
    let moved = _mm512_ternarylogic_epi64::<XOR_THEN_AND>(x, _mm512_srli_epi64::<N>(x), mask);
    _mm512_ternarylogic_epi64::<XOR>(x, moved, _mm512_slli_epi64::<N>(moved))
}

/// [`Image::gather`], with one instruction for all planes of a word, and word by word, so that every word is
/// written once.
pub(super) fn gather<const A: usize>(
    _avx512: Avx512,
    image: &Image<'_>,
    words: usize,
    first: usize,
    windows: &mut [u32],
) {
    // SAFETY: `_avx512` proves that the processor has the instructions.
    unsafe { gather_rows::<A>(image, words, first, windows) }
}

/// Splits the windows by rows of the result.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2")]
fn gather_rows<const A: usize>(image: &Image<'_>, words: usize, first: usize, windows: &mut [u32]) {
    let columns = image.shape.out_width();
    let (mut pixel, mut rest) = (first, windows);
    while !rest.is_empty() {
        let (y, x) = (pixel / columns, pixel % columns);
        let len = ((columns - x) * words * A).min(rest.len());
        let (row, after) = rest.split_at_mut(len);
        gather_row::<A>(image, words, y, x, row);
        pixel += columns - x;
        rest = after;
    }
}

/// Gathers windows of row `y` from column `x` on. A register holds one word of up to 8 planes, a plane in each lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2")]
fn gather_row<const A: usize>(
    image: &Image<'_>,
    words: usize,
    y: usize,
    x: usize,
    windows: &mut [u32],
) {
    const OR_OF_AND: i32 = 0xf8;
    let step = image.shape.stride * image.shape.channels;
    let row = |row: usize| (y * image.shape.stride + row) * image.row_words;
    let count = windows.len() / (words * A);
    let last = image.pieces.iter().filter(|piece| piece.is_last).count();
    assert!(last == words && windows.len() == count * words * A, "every word is stored once");
    for piece in image.pieces {
        let bit = piece.bit + (x + count - 1) * step;
        assert!(row(piece.row) + (bit / WORD + 2) * A <= image.planes.len(), "all bits are there");
    }
    let planes = u8::MAX >> (8 - A);
    let mut to = windows.as_mut_ptr();
    for column in x..x + count {
        let mut word = _mm256_setzero_si256();
        for piece in image.pieces {
            let bit = piece.bit + column * step;
            let from = image.planes.as_ptr().wrapping_add(row(piece.row) + bit / WORD * A);
            // SAFETY: the assert covers both words at the last column, and columns only move forward.
            let (low, high) = unsafe {
                let high = _mm256_maskz_loadu_epi32(planes, from.add(A).cast());
                (_mm256_maskz_loadu_epi32(planes, from.cast()), high)
            };
            let shift = _mm256_set1_epi32((bit % WORD) as i32);
            // Shifts the 64 bits of both words right, and keeps the lower 32.
            let moved = _mm256_shrdv_epi32(low, high, shift);
            let mask = _mm256_set1_epi32(piece.mask.cast_signed());
            word = _mm256_ternarylogic_epi32::<OR_OF_AND>(word, moved, mask);
            if piece.is_last {
                // SAFETY: the assert above makes this run once for every word that there is space for.
                unsafe {
                    _mm256_mask_storeu_epi32(to.cast(), planes, word);
                    to = to.add(A);
                }
                word = _mm256_setzero_si256();
            }
        }
    }
}

/// The sums of all panels of a job.
pub(super) fn run(_avx512: Avx512, job: &Job<'_>, out: &mut [i32]) {
    // SAFETY: `_avx512` proves that the processor has the instructions.
    unsafe {
        planes::<false>(job, To { sums: out, codes: &mut [], factors: &[], grid: Codes::NONE })
    }
}

/// As [`run`], but converts the sums to codes while they are in registers; `factors` start with the first panel.
pub(super) fn run_fused(_avx512: Avx512, job: &Job<'_>, codes: Fused<'_>) {
    let Fused { factors, codes: grid, out } = codes;
    // SAFETY: `_avx512` proves that the processor has the instructions.
    unsafe { planes::<true>(job, To { sums: &mut [], codes: out, factors, grid }) }
}

/// Destination of the results: sums or codes.
struct To<'a> {
    sums: &'a mut [i32],
    codes: &'a mut [u8],
    factors: &'a [Factors],
    grid: Codes,
}

impl To<'_> {
    /// The destination after `results` results.
    fn after(&mut self, results: usize) -> To<'_> {
        To {
            sums: self.sums.get_mut(results..).unwrap_or_default(),
            codes: self.codes.get_mut(results..).unwrap_or_default(),
            factors: self.factors,
            grid: self.grid,
        }
    }
}

/// Makes the number of planes of the activations a constant.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
fn planes<const CODES: bool>(job: &Job<'_>, to: To<'_>) {
    job.check();
    // SAFETY: `check` passed.
    unsafe {
        match job.bits {
            1 => block::<1, CODES>(job, to),
            2 => block::<2, CODES>(job, to),
            3 => block::<3, CODES>(job, to),
            4 => block::<4, CODES>(job, to),
            5 => block::<5, CODES>(job, to),
            6 => block::<6, CODES>(job, to),
            7 => block::<7, CODES>(job, to),
            _ => block::<8, CODES>(job, to),
        }
    }
}

/// Makes the width of each panel a constant.
///
/// # Safety
/// [`Job::check`] passed.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
unsafe fn block<const A: usize, const CODES: bool>(job: &Job<'_>, mut to: To<'_>) {
    for panel in job.panels.clone() {
        let first = 2 * LANES * panel;
        // SAFETY: the caller's promise.
        unsafe {
            match job.weights.panel(panel) {
                (lanes, 2) => columns::<2, 8, A, CODES>(job, lanes, first, to.after(0)),
                (lanes, _) => columns::<1, 8, A, CODES>(job, lanes, first, to.after(0)),
            }
        }
    }
}

/// `W` groups of 16 outputs for all pixels, `N` at a time; what remains goes to smaller tiles.
///
/// # Safety
/// [`Job::check`] passed.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
unsafe fn columns<const W: usize, const N: usize, const A: usize, const CODES: bool>(
    job: &Job<'_>,
    lanes: &[Lanes],
    first: usize,
    mut to: To<'_>,
) {
    let mut pixel = 0;
    while pixel < job.starts.len() {
        let starts = &job.starts[pixel..];
        let to = to.after(pixel * job.pitch);
        // SAFETY: the caller's promise; the starts are some of the job's.
        pixel += unsafe {
            match starts.len() {
                len if len >= N => tile::<W, N, A, CODES>(job, lanes, first, starts, to),
                4.. => tile::<W, 4, A, CODES>(job, lanes, first, starts, to),
                _ => tile::<W, 1, A, CODES>(job, lanes, first, starts, to),
            }
        };
    }
}

/// The sums of `W` groups of outputs, from output `first` on, for the first `N` pixels. Returns `N`.
///
/// # Safety
/// [`Job::check`] passed, `A` is the number of planes of the activations, and the starts are some of the job's, at
/// least `N`.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
unsafe fn tile<const W: usize, const N: usize, const A: usize, const CODES: bool>(
    job: &Job<'_>,
    lanes: &[Lanes],
    first: usize,
    starts: &[usize],
    to: To<'_>,
) -> usize {
    let runs = job.runs;
    let planes = usize::from(job.weights.bits);
    // Words are multiplied two at a time, see `multiply`, and an odd last one alone.
    let pairs = runs.words / 2 * 2;
    assert_eq!(lanes.len(), planes * runs.count * runs.words * W, "a line for every word");
    let mut lines = lanes.as_ptr();
    let mut sums = [[_mm512_setzero_si512(); W]; N];
    for plane in 0..planes {
        for run in 0..runs.count {
            // Not with a closure: it would pass through library code, which is compiled without these
            // instructions and so could not be inlined.
            let mut acts = [job.acts.as_ptr(); N];
            for (acts, start) in acts.iter_mut().zip(starts) {
                *acts = acts.wrapping_add(start + run * runs.stride);
            }
            // SAFETY: there are as many lines as words, and `Job::check` found the words of every run inside the
            // activations.
            unsafe {
                for word in (0..pairs).step_by(2) {
                    multiply::<W, N, A, 2>(lines.add(word * W), &acts, word * A, &mut sums);
                }
                if pairs < runs.words {
                    multiply::<W, N, A, 1>(lines.add(pairs * W), &acts, pairs * A, &mut sums);
                }
                lines = lines.add(runs.words * W);
            }
        }
        for sums in &mut sums {
            for sum in sums {
                // The sign plane comes first and is negative; every further plane doubles what was summed before.
                if plane == 0 {
                    *sum = _mm512_sub_epi32(_mm512_setzero_si512(), *sum);
                }
                if plane + 1 < planes {
                    *sum = _mm512_slli_epi32::<1>(*sum);
                }
            }
        }
    }
    let mut masks = [u16::MAX; W];
    let (left, column) = job.outputs(first);
    let kept = left.min(LANES * W);
    masks[W - 1] >>= LANES * W - kept;
    let space = if CODES { to.codes.len() } else { to.sums.len() };
    assert!(space >= (N - 1) * job.pitch + column + kept, "space for every result");
    if CODES {
        for w in 0..W {
            let requantise = Requantise::new(&to.factors[column / LANES + w], to.grid);
            for sums in &mut sums {
                sums[w] = requantise.codes(sums[w]);
            }
        }
    }
    for (n, sums) in sums.iter().enumerate() {
        for (w, (sum, mask)) in sums.iter().zip(masks).enumerate() {
            let at = n * job.pitch + column + LANES * w;
            // SAFETY: there is space for `kept` results every `pitch`, and the masks let through no more.
            unsafe {
                if CODES {
                    let codes = _mm512_cvtepi32_epi8(*sum);
                    _mm_mask_storeu_epi8(to.codes.as_mut_ptr().add(at).cast(), mask, codes);
                } else {
                    _mm512_mask_storeu_epi32(to.sums.as_mut_ptr().add(at), mask, *sum);
                }
            }
        }
    }
    N
}

/// Adds the products of `U` words, 1 or 2, with all planes of the activations.
///
/// # Safety
/// `lines` must point to `U * W` lines, and each of `acts` to `U * A` words from `offset` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512bitalg,avx512vpopcntdq")]
unsafe fn multiply<const W: usize, const N: usize, const A: usize, const U: usize>(
    lines: *const Lanes,
    acts: &[*const u32; N],
    offset: usize,
    sums: &mut [[__m512i; W]; N],
) {
    let mut weights = [[_mm512_setzero_si512(); W]; U];
    for (index, line) in weights.as_flattened_mut().iter_mut().enumerate() {
        // SAFETY: the caller's promise; lines are aligned.
        *line = unsafe { _mm512_load_si512(lines.add(index).cast()) };
    }
    for (sums, acts) in sums.iter_mut().zip(acts) {
        for plane in 0..A {
            let mut words = [_mm512_setzero_si512(); U];
            for (index, word) in words.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *word = _mm512_set1_epi32(unsafe { *acts.add(offset + index * A + plane) } as i32);
            }
            for (w, sum) in sums.iter_mut().enumerate() {
                let mut both = [_mm512_setzero_si512(); U];
                for ((both, weights), word) in both.iter_mut().zip(&weights).zip(words) {
                    *both = _mm512_and_si512(weights[w], word);
                }
                if A == 1 {
                    // A single plane has weight 1: counts of whole lanes need no dot product.
                    for both in both {
                        *sum = _mm512_add_epi32(*sum, _mm512_popcnt_epi32(both));
                    }
                } else {
                    // Two words share one dot product, since population counts and dot products compete for the
                    // same ports on Zen 4. The dot product multiplies unsigned 2^plane by counts of at most 16,
                    // four per sum.
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
