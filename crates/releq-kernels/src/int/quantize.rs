//! Values to codes, at the beginning of a network and after layers in floating point.

use crate::{
    Isa, KernelError, Threads,
    cpu::Cpu,
    int::epilogue::{Codes, check_zero_point},
    vectorise::{Loops, vectorise},
};

/// Pixels whose codes are put together at a time.
const PIXELS: usize = 64;

/// What codes stand for: `scale * (code - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CodeGrid {
    /// Distance between the values of neighbouring codes.
    pub scale: f32,
    /// The code of zero.
    pub zero_point: u8,
    /// Bits of a code, 1 to 8.
    pub bits: u8,
}

/// Rounds values to codes: `value / scale`, rounded half to even, plus the zero point, clamped to the codes that there are. NaN
/// becomes 0. Channels that came one after the other lie side by side in the end.
///
/// # Shapes
/// - `values`: `[channels][pixels]`
/// - `out`: `[pixels][channels]`
///
/// # Errors
/// [`KernelError`] for a wrong length, no channels, bits outside 1 to 8, a zero point that is no code, a scale that is not finite,
/// or an instruction set that this processor lacks.
pub fn quantize(
    values: &[f32],
    channels: usize,
    grid: CodeGrid,
    out: &mut [u8],
    isa: Isa,
    threads: &Threads,
) -> Result<(), KernelError> {
    let CodeGrid { scale, zero_point, bits } = grid;
    let cpu = Cpu::new(isa)?;
    check_zero_point(zero_point, bits)?;
    if out.len() != values.len() {
        return Err(KernelError::Length { what: "out", expected: values.len(), got: out.len() });
    }
    if !values.len().is_multiple_of(channels) || channels == 0 {
        let reason = "must divide the number of values";
        return Err(KernelError::Shape { what: "channels", got: channels, reason });
    }
    if !scale.is_finite() {
        return Err(KernelError::NotFinite { what: "scales", index: 0 });
    }
    let codes = Codes::new(bits, zero_point, false, f32::INFINITY);
    let pixels = values.len() / channels;
    threads.split(out, channels, |first, out| match channels {
        1 => vectorise(cpu, Row { values: &values[first..][..out.len()], scale, codes, out }),
        3 => {
            let planes = std::array::from_fn::<_, 3, _>(|channel| {
                &values[channel * pixels + first..][..out.len() / 3]
            });
            vectorise(cpu, Colours { planes, scale, codes, out });
        }
        _ => vectorise(cpu, Planes { values, pixels, first, channels, scale, codes, out }),
    });
    Ok(())
}

/// One channel.
struct Row<'a> {
    values: &'a [f32],
    scale: f32,
    codes: Codes,
    out: &'a mut [u8],
}

impl Loops for Row<'_> {
    #[inline(always)]
    fn run(self) {
        for (out, value) in self.out.iter_mut().zip(self.values) {
            *out = self.codes.round(value / self.scale);
        }
    }
}

/// A few channels, whose number the compiler knows, so that it can shuffle codes in registers.
struct Colours<'a, const N: usize> {
    planes: [&'a [f32]; N],
    scale: f32,
    codes: Codes,
    out: &'a mut [u8],
}

impl<const N: usize> Loops for Colours<'_, N> {
    #[inline(always)]
    fn run(self) {
        let (out, _) = self.out.as_chunks_mut::<N>();
        for (block, out) in out.chunks_mut(PIXELS).enumerate() {
            let mut rows = [[0; PIXELS]; N];
            for (row, plane) in rows.iter_mut().zip(self.planes) {
                for (to, value) in row.iter_mut().zip(&plane[block * PIXELS..][..out.len()]) {
                    *to = self.codes.round(value / self.scale);
                }
            }
            for (pixel, out) in out.iter_mut().enumerate() {
                for (out, row) in out.iter_mut().zip(&rows) {
                    *out = row[pixel];
                }
            }
        }
    }
}

/// Any number of channels.
struct Planes<'a> {
    values: &'a [f32],
    pixels: usize,
    /// The first pixel of `out`.
    first: usize,
    channels: usize,
    scale: f32,
    codes: Codes,
    out: &'a mut [u8],
}

impl Loops for Planes<'_> {
    #[inline(always)]
    fn run(self) {
        let pixels = self.out.len() / self.channels;
        for (channel, plane) in self.values.chunks_exact(self.pixels).enumerate() {
            let to = self.out[channel..].iter_mut().step_by(self.channels);
            for (out, value) in to.zip(&plane[self.first..][..pixels]) {
                *out = self.codes.round(value / self.scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn equals_the_formula_on_every_isa() {
        let mut values: Vec<f32> = (-700..700).map(|step| step as f32 * 0.125).collect();
        values.extend([f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0]);
        let one = Threads::one();
        let grids = [(0, 8), (3, 8), (128, 8), (255, 8), (5, 4), (1, 1)];
        for (isa, (zero_point, bits)) in Isa::available().flat_map(|isa| grids.map(|z| (isa, z))) {
            let grid = CodeGrid { scale: 0.25, zero_point, bits };
            let highest = f32::from(u8::MAX >> (8 - bits));
            let mut out = vec![7; values.len()];
            quantize(&values, 1, grid, &mut out, isa, &one).expect("fits");
            for (value, code) in values.iter().zip(&out) {
                let rounded = (value / 0.25).round_ties_even() + f32::from(zero_point);
                assert_eq!(
                    f32::from(*code),
                    rounded.clamp(0.0, highest),
                    "{isa} {zero_point} {bits} {value}"
                );
            }
            let mut out = [7];
            quantize(&[f32::NAN], 1, grid, &mut out, isa, &one).expect("fits");
            assert_eq!(out, [0], "{isa}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes")]
    fn channels_end_up_side_by_side_with_any_number_of_threads() {
        for (channels, pixels) in [(1, 1), (2, 5), (3, 1), (3, 64), (3, 211), (3, 30_000), (4, 9)] {
            let values: Vec<f32> =
                (0..channels * pixels).map(|at| (at * 97 % 1001) as f32 * 0.3).collect();
            let mut codes = vec![0; values.len()];
            let (portable, one) = (Isa::Portable, Threads::one());
            let grid = CodeGrid { scale: 1.3, zero_point: 9, bits: 8 };
            quantize(&values, 1, grid, &mut codes, portable, &one).expect("fits");
            for (isa, count) in Isa::available().flat_map(|isa| [1, 2, 3].map(|n| (isa, n))) {
                let threads = Threads::eager(NonZeroUsize::new(count).expect("positive"));
                let mut out = vec![7; values.len()];
                quantize(&values, channels, grid, &mut out, isa, &threads).expect("fits");
                for (at, code) in out.iter().enumerate() {
                    let (pixel, channel) = (at / channels, at % channels);
                    assert_eq!(*code, codes[channel * pixels + pixel], "{isa} {channels} {at}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let run_at = |channels, grid, out: &mut [u8]| {
            quantize(&[1.0, 2.0], channels, grid, out, Isa::Portable, &Threads::one())
        };
        let run = |channels, scale, out: &mut [u8]| {
            run_at(channels, CodeGrid { scale, zero_point: 0, bits: 8 }, out)
        };
        let short = run(1, 1.0, &mut [0]);
        assert!(matches!(short, Err(KernelError::Length { what: "out", expected: 2, got: 1 })));
        for channels in [0, 3] {
            let channels = run(channels, 1.0, &mut [0; 2]);
            assert!(matches!(channels, Err(KernelError::Shape { what: "channels", .. })));
        }
        assert!(matches!(run(1, f32::NAN, &mut [0; 2]), Err(KernelError::NotFinite { .. })));
        for (zero_point, bits) in [(16, 4), (0, 0), (0, 9)] {
            let grid = CodeGrid { scale: 1.0, zero_point, bits };
            assert!(run_at(1, grid, &mut [0; 2]).is_err(), "{grid:?}");
        }
    }
}
