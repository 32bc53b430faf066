//! One pixel times packed weights on AVX-512. Weights are expanded in registers, so that only the packed bytes
//! are read.
//!
//! The expanded weights stay at the top of their bytes, `2^(8 - bits)` times too large, since moving them down
//! would take one more instruction for every 64 weights. The final sums are shifted instead. They cannot
//! overflow: a call gets at most one block of inputs (`Source::BLOCK`), far fewer than 8-bit weights and
//! activations allow.
#![allow(
    unsafe_code,
    reason = "loads and stores by pointer in the inner loop, and calls into an instruction set"
)]

use std::arch::x86_64::*;

use super::fields::{CHUNK, Field};
use crate::{
    cpu::Avx512,
    int::int8::{GROUP, LANES, Line},
};

/// How many lines ahead to prefetch: every line is read only once, often from a far cache or from memory.
const AHEAD: usize = 64;

/// Computes the sums of a panel, or adds to them; `packed` is `[acts / 32, rounded up][width][bits]`.
pub(super) fn gemv(
    _avx512: Avx512,
    bits: u8,
    packed: &[Line],
    width: usize,
    acts: &[u8],
    add: bool,
    sums: &mut [i32],
) {
    let chunks = acts.len().div_ceil(CHUNK * GROUP);
    assert_eq!(packed.len(), chunks * width * usize::from(bits), "lines for all activations");
    assert!(sums.len().div_ceil(LANES) == width && width <= 4, "a line for 16 sums");
    // SAFETY: `_avx512` proves that the processor has the instructions. The asserts cover all that the tiles read and
    // write.
    unsafe {
        match bits {
            1 => panel::<1>(packed, width, acts, add, sums),
            2 => panel::<2>(packed, width, acts, add, sums),
            3 => panel::<3>(packed, width, acts, add, sums),
            4 => panel::<4>(packed, width, acts, add, sums),
            5 => panel::<5>(packed, width, acts, add, sums),
            6 => panel::<6>(packed, width, acts, add, sums),
            7 => panel::<7>(packed, width, acts, add, sums),
            _ => panel::<8>(packed, width, acts, add, sums),
        }
    }
}

/// Makes the width a constant.
///
/// # Safety
/// What [`gemv`] asserts, and `B` are the bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn panel<const B: usize>(
    packed: &[Line],
    width: usize,
    acts: &[u8],
    add: bool,
    sums: &mut [i32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match width {
            1 => tile::<B, 1>(packed, acts, add, sums),
            2 => tile::<B, 2>(packed, acts, add, sums),
            3 => tile::<B, 3>(packed, acts, add, sums),
            _ => tile::<B, 4>(packed, acts, add, sums),
        }
    }
}

/// The sums of `W` groups of 16 outputs, in registers from the first input to the last.
///
/// # Safety
/// What [`gemv`] asserts, `B` are the bits and `W` is the width.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const B: usize, const W: usize>(
    packed: &[Line],
    acts: &[u8],
    add: bool,
    sums: &mut [i32],
) {
    // Two accumulators for each group: dot products have a latency of several cycles, and consecutive ones must
    // not wait for each other.
    let mut acc = [[_mm512_setzero_si512(); 2]; W];
    let mut lines = packed.as_ptr();
    let (full, rest) = acts.as_chunks::<{ CHUNK * GROUP }>();
    for acts in full {
        // SAFETY: there are `W * B` lines for every 32 activations.
        lines = unsafe { step::<B, W>(&mut acc, lines, acts) };
    }
    if !rest.is_empty() {
        let mut padded = [0; CHUNK * GROUP];
        padded[..rest.len()].copy_from_slice(rest);
        // SAFETY: the last, incomplete 32 activations have `W * B` lines as well.
        unsafe { step::<B, W>(&mut acc, lines, &padded) };
    }
    for (acc, sums) in acc.iter().zip(sums.chunks_mut(LANES)) {
        let sum = _mm512_add_epi32(acc[0], acc[1]);
        // Undoes the scale of weights at the top of their bytes. The shifted-out bits are zero, so this is exact.
        let mut sum = _mm512_sra_epi32(sum, _mm_cvtsi32_si128(8 - B as i32));
        let mask = u16::MAX >> (LANES - sums.len());
        // SAFETY: the mask has as many bits as there are sums.
        unsafe {
            if add {
                sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, sums.as_ptr()));
            }
            _mm512_mask_storeu_epi32(sums.as_mut_ptr(), mask, sum);
        }
    }
}

/// Adds the products of 32 activations. Returns where the next lines are.
///
/// # Safety
/// There are `W * B` lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn step<const B: usize, const W: usize>(
    acc: &mut [[__m512i; 2]; W],
    lines: *const Line,
    acts: &[u8; CHUNK * GROUP],
) -> *const Line {
    let (acts, _) = acts.as_chunks::<GROUP>();
    for (w, acc) in acc.iter_mut().enumerate() {
        let mut chunk = [_mm512_setzero_si512(); B];
        for (b, line) in chunk.iter_mut().enumerate() {
            let from = lines.wrapping_add(w * B + b);
            // SAFETY: the caller promises the line, which is aligned; prefetching touches nothing.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD).cast());
                *line = _mm512_load_si512(from.cast());
            }
        }
        // The line is a const generic, so that all shifts and masks are constants.
        let weights = [
            top::<B, 0>(&chunk),
            top::<B, 1>(&chunk),
            top::<B, 2>(&chunk),
            top::<B, 3>(&chunk),
            top::<B, 4>(&chunk),
            top::<B, 5>(&chunk),
            top::<B, 6>(&chunk),
            top::<B, 7>(&chunk),
        ];
        for (i, (weights, act)) in weights.into_iter().zip(acts).enumerate() {
            let act = _mm512_set1_epi32(i32::from_le_bytes(*act));
            acc[i % 2] = _mm512_dpbusd_epi32(acc[i % 2], act, weights);
        }
    }
    lines.wrapping_add(W * B)
}

/// Expands line `I` of a chunk; weights are at the top of their bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn top<const B: usize, const I: usize>(chunk: &[__m512i; B]) -> __m512i {
    let (eight, four) = (part::<B, I, 8>(chunk), part::<B, I, 4>(chunk));
    let (two, one) = (part::<B, I, 2>(chunk), part::<B, I, 1>(chunk));
    _mm512_or_si512(_mm512_or_si512(eight, four), _mm512_or_si512(two, one))
}

/// The fields of `S` bits of line `I`, at their place in the weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn part<const B: usize, const I: usize, const S: usize>(chunk: &[__m512i; B]) -> __m512i {
    let Some(field) = (const { Field::new(B, S) }) else {
        return _mm512_setzero_si512();
    };
    // There are no shifts of bytes. These shift 16-bit lanes, and the mask removes what crossed from byte to byte.
    let (up, down) = (field.shift(I), field.offset);
    let line = chunk[field.line(I)];
    let moved = if up >= down {
        _mm512_sll_epi16(line, _mm_cvtsi32_si128((up - down) as i32))
    } else {
        _mm512_srl_epi16(line, _mm_cvtsi32_si128((down - up) as i32))
    };
    _mm512_and_si512(moved, _mm512_set1_epi8(field.mask() as i8))
}
