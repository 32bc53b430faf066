//! Values to codes, at the beginning of a network and after layers in floating point.

use crate::{
    Isa, KernelError,
    cpu::Cpu,
    int::epilogue::{Codes, check_zero_point},
    vectorise::{Loops, vectorise},
};

/// Rounds values to codes of `bits` bits: `value / scale`, rounded half to even, plus the zero point, clamped to the codes that
/// there are. NaN becomes 0.
///
/// # Errors
/// [`KernelError`] for a wrong length, bits outside 1 to 8, a zero point that is no code, a scale that is not finite, or an
/// instruction set that this processor lacks.
pub fn quantize(
    values: &[f32],
    scale: f32,
    zero_point: u8,
    bits: u8,
    out: &mut [u8],
    isa: Isa,
) -> Result<(), KernelError> {
    let cpu = Cpu::new(isa)?;
    check_zero_point(zero_point, bits)?;
    if out.len() != values.len() {
        return Err(KernelError::Length { what: "out", expected: values.len(), got: out.len() });
    }
    if !scale.is_finite() {
        return Err(KernelError::NotFinite { what: "scales", index: 0 });
    }
    let codes = Codes::new(bits, zero_point, false, f32::INFINITY);
    vectorise(cpu, Quantize { values, scale, codes, out });
    Ok(())
}

struct Quantize<'a> {
    values: &'a [f32],
    scale: f32,
    codes: Codes,
    out: &'a mut [u8],
}

impl Loops for Quantize<'_> {
    #[inline(always)]
    fn run(self) {
        for (out, value) in self.out.iter_mut().zip(self.values) {
            *out = self.codes.round(value / self.scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula_on_every_isa() {
        let mut values: Vec<f32> = (-700..700).map(|step| step as f32 * 0.125).collect();
        values.extend([f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0]);
        let grids = [(0, 8), (3, 8), (128, 8), (255, 8), (5, 4), (1, 1)];
        for (isa, (zero_point, bits)) in Isa::available().flat_map(|isa| grids.map(|z| (isa, z))) {
            let highest = f32::from(u8::MAX >> (8 - bits));
            let mut out = vec![7; values.len()];
            quantize(&values, 0.25, zero_point, bits, &mut out, isa).expect("fits");
            for (value, code) in values.iter().zip(&out) {
                let rounded = (value / 0.25).round_ties_even() + f32::from(zero_point);
                assert_eq!(
                    f32::from(*code),
                    rounded.clamp(0.0, highest),
                    "{isa} {zero_point} {bits} {value}"
                );
            }
            let mut out = [7];
            quantize(&[f32::NAN], 0.25, zero_point, bits, &mut out, isa).expect("fits");
            assert_eq!(out, [0], "{isa}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let short = quantize(&[1.0, 2.0], 1.0, 0, 8, &mut [0], Isa::Portable);
        assert!(matches!(short, Err(KernelError::Length { what: "out", expected: 2, got: 1 })));
        let scale = quantize(&[1.0], f32::NAN, 0, 8, &mut [0], Isa::Portable);
        assert!(matches!(scale, Err(KernelError::NotFinite { .. })));
        for (zero_point, bits) in [(16, 4), (0, 0), (0, 9)] {
            assert!(quantize(&[1.0], 1.0, zero_point, bits, &mut [0], Isa::Portable).is_err());
        }
    }
}
