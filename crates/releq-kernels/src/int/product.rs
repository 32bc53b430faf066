//! Products of tensors, as at the gates of squeeze and excitation.

use crate::{
    Isa, KernelError, Threads,
    cpu::Cpu,
    int::{
        epilogue::{Codes, check_zero_point},
        residual::ResultCodes,
    },
    vectorise::{Loops, vectorise},
};

/// One operand of a product.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a> {
    /// The codes.
    pub codes: &'a [u8],
    /// The code of zero.
    pub zero_point: u8,
}

/// Multiplies two tensors of codes and quantizes the products: `(a - a_zero) * (b - b_zero) * factor`, clamped, rounded half to
/// even and moved by the zero point as in [`Epilogue`](crate::Epilogue). The product of the codes is exact.
///
/// # Shapes
/// - `a`, `out`: `[pixels][channels]`
/// - `b`: as `a`, or `[channels]`, a factor for every channel
///
/// # Errors
/// [`KernelError`] for a wrong length, bits outside 1 to 8, a zero point that is no code, a factor that is not finite, or an
/// instruction set that this processor lacks.
pub fn multiply(
    a: Factor<'_>,
    b: Factor<'_>,
    to: ResultCodes,
    out: &mut [u8],
    isa: Isa,
    threads: &Threads,
) -> Result<(), KernelError> {
    let (cpu, ResultCodes { factor, zero_point, bits }) = (Cpu::new(isa)?, to);
    check_zero_point(zero_point, bits)?;
    let (expected, got) = (a.codes.len(), b.codes.len());
    if out.len() != expected {
        return Err(KernelError::Length { what: "out", expected, got: out.len() });
    }
    if !expected.is_multiple_of(got) {
        return Err(KernelError::Length { what: "factors", expected, got });
    }
    if !factor.is_finite() {
        return Err(KernelError::NotFinite { what: "factors", index: 0 });
    }
    if expected > 0 {
        let codes = Codes::new(bits, zero_point, false, f32::INFINITY);
        // Whole pixels, or everything is one pixel.
        let unit = if got < expected { got } else { 1 };
        threads.split(out, unit, |first, out| {
            let part = first * unit..first * unit + out.len();
            let b = if got < expected { b } else { Factor { codes: &b.codes[part.clone()], ..b } };
            let a = Factor { codes: &a.codes[part], ..a };
            vectorise(cpu, Products { a, b, factor, codes, out });
        });
    }
    Ok(())
}

struct Products<'a> {
    a: Factor<'a>,
    b: Factor<'a>,
    factor: f32,
    codes: Codes,
    out: &'a mut [u8],
}

impl Loops for Products<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { a, b, factor, codes, out } = self;
        let [a_zero, b_zero] = [a.zero_point, b.zero_point].map(i32::from);
        let channels = b.codes.len();
        for (out, a) in out.chunks_exact_mut(channels).zip(a.codes.chunks_exact(channels)) {
            for (out, (&a, &b)) in out.iter_mut().zip(a.iter().zip(b.codes)) {
                let product = (i32::from(a) - a_zero) * (i32::from(b) - b_zero);
                *out = codes.round(product as f32 * factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula_on_every_isa() {
        let a: Vec<u8> = (0..=255).chain([0, 255]).cycle().take(258 * 3).collect();
        let b: Vec<u8> = (0..258).map(|at| (at * 37 % 256) as u8).collect();
        let whole: Vec<u8> = b.iter().rev().cycle().take(a.len()).copied().collect();
        for isa in Isa::available() {
            for (b, b_zero, zero, bits) in
                [(&b, 0, 0, 8), (&b, 255, 7, 8), (&whole, 128, 128, 8), (&whole, 128, 7, 4)]
            {
                let highest = f32::from(u8::MAX >> (8 - bits));
                let mut out = vec![9; a.len()];
                let [x, y] =
                    [(&a, 3), (b, b_zero)].map(|(codes, zero_point)| Factor { codes, zero_point });
                let to = ResultCodes { factor: 0.017, zero_point: zero, bits };
                multiply(x, y, to, &mut out, isa, &Threads::one()).expect("fits");
                for (index, &code) in out.iter().enumerate() {
                    let left = i32::from(a[index]) - 3;
                    let right = i32::from(b[index % b.len()]) - i32::from(b_zero);
                    let rounded = ((left * right) as f32 * 0.017).round_ties_even();
                    let expected = (rounded + f32::from(zero)).clamp(0.0, highest) as u8;
                    assert_eq!(code, expected, "{isa} {zero} {bits} {index}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let run = |b: &[u8], factor, out: &mut [u8]| {
            let a = Factor { codes: &[1, 2, 3, 4], zero_point: 0 };
            let b = Factor { codes: b, zero_point: 0 };
            let to = ResultCodes { factor, zero_point: 0, bits: 8 };
            multiply(a, b, to, out, Isa::Portable, &Threads::one())
        };
        assert!(run(&[1, 2], 1.0, &mut [0; 4]).is_ok());
        for b in [&[1, 2, 3][..], &[], &[1; 8]] {
            let error = run(b, 1.0, &mut [0; 4]);
            assert!(matches!(error, Err(KernelError::Length { what: "factors", expected: 4, .. })));
        }
        let short = run(&[1, 2], 1.0, &mut [0; 3]);
        assert!(matches!(short, Err(KernelError::Length { what: "out", .. })));
        assert!(run(&[1, 2], f32::NAN, &mut [0; 4]).is_err());
    }
}
