//! bf16: the upper half of an f32, and products of pairs of it that are added up in f32.
//!
//! A pair is one term: `sum + a[1] * b[1] + a[0] * b[0]`, rounded after each addition, for products of bf16 are exact
//! in f32. That is what `VDPBF16PS` computes, and it takes as long as one multiply-add of f32. As there, values below the
//! smallest normal one count as zero.
#![allow(unsafe_code, reason = "vector instructions")]

#[cfg(target_arch = "x86_64")]
use std::{arch::x86_64::*, mem::transmute};

use super::vector::{Family, Plain, Portable, Vector};
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Avx512, Avx512Bf16};
use crate::{Isa, KernelError, cpu::Cpu};

/// In what products are computed. Sums are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FloatPrecision {
    /// f32.
    #[default]
    Fp32,
    /// Operands are rounded to bf16: 8 bits of precision, the range of f32.
    Bf16,
}

impl FloatPrecision {
    /// Whether `isa` has instructions for it on this processor. [`Isa::Portable`] computes everything, if slowly.
    ///
    /// # Errors
    /// [`KernelError::MissingIsa`] if this processor lacks `isa`, [`KernelError::MissingBf16`] if it, or `isa`, has no
    /// products of bf16.
    pub fn check(self, isa: Isa) -> Result<Self, KernelError> {
        match self {
            Self::Fp32 => isa.check().map(|_| self),
            Self::Bf16 => PairCpu::new(isa).map(|_| self),
        }
    }
}

/// An [`Isa`] of this processor that has products of bf16.
#[derive(Clone, Copy, Debug)]
pub(super) enum PairCpu {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512Bf16),
}

impl PairCpu {
    /// The proof for `isa`.
    ///
    /// # Errors
    /// As [`FloatPrecision::check`].
    pub(super) fn new(isa: Isa) -> Result<Self, KernelError> {
        match Cpu::new(isa)? {
            Cpu::Portable => Some(Self::Portable(Portable)),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2(_) => None,
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512(avx512) => Avx512Bf16::new(avx512).map(Self::Avx512),
        }
        .ok_or(KernelError::MissingBf16 { isa })
    }
}

/// A [`Family`] whose vectors have products of bf16.
///
/// # Safety
/// A value of the type exists only on processors that have the instructions of [`Paired`] for both vectors.
pub(super) unsafe trait PairFamily: Family {}

// SAFETY: its vectors are plain Rust, which runs on every processor.
unsafe impl PairFamily for Portable {}

// SAFETY: an `Avx512Bf16` proves AVX512-BF16 besides what an `Avx512` does.
#[cfg(target_arch = "x86_64")]
unsafe impl PairFamily for Avx512Bf16 {}

/// As [`Task`](super::vector::Task), for work with products of bf16.
pub(super) trait PairTask {
    /// Does the work with the vectors of `family`, which proves that the processor has their instructions. Must be
    /// `#[inline(always)]`, so that it is compiled with the instructions of its caller.
    fn run<F: PairFamily>(self, family: F);
}

/// Runs `task` with the instructions of `cpu`.
pub(super) fn dispatch_pairs(cpu: PairCpu, task: impl PairTask) {
    match cpu {
        PairCpu::Portable(portable) => task.run(portable),
        #[cfg(target_arch = "x86_64")]
        PairCpu::Avx512(bf16) => run_avx512(bf16, task),
    }
}

#[cfg(target_arch = "x86_64")]
fn run_avx512(bf16: Avx512Bf16, task: impl PairTask) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    fn compiled(bf16: Avx512Bf16, task: impl PairTask) {
        task.run(bf16);
    }
    // SAFETY: `bf16` proves that the processor has the features.
    unsafe { compiled(bf16, task) }
}

// SAFETY: an `Avx512Bf16` proves all that an `Avx512` does.
#[cfg(target_arch = "x86_64")]
unsafe impl Family for Avx512Bf16 {
    type Full = <Avx512 as Family>::Full;
    type Half = <Avx512 as Family>::Half;
    const SUMS: [usize; 2] = <Avx512 as Family>::SUMS;
}

/// A vector of f32 with products of bf16.
///
/// # Safety
/// All methods require that the processor has the instruction set of the type, and AVX512-BF16 if it is not plain Rust. Those
/// that take a pointer also require that it is valid for the values that they read or write.
pub(super) trait Paired: Vector {
    /// A pair of bf16 in every lane.
    type Pairs: Copy;

    /// Reads two values, the pair of all lanes.
    unsafe fn splat_pair(from: *const u16) -> Self::Pairs;
    /// Reads two values for each lane.
    unsafe fn load_pairs(from: *const u16) -> Self::Pairs;
    /// `self + a[1] * b[1] + a[0] * b[0]`.
    unsafe fn add_pair_products(self, a: Self::Pairs, b: Self::Pairs) -> Self;
    /// Writes the first `len` lanes, or all, rounded to bf16.
    unsafe fn store_bf16(self, to: *mut u16, len: usize);
    /// Writes the first `len` lanes, or all, rounded to bf16, each followed by that of `second`.
    unsafe fn store_pairs(self, second: Self, to: *mut u16, len: usize);
}

/// Rounds to the nearest, of two to the even one.
pub(super) fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        (bits >> 16) as u16 | 0x40
    } else if value.is_subnormal() {
        (bits >> 16) as u16 & 0x8000
    } else {
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
    }
}

/// A value that is below the smallest normal one becomes zero.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

/// As `VDPBF16PS` computes one lane.
fn add_pair(sum: f32, a: [u16; 2], b: [u16; 2]) -> f32 {
    let wide = |value: u16| flushed(f32::from_bits(u32::from(value) << 16));
    let add = |sum: f32, at: usize| flushed(wide(a[at]).mul_add(wide(b[at]), flushed(sum)));
    add(add(sum, 1), 0)
}

impl Paired for Plain {
    type Pairs = [[u16; 2]; 8];

    #[inline(always)]
    unsafe fn splat_pair(from: *const u16) -> Self::Pairs {
        // SAFETY: the caller promises two values.
        [unsafe { from.cast::<[u16; 2]>().read_unaligned() }; 8]
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u16) -> Self::Pairs {
        // SAFETY: the caller promises two values for each of 8 lanes.
        unsafe { from.cast::<[[u16; 2]; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn add_pair_products(self, a: Self::Pairs, b: Self::Pairs) -> Self {
        Self(std::array::from_fn(|lane| add_pair(self.0[lane], a[lane], b[lane])))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, len: usize) {
        for (lane, value) in self.0.into_iter().enumerate().take(len) {
            // SAFETY: the caller promises room for `len` values.
            unsafe { *to.add(lane) = rounded(value) }
        }
    }
    #[inline(always)]
    unsafe fn store_pairs(self, second: Self, to: *mut u16, len: usize) {
        for (lane, (first, second)) in self.0.into_iter().zip(second.0).enumerate().take(len) {
            // SAFETY: the caller promises room for `len` pairs.
            unsafe { *to.add(2 * lane).cast::<[u16; 2]>() = [rounded(first), rounded(second)] }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Paired for __m256 {
    type Pairs = __m256bh;

    #[inline(always)]
    unsafe fn splat_pair(from: *const u16) -> __m256bh {
        // SAFETY: the caller has AVX2 and promises two values; both types are 32 bytes of any bits.
        unsafe { transmute(_mm256_set1_epi32(from.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u16) -> __m256bh {
        // SAFETY: the caller has AVX2 and promises 16 values; both types are 32 bytes of any bits.
        unsafe { transmute(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn add_pair_products(self, a: __m256bh, b: __m256bh) -> Self {
        // SAFETY: the caller has AVX512-BF16 and AVX512-VL.
        unsafe { _mm256_dpbf16_ps(self, a, b) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, len: usize) {
        // SAFETY: the caller has AVX512-BF16, -BW and -VL, and promises room for `len` values; masked lanes are not
        // written; both types are 16 bytes of any bits.
        unsafe {
            let values: __m128i = transmute(_mm256_cvtneps_pbh(self));
            _mm_mask_storeu_epi16(to.cast(), first(len.min(8)) as u8, values);
        }
    }
    #[inline(always)]
    unsafe fn store_pairs(self, second: Self, to: *mut u16, len: usize) {
        // SAFETY: the caller has AVX512-BF16 and -VL, and promises room for `len` pairs; masked lanes are not written; both
        // types are 16 bytes of any bits.
        unsafe {
            let wide = |values: __m256| -> __m256i {
                _mm256_cvtepu16_epi32(transmute::<__m128bh, __m128i>(_mm256_cvtneps_pbh(values)))
            };
            let pairs = _mm256_or_si256(wide(self), _mm256_slli_epi32::<16>(wide(second)));
            _mm256_mask_storeu_epi32(to.cast(), first(len.min(8)) as u8, pairs);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Paired for __m512 {
    type Pairs = __m512bh;

    #[inline(always)]
    unsafe fn splat_pair(from: *const u16) -> __m512bh {
        // SAFETY: the caller has AVX-512 and promises two values; both types are 64 bytes of any bits.
        unsafe { transmute(_mm512_set1_epi32(from.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const u16) -> __m512bh {
        // SAFETY: the caller has AVX-512 and promises 32 values; both types are 64 bytes of any bits.
        unsafe { transmute(_mm512_loadu_si512(from.cast())) }
    }
    #[inline(always)]
    unsafe fn add_pair_products(self, a: __m512bh, b: __m512bh) -> Self {
        // SAFETY: the caller has AVX512-BF16.
        unsafe { _mm512_dpbf16_ps(self, a, b) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, len: usize) {
        // SAFETY: the caller has AVX512-BF16, -BW and -VL, and promises room for `len` values; masked lanes are not
        // written; both types are 32 bytes of any bits.
        unsafe {
            let values: __m256i = transmute(_mm512_cvtneps_pbh(self));
            _mm256_mask_storeu_epi16(to.cast(), first(len.min(16)), values);
        }
    }
    #[inline(always)]
    unsafe fn store_pairs(self, second: Self, to: *mut u16, len: usize) {
        // SAFETY: the caller has AVX512-BF16, and promises room for `len` pairs; masked lanes are not written; both types
        // are 32 bytes of any bits.
        unsafe {
            let wide = |values: __m512| -> __m512i {
                _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values)))
            };
            let pairs = _mm512_or_si512(wide(self), _mm512_slli_epi32::<16>(wide(second)));
            _mm512_mask_storeu_epi32(to.cast(), first(len.min(16)), pairs);
        }
    }
}

/// A mask of the first `len` of 16 lanes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
const fn first(len: usize) -> u16 {
    ((1_u32 << len) - 1) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_the_nearest_of_two_to_the_even() {
        for (value, expected) in [
            (1.0, 0x3f80),
            (-2.5, 0xc020),
            (f32::from_bits(0x3f80_7fff), 0x3f80),
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::MAX, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
            (-1e-40, 0x8000),
            (f32::NAN, 0x7fc0),
        ] {
            assert_eq!(rounded(value), expected, "{value}");
        }
    }
}
