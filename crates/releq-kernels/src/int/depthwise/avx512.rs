//! The kernel on AVX-512 VNNI. Four pixels below each other are interleaved channel by channel, so that one dot product sums a
//! column of the window for 16 channels.
//!
//! With windows of 3 x 3 next to each other, a column is part of three of them: it is loaded once, and three sums are on
//! their way at a time.
#![allow(
    unsafe_code,
    reason = "loads and stores by pointer in the inner loop, and calls into an instruction set"
)]

use std::{arch::x86_64::*, ptr};

use super::{Rows, Segment};
use crate::{
    cpu::Avx512,
    int::{
        epilogue::{Codes, Factors, Fused, LANES},
        int8::Line,
        requantise::Requantise,
    },
};

/// Rows that are interleaved.
pub(super) const ROWS: usize = 4;

/// Stores the sums of some pixels, `[pixels][channels / 16, rounded up]`.
pub(super) fn run(_avx512: Avx512, rows: &Rows<'_>, lines: &[Line], sums: &mut [[i32; LANES]]) {
    check(rows, lines);
    assert!(rows.pixels * rows.groups <= sums.len(), "space for every sum");
    let to =
        To { sums: sums.as_mut_ptr(), codes: ptr::null_mut(), factors: &[], grid: Codes::NONE };
    // SAFETY: `_avx512` proves that the processor has the instructions, and everything was checked.
    unsafe { all::<false>(rows, lines, to) }
}

/// As [`run`], but converts the sums to codes while they are in registers, `[pixels][channels]`.
pub(super) fn run_fused(_avx512: Avx512, rows: &Rows<'_>, lines: &[Line], codes: Fused<'_>) {
    check(rows, lines);
    let Fused { factors, codes: grid, out } = codes;
    assert!(rows.pixels * rows.shape.channels <= out.len(), "space for every code");
    assert!(rows.groups <= factors.len(), "factors for every channel");
    let to = To { sums: ptr::null_mut(), codes: out.as_mut_ptr(), factors, grid };
    // SAFETY: `_avx512` proves that the processor has the instructions, and everything was checked.
    unsafe { all::<true>(rows, lines, to) }
}

/// Checks that there are lines for all taps.
fn check(rows: &Rows<'_>, lines: &[Line]) {
    let kernel = rows.shape.kernel;
    assert_eq!(lines.len(), kernel * kernel.div_ceil(ROWS) * rows.groups, "lines for every tap");
    rows.check();
}

/// Destination of the results: sums or codes.
#[derive(Clone, Copy)]
struct To<'a> {
    sums: *mut [i32; LANES],
    codes: *mut u8,
    factors: &'a [Factors],
    grid: Codes,
}

/// Results of 16 channels.
#[derive(Clone, Copy)]
struct Group<'a> {
    group: usize,
    /// Of all channels.
    groups: usize,
    channels: usize,
    mask: u16,
    requantise: Requantise,
    to: To<'a>,
}

impl<'a> Group<'a> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(rows: &Rows<'_>, group: usize, to: To<'a>) -> Self {
        let (groups, channels) = (rows.groups, rows.shape.channels);
        let mask = u16::MAX >> (LANES - (channels - group * LANES).min(LANES));
        let none = Factors::default();
        let requantise = Requantise::new(to.factors.get(group).unwrap_or(&none), to.grid);
        Self { group, groups, channels, mask, requantise, to }
    }

    /// Stores the sums of a pixel, or their codes.
    ///
    /// # Safety
    /// There is space for the results of the pixel.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn store<const CODES: bool>(self, pixel: usize, sums: __m512i) {
        // SAFETY: the caller's promise; the mask ends with the channels.
        unsafe {
            if CODES {
                let codes = _mm512_cvtepi32_epi8(self.requantise.codes(sums));
                let to = self.to.codes.add(pixel * self.channels + self.group * LANES);
                _mm_mask_storeu_epi8(to.cast(), self.mask, codes);
            } else {
                let to = self.to.sums.add(pixel * self.groups + self.group);
                _mm512_storeu_si512(to.cast(), sums);
            }
        }
    }
}

/// # Safety
/// [`check`] passed, and there is space for the results of all pixels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
unsafe fn all<const CODES: bool>(rows: &Rows<'_>, lines: &[Line], to: To<'_>) {
    for segment in rows.segments() {
        for group in 0..rows.groups {
            let group = Group::new(rows, group, to);
            // SAFETY: the caller's promise.
            unsafe {
                match (rows.shape.kernel, rows.shape.stride) {
                    (3, 1) => slide::<CODES>(rows, segment, lines, group),
                    (3, 2) => slide_by_two::<CODES>(rows, segment, lines, group),
                    _ => windows::<CODES>(rows, segment, lines, group),
                }
            }
        }
    }
}

/// Sixteen channels of pixels below each other, four bytes for each channel.
///
/// # Safety
/// Sixteen bytes can be read from every pointer.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn column(pixels: [*const u8; ROWS], interleave: __m512i) -> __m512i {
    let [a, b, c, d] = pixels;
    // SAFETY: the caller's promise.
    unsafe {
        let rows = _mm512_castsi128_si512(_mm_loadu_si128(a.cast()));
        let rows = _mm512_inserti32x4::<1>(rows, _mm_loadu_si128(b.cast()));
        let rows = _mm512_inserti32x4::<2>(rows, _mm_loadu_si128(c.cast()));
        let rows = _mm512_inserti32x4::<3>(rows, _mm_loadu_si128(d.cast()));
        _mm512_permutexvar_epi8(interleave, rows)
    }
}

/// Which byte of four rows of 16 goes where.
#[inline]
#[target_feature(enable = "avx512f")]
fn interleave() -> __m512i {
    let bytes: [u8; 64] = std::array::from_fn(|at| (at % ROWS * LANES + at / ROWS) as u8);
    // SAFETY: the array holds the 64 bytes of the load.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Windows of 3 x 3 next to each other.
///
/// # Safety
/// As for [`all`], and that is what the windows are.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
unsafe fn slide<const CODES: bool>(
    rows: &Rows<'_>,
    Segment { first, start, count }: Segment,
    lines: &[Line],
    group: Group<'_>,
) {
    let interleave = interleave();
    // SAFETY: there is a line for each of 3 columns, and the rows of all windows lie inside the activations.
    unsafe {
        let line =
            |x: usize| _mm512_load_si512(lines.as_ptr().add(x * group.groups + group.group).cast());
        let weights = [line(0), line(1), line(2)];
        let top = rows.acts.as_ptr().add(start + group.group * LANES);
        let [mut next, mut after] = [_mm512_setzero_si512(); 2];
        for x in 0..count + 2 {
            let at = top.add(x * group.channels);
            let [middle, bottom] = [at.add(rows.row), at.add(2 * rows.row)];
            // The weights of the fourth row are zero.
            let column = column([at, middle, bottom, bottom], interleave);
            let done = _mm512_dpbusd_epi32(next, column, weights[2]);
            next = _mm512_dpbusd_epi32(after, column, weights[1]);
            after = _mm512_dpbusd_epi32(_mm512_setzero_si512(), column, weights[0]);
            if x >= 2 {
                group.store::<CODES>(first + x - 2, done);
            }
        }
    }
}

/// Windows of 3 x 3 two pixels apart: the last column of one is the first of the next.
///
/// # Safety
/// As for [`all`], and that is what the windows are.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
unsafe fn slide_by_two<const CODES: bool>(
    rows: &Rows<'_>,
    Segment { first, start, count }: Segment,
    lines: &[Line],
    group: Group<'_>,
) {
    let interleave = interleave();
    let step = rows.step();
    // SAFETY: there is a line for each of 3 columns, and the rows of all windows lie inside the activations.
    unsafe {
        let line =
            |x: usize| _mm512_load_si512(lines.as_ptr().add(x * group.groups + group.group).cast());
        let weights = [line(0), line(1), line(2)];
        let top = rows.acts.as_ptr().add(start + group.group * LANES);
        let of = |at: *const u8| {
            let [middle, bottom] = [at.add(rows.row), at.add(2 * rows.row)];
            // The weights of the fourth row are zero.
            column([at, middle, bottom, bottom], interleave)
        };
        let mut left = of(top);
        for pixel in 0..count {
            let at = top.add(pixel * step);
            let (middle, right) = (of(at.add(group.channels)), of(at.add(2 * group.channels)));
            let sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), left, weights[0]);
            let sums = _mm512_dpbusd_epi32(sums, middle, weights[1]);
            group.store::<CODES>(first + pixel, _mm512_dpbusd_epi32(sums, right, weights[2]));
            left = right;
        }
    }
}

/// Any windows.
///
/// # Safety
/// As for [`all`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
unsafe fn windows<const CODES: bool>(
    rows: &Rows<'_>,
    Segment { first, start, count }: Segment,
    lines: &[Line],
    group: Group<'_>,
) {
    let interleave = interleave();
    let (kernel, step) = (rows.shape.kernel, rows.step());
    let quads = kernel.div_ceil(ROWS);
    for pixel in 0..count {
        let mut sums = _mm512_setzero_si512();
        // SAFETY: there is a line for every column and 4 rows, and the rows of all windows lie inside the activations.
        unsafe {
            let top = rows.acts.as_ptr().add(start + pixel * step + group.group * LANES);
            for x in 0..kernel {
                for quad in 0..quads {
                    // The weights of rows that are not part of the window are zero.
                    let row = |row: usize| {
                        let row = (quad * ROWS + row).min(kernel - 1);
                        top.add(row * rows.row + x * group.channels)
                    };
                    let line = lines.as_ptr().add((x * quads + quad) * group.groups + group.group);
                    let column = column([row(0), row(1), row(2), row(3)], interleave);
                    sums = _mm512_dpbusd_epi32(sums, column, _mm512_load_si512(line.cast()));
                }
            }
            group.store::<CODES>(first + pixel, sums);
        }
    }
}
