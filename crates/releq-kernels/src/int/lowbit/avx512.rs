//! One pixel times packed weights, which are expanded in registers: as many bytes as they have bits are read.
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

/// Lines that are asked for ahead.
const AHEAD: usize = 64;

/// The sums of a panel, `packed` being `[acts / 32, rounded up][width][bits]`, or what to add to them.
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
    // SAFETY: `_avx512` proves that the processor has the instructions; the asserts hold what the tiles read and write.
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
    // Two sums of each, to have enough that are independent.
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
        // SAFETY: and for the last ones.
        unsafe { step::<B, W>(&mut acc, lines, &padded) };
    }
    for (acc, sums) in acc.iter().zip(sums.chunks_mut(LANES)) {
        let sum = _mm512_add_epi32(acc[0], acc[1]);
        // Weights were at the top of their bytes: so many times too large, and exactly so.
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
        // Constants, so that shifts and masks are.
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

/// The weights of line `I` of a chunk, at the top of their bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn top<const B: usize, const I: usize>(chunk: &[__m512i; B]) -> __m512i {
    let (eight, four) = (part::<B, I, 8>(chunk), part::<B, I, 4>(chunk));
    let (two, one) = (part::<B, I, 2>(chunk), part::<B, I, 1>(chunk));
    _mm512_or_si512(_mm512_or_si512(eight, four), _mm512_or_si512(two, one))
}

/// Their fields of `S` bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn part<const B: usize, const I: usize, const S: usize>(chunk: &[__m512i; B]) -> __m512i {
    let Some(field) = (const { Field::new(B, S) }) else {
        return _mm512_setzero_si512();
    };
    // Shifts of 16 bits; what crosses from byte to byte is masked.
    let (up, down) = (field.shift(I), field.offset);
    let line = chunk[field.line(I)];
    let moved = if up >= down {
        _mm512_sll_epi16(line, _mm_cvtsi32_si128((up - down) as i32))
    } else {
        _mm512_srl_epi16(line, _mm_cvtsi32_si128((down - up) as i32))
    };
    _mm512_and_si512(moved, _mm512_set1_epi8(field.mask() as i8))
}
