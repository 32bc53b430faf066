//! Requantization of sums that are still in registers, on AVX-512.
#![allow(unsafe_code, reason = "loads by pointer")]

use std::arch::x86_64::*;

use crate::int::epilogue::{Codes, Factors};

/// Offsets, scales and biases of 16 channels, one in each lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requantise {
    offsets: __m512i,
    scales: __m512,
    biases: __m512,
    low: __m512,
    high: __m512,
    zero: __m512i,
}

impl Requantise {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn new(factors: &Factors, codes: Codes) -> Self {
        let Factors { offsets, scales, biases } = factors;
        // SAFETY: each array holds the 16 numbers of the load.
        let (offsets, scales, biases) = unsafe {
            (
                _mm512_loadu_si512(offsets.as_ptr().cast()),
                _mm512_loadu_ps(scales.as_ptr()),
                _mm512_loadu_ps(biases.as_ptr()),
            )
        };
        let (low, high) = (_mm512_set1_ps(codes.low), _mm512_set1_ps(codes.high));
        Self { offsets, scales, biases, low, high, zero: _mm512_set1_epi32(codes.zero.into()) }
    }

    /// The codes of 16 sums, rounded as in [`Codes::round`], one in each lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn codes(self, sums: __m512i) -> __m512i {
        let sums = _mm512_cvtepi32_ps(_mm512_add_epi32(sums, self.offsets));
        let value = _mm512_add_ps(_mm512_mul_ps(sums, self.scales), self.biases);
        let value = _mm512_min_ps(_mm512_max_ps(value, self.low), self.high);
        // The rounding mode is explicit: half to even, whatever the control register says.
        let value =
            _mm512_cvt_roundps_epi32::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value);
        _mm512_add_epi32(value, self.zero)
    }
}
