//! The vector types of each instruction set, and how code that is generic over them is compiled for each.
#![allow(unsafe_code, reason = "vector instructions")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::bf16::Paired;
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Avx2Fma, Avx512};
use crate::{Isa, KernelError, cpu::Cpu};

/// Several f32 values in one register.
///
/// # Safety
/// All methods require that the processor has the instruction set of the type. Those that take a pointer also require
/// that it is valid for the number of values that they read or write.
pub(super) trait Vector: Copy {
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` values.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads the first `len < LANES` values; the others are zero.
    unsafe fn load_part(from: *const f32, len: usize) -> Self;
    /// Writes `LANES` values.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `len < LANES` values.
    unsafe fn store_part(self, to: *mut f32, len: usize);
    /// `self + a * b`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// Replaces negative lanes by zero; NaN stays.
    unsafe fn relu(self) -> Self;
    /// Replaces lanes greater than `limit` by it; NaN stays.
    unsafe fn at_most(self, limit: Self) -> Self;
    /// Replaces lanes by zero in which `sign` is not positive.
    unsafe fn where_positive(self, sign: Self) -> Self;
    /// Replaces lanes by zero in which `a` and `b` differ.
    unsafe fn where_equal(self, a: Self, b: Self) -> Self;
    /// Lanes of `new` in which `value` is greater than `best` or NaN, and of `self` elsewhere.
    unsafe fn replace_where_greater(self, new: Self, value: Self, best: Self) -> Self;

    /// Reads `LANES` values, or `len` if that is fewer.
    ///
    /// # Safety
    /// As [`load_part`](Self::load_part).
    #[inline(always)]
    unsafe fn load_up_to(from: *const f32, len: usize) -> Self {
        // SAFETY: the caller's promise; at most LANES values are read.
        unsafe { if len >= Self::LANES { Self::load(from) } else { Self::load_part(from, len) } }
    }

    /// Writes `LANES` values, or `len` if that is fewer.
    ///
    /// # Safety
    /// As [`store_part`](Self::store_part).
    #[inline(always)]
    unsafe fn store_up_to(self, to: *mut f32, len: usize) {
        // SAFETY: the caller's promise; at most LANES values are written.
        unsafe { if len >= Self::LANES { self.store(to) } else { self.store_part(to, len) } }
    }
}

/// The vectors of one instruction set.
///
/// # Safety
/// A value of the type exists only on processors that have the instructions of both vectors.
pub(super) unsafe trait Family: Copy {
    /// The widest vector.
    type Full: Paired;
    /// For the last channels of a layer, where half as many lanes suffice.
    type Half: Paired;
    /// Most pixels (or taps) of a tile that is one vector wide, and of a tile that is two wide: as many sums as
    /// fit in registers next to the operands.
    const SUMS: [usize; 2];
}

/// Work that is compiled once for every instruction set.
pub(super) trait Task {
    /// Does the work with the vectors of `family`, which proves that the processor has their instructions. Must be
    /// `#[inline(always)]`, so that it is compiled with the instructions of its caller.
    fn run<F: Family>(self, family: F);
}

/// An [`Isa`] that this processor has, FMA included: what the f32 kernels hold and dispatch on.
#[derive(Clone, Copy, Debug)]
pub(super) enum FloatCpu {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2Fma),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl FloatCpu {
    /// The proof for `isa`, or plain Rust where this processor has AVX2 without FMA.
    ///
    /// # Errors
    /// [`KernelError::MissingIsa`] if this processor lacks `isa`.
    pub(super) fn new(isa: Isa) -> Result<Self, KernelError> {
        Ok(match Cpu::new(isa)? {
            Cpu::Portable => Self::Portable(Portable),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2(avx2) => Avx2Fma::new(avx2).map_or(Self::Portable(Portable), Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512(avx512) => Self::Avx512(avx512),
        })
    }

    /// The instruction set.
    pub(super) const fn isa(self) -> Isa {
        match self {
            Self::Portable(_) => Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Isa::Avx512,
        }
    }
}

/// Runs `task` with the instructions of `cpu`.
pub(super) fn dispatch(cpu: FloatCpu, task: impl Task) {
    match cpu {
        FloatCpu::Portable(portable) => task.run(portable),
        #[cfg(target_arch = "x86_64")]
        FloatCpu::Avx2(avx2) => run_avx2(avx2, task),
        #[cfg(target_arch = "x86_64")]
        FloatCpu::Avx512(avx512) => run_avx512(avx512, task),
    }
}

#[cfg(target_arch = "x86_64")]
fn run_avx2(avx2: Avx2Fma, task: impl Task) {
    #[target_feature(enable = "avx2,fma")]
    fn compiled(avx2: Avx2Fma, task: impl Task) {
        task.run(avx2);
    }
    // SAFETY: `avx2` proves that the processor has the features.
    unsafe { compiled(avx2, task) }
}

#[cfg(target_arch = "x86_64")]
fn run_avx512(avx512: Avx512, task: impl Task) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn compiled(avx512: Avx512, task: impl Task) {
        task.run(avx512);
    }
    // SAFETY: `avx512` proves that the processor has the features.
    unsafe { compiled(avx512, task) }
}

/// Plain Rust.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

/// Eight values, which the compiler may keep in registers.
#[derive(Clone, Copy)]
pub(super) struct Plain(pub(super) [f32; 8]);

// SAFETY: its vectors are plain Rust, which runs on every processor.
unsafe impl Family for Portable {
    type Full = Plain;
    type Half = Plain;
    const SUMS: [usize; 2] = [4, 2];
}

impl Vector for Plain {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises 8 values.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, len: usize) -> Self {
        let mut values = [0.0; 8];
        for (lane, value) in values.iter_mut().enumerate().take(len) {
            // SAFETY: the caller promises `len` values.
            *value = unsafe { *from.add(lane) };
        }
        Self(values)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises room for 8 values.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, len: usize) {
        for (lane, value) in self.0.into_iter().enumerate().take(len) {
            // SAFETY: the caller promises room for `len` values.
            unsafe { *to.add(lane) = value }
        }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + a.0[lane] * b.0[lane]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] - other.0[lane]))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * other.0[lane]))
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|value| if value < 0.0 { 0.0 } else { value }))
    }
    #[inline(always)]
    unsafe fn at_most(self, limit: Self) -> Self {
        let least =
            |lane: usize| if self.0[lane] > limit.0[lane] { limit.0[lane] } else { self.0[lane] };
        Self(std::array::from_fn(least))
    }
    #[inline(always)]
    unsafe fn where_equal(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| if a.0[lane] == b.0[lane] { self.0[lane] } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn replace_where_greater(self, new: Self, value: Self, best: Self) -> Self {
        let greater = |lane: usize| value.0[lane] > best.0[lane] || value.0[lane].is_nan();
        Self(std::array::from_fn(|lane| if greater(lane) { new.0[lane] } else { self.0[lane] }))
    }
    #[inline(always)]
    unsafe fn where_positive(self, sign: Self) -> Self {
        Self(std::array::from_fn(|lane| if sign.0[lane] > 0.0 { self.0[lane] } else { 0.0 }))
    }
}

// SAFETY: an `Avx2Fma` proves AVX2 and FMA, which are all that `__m256` uses.
#[cfg(target_arch = "x86_64")]
unsafe impl Family for Avx2Fma {
    type Full = __m256;
    type Half = __m256;
    const SUMS: [usize; 2] = [12, 6];
}

#[cfg(target_arch = "x86_64")]
impl Vector for __m256 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has AVX2 and promises 8 values.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, len: usize) -> Self {
        // SAFETY: the caller has AVX2 and promises `len` values; masked lanes are not read.
        unsafe { _mm256_maskload_ps(from, first_lanes(len)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has AVX2 and promises room for 8 values.
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, len: usize) {
        // SAFETY: the caller has AVX2 and promises room for `len` values; masked lanes are not written.
        unsafe { _mm256_maskstore_ps(to, first_lanes(len), self) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has FMA.
        unsafe { _mm256_fmadd_ps(a, b, self) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // The maximum is its second operand if one of them is NaN.
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_max_ps(_mm256_setzero_ps(), self) }
    }
    #[inline(always)]
    unsafe fn at_most(self, limit: Self) -> Self {
        // The minimum is its second operand if one of them is NaN.
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_min_ps(limit, self) }
    }
    #[inline(always)]
    unsafe fn where_equal(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_and_ps(self, _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)) }
    }
    #[inline(always)]
    unsafe fn replace_where_greater(self, new: Self, value: Self, best: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe {
            let greater = _mm256_cmp_ps::<_CMP_GT_OQ>(value, best);
            let none = _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value);
            _mm256_blendv_ps(self, new, _mm256_or_ps(greater, none))
        }
    }
    #[inline(always)]
    unsafe fn where_positive(self, sign: Self) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_and_ps(self, _mm256_cmp_ps::<_CMP_GT_OQ>(sign, _mm256_setzero_ps())) }
    }
}

/// A mask of the first `len` of 8 lanes.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn first_lanes(len: usize) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(len.min(8) as i32), lanes)
    }
}

// SAFETY: an `Avx512` proves AVX-512, AVX2 and FMA, which are all that the two vectors use.
#[cfg(target_arch = "x86_64")]
unsafe impl Family for Avx512 {
    type Full = __m512;
    type Half = __m256;
    const SUMS: [usize; 2] = [14, 12];
}

#[cfg(target_arch = "x86_64")]
impl Vector for __m512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has AVX-512 and promises 16 values.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, len: usize) -> Self {
        // SAFETY: the caller has AVX-512 and promises `len` values; masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps((1 << len) - 1, from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has AVX-512 and promises room for 16 values.
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, len: usize) {
        // SAFETY: the caller has AVX-512 and promises room for `len` values; masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(to, (1 << len) - 1, self) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // The maximum is its second operand if one of them is NaN.
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_max_ps(_mm512_setzero_ps(), self) }
    }
    #[inline(always)]
    unsafe fn at_most(self, limit: Self) -> Self {
        // The minimum is its second operand if one of them is NaN.
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_min_ps(limit, self) }
    }
    #[inline(always)]
    unsafe fn where_equal(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b), self) }
    }
    #[inline(always)]
    unsafe fn replace_where_greater(self, new: Self, value: Self, best: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let greater = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(value, best);
            let none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
            _mm512_mask_mov_ps(self, greater | none, new)
        }
    }
    #[inline(always)]
    unsafe fn where_positive(self, sign: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(sign, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(positive, self)
        }
    }
}
