//! The addition at the end of a residual block.

use std::ops::Range;

use crate::{
    Isa, KernelError, Threads,
    cpu::Cpu,
    int::epilogue::{Codes, check_zero_point},
    vectorise::{Loops, vectorise},
};

/// One operand of the addition.
#[derive(Clone, Copy, Debug)]
pub enum Addend<'a> {
    /// Codes of a quantized tensor.
    Codes {
        /// Distance between the values of neighbouring codes.
        scale: f32,
        /// The code of zero.
        zero_point: u8,
        /// The codes.
        codes: &'a [u8],
    },
    /// Floats, as produced by [`Output::Values`](crate::Output::Values).
    Values(&'a [f32]),
}

impl Addend<'_> {
    const fn len(self) -> usize {
        match self {
            Self::Codes { codes, .. } => codes.len(),
            Self::Values(values) => values.len(),
        }
    }

    fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::Codes { scale, zero_point, codes } => {
                Self::Codes { scale, zero_point, codes: &codes[range] }
            }
            Self::Values(values) => Self::Values(&values[range]),
        }
    }

    #[inline(always)]
    fn value(self, index: usize) -> f32 {
        match self {
            Self::Codes { scale, zero_point, codes } => {
                (f32::from(codes[index]) - f32::from(zero_point)) * scale
            }
            Self::Values(values) => values[index],
        }
    }
}

/// The codes that sums and products become.
#[derive(Clone, Copy, Debug)]
pub struct ResultCodes {
    /// What results are multiplied with: the reciprocal of the scale of the codes, for products times those of the factors.
    pub factor: f32,
    /// The code of zero. If it is 0, then negative sums become 0, as with ReLU.
    pub zero_point: u8,
    /// Bitwidth of the codes.
    pub bits: u8,
}

/// Adds two tensors and quantizes the sum: `(a + b) * factor`, clamped, rounded half to even and moved by the zero point as
/// in [`Epilogue`](crate::Epilogue). Every operation is rounded separately.
///
/// # Errors
/// [`KernelError`] for a wrong length, bits outside 1 to 8, a zero point that is no code, a factor or scale that is not
/// finite, or an instruction set that this processor lacks.
pub fn add(
    a: Addend<'_>,
    b: Addend<'_>,
    to: ResultCodes,
    out: &mut [u8],
    isa: Isa,
    threads: &Threads,
) -> Result<(), KernelError> {
    let (cpu, ResultCodes { factor, zero_point, bits }) = (Cpu::new(isa)?, to);
    check_zero_point(zero_point, bits)?;
    for (what, got) in [("addend", b.len()), ("out", out.len())] {
        if got != a.len() {
            return Err(KernelError::Length { what, expected: a.len(), got });
        }
    }
    for (index, addend) in [a, b].into_iter().enumerate() {
        if matches!(addend, Addend::Codes { scale, .. } if !scale.is_finite()) {
            return Err(KernelError::NotFinite { what: "scales", index });
        }
    }
    if !factor.is_finite() {
        return Err(KernelError::NotFinite { what: "factors", index: 0 });
    }
    let codes = Codes::new(bits, zero_point, false, f32::INFINITY);
    threads.split(out, 1, |first, out| {
        let [a, b] = [a, b].map(|addend| addend.part(first..first + out.len()));
        // One loop for each combination of kinds, so that no loop branches on the kind.
        match (a, b) {
            (Addend::Codes { .. }, Addend::Codes { .. }) => {
                vectorise(cpu, Sum::<true, true> { a, b, factor, codes, out });
            }
            (Addend::Codes { .. }, Addend::Values(_)) => {
                vectorise(cpu, Sum::<true, false> { a, b, factor, codes, out });
            }
            (Addend::Values(_), Addend::Codes { .. }) => {
                vectorise(cpu, Sum::<false, true> { a, b, factor, codes, out });
            }
            (Addend::Values(_), Addend::Values(_)) => {
                vectorise(cpu, Sum::<false, false> { a, b, factor, codes, out });
            }
        }
    });
    Ok(())
}

/// `A` and `B` tell whether the addends are codes.
struct Sum<'a, const A: bool, const B: bool> {
    a: Addend<'a>,
    b: Addend<'a>,
    factor: f32,
    codes: Codes,
    out: &'a mut [u8],
}

impl<const A: bool, const B: bool> Loops for Sum<'_, A, B> {
    #[inline(always)]
    fn run(self) {
        for (index, out) in self.out.iter_mut().enumerate() {
            let sum = self.a.value(index) + self.b.value(index);
            *out = self.codes.round(sum * self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula_on_every_isa() {
        let codes: Vec<u8> = (0..=255).chain([0, 255]).collect();
        let values: Vec<f32> = (0..codes.len()).map(|i| 40.0 - i as f32 * 0.375).collect();
        let addends = [
            Addend::Codes { scale: 0.25, zero_point: 0, codes: &codes },
            Addend::Codes { scale: 0.5, zero_point: 130, codes: &codes },
            Addend::Values(&values),
        ];
        let value = |addend: Addend<'_>, index: usize| addend.value(index);
        for isa in Isa::available() {
            for (a, b) in addends.into_iter().flat_map(|a| addends.map(|b| (a, b))) {
                for (bits, zero) in (1..=8).flat_map(|bits| [(bits, 0_u8), (bits, 1)]) {
                    let to = ResultCodes { factor: 0.5, zero_point: zero, bits };
                    let mut out = vec![9; codes.len()];
                    add(a, b, to, &mut out, isa, &Threads::one()).expect("fits");
                    for (index, &code) in out.iter().enumerate() {
                        let sum = (value(a, index) + value(b, index)) * 0.5;
                        let largest = ((1_u32 << bits) - 1) as f32;
                        let rounded = sum.round_ties_even() + f32::from(zero);
                        let expected = rounded.clamp(0.0, largest) as u8;
                        assert_eq!(code, expected, "{isa} {bits} {zero} {index}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let codes = Addend::Codes { scale: 1.0, zero_point: 0, codes: &[1, 2] };
        let run = |a, b, factor, bits, out: &mut [u8]| {
            let to = ResultCodes { factor, zero_point: 3, bits };
            add(a, b, to, out, Isa::Portable, &Threads::one())
        };
        let long = run(codes, Addend::Values(&[0.0; 3]), 1.0, 8, &mut [0; 2]);
        assert!(matches!(long, Err(KernelError::Length { what: "addend", expected: 2, got: 3 })));
        let short = run(codes, codes, 1.0, 8, &mut [0]);
        assert!(matches!(short, Err(KernelError::Length { what: "out", .. })));
        let bits = run(codes, codes, 1.0, 9, &mut [0; 2]);
        assert!(matches!(bits, Err(KernelError::Bits { got: 9, .. })));
        let zero = run(codes, codes, 1.0, 1, &mut [0; 2]);
        assert!(matches!(zero, Err(KernelError::Code { what: "zero point", got: 3, .. })));
        let scale = Addend::Codes { scale: f32::NAN, zero_point: 0, codes: &[1, 2] };
        let scale = run(codes, scale, 1.0, 8, &mut [0; 2]);
        assert!(matches!(scale, Err(KernelError::NotFinite { what: "scales", index: 1 })));
        assert!(run(codes, codes, f32::INFINITY, 8, &mut [0; 2]).is_err());
    }
}
