//! Requantization of sums that are still in registers, on AVX-512.
#![allow(unsafe_code, reason = "loads by pointer")]

use std::arch::x86_64::*;

use crate::int::epilogue::LANES;

/// Scales and biases of 16 channels, one in each lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requantise {
    scales: __m512,
    biases: __m512,
    largest: __m512,
}

impl Requantise {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn new([scales, biases]: &[[f32; LANES]; 2], largest: f32) -> Self {
        // SAFETY: each array holds the 16 floats of the load.
        let (scales, biases) =
            unsafe { (_mm512_loadu_ps(scales.as_ptr()), _mm512_loadu_ps(biases.as_ptr())) };
        Self { scales, biases, largest: _mm512_set1_ps(largest) }
    }

    /// The codes of 16 sums, rounded as in [`round`](crate::int::epilogue::round), one in each lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn codes(self, sums: __m512i) -> __m512i {
        let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), self.scales);
        let value = _mm512_max_ps(_mm512_add_ps(value, self.biases), _mm512_setzero_ps());
        // The rounding mode is explicit: half to even, whatever the control register says.
        _mm512_cvt_roundps_epi32::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(
            _mm512_min_ps(value, self.largest),
        )
    }
}
