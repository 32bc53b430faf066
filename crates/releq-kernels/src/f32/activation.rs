//! Functions of one value, and their derivatives.
//!
//! Plain arithmetic without tables or branches, which the compiler vectorizes; the result is the same with all
//! instructions.

use crate::{
    Isa, KernelError,
    cpu::Cpu,
    vectorise::{Loops, vectorise},
};

/// A function that is applied to every value on its own. What is not a number stays so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FloatFunction {
    /// `min(max(x, min), max)`. As in PyTorch's `hardtanh`, it has no slope at either end.
    Clip {
        /// Smallest value.
        min: f32,
        /// Largest value.
        max: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `min(max(alpha * x + beta, 0), 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x * min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// `x` where that is positive, `slope * x` elsewhere.
    LeakyRelu {
        /// Slope below 0.
        slope: f32,
    },
    /// Hyperbolic tangent.
    Tanh,
    /// `x` times the standard normal distribution function of `x`.
    Gelu,
}

/// Applies a [`FloatFunction`] to values.
#[derive(Clone, Copy, Debug)]
pub struct FloatMap {
    function: FloatFunction,
    cpu: Cpu,
}

impl FloatMap {
    /// The function, with the instructions of `isa`.
    ///
    /// # Errors
    /// [`KernelError`] for an instruction set that this processor lacks.
    pub fn new(function: FloatFunction, isa: Isa) -> Result<Self, KernelError> {
        Ok(Self { function, cpu: Cpu::new(isa)? })
    }

    /// `out = f(x)`.
    ///
    /// # Panics
    /// If the slices have different lengths.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        self.apply(x, out, Part::Value);
    }

    /// Replaces `gradient`, that of `f(x)`, by that of `x`.
    ///
    /// # Panics
    /// If the slices have different lengths.
    pub fn backward(&self, x: &[f32], gradient: &mut [f32]) {
        self.apply(x, gradient, Part::Slope);
    }

    fn apply(&self, x: &[f32], to: &mut [f32], part: Part) {
        assert_eq!(x.len(), to.len(), "as many values");
        match self.function {
            FloatFunction::Clip { min, max } => self.run(Clip { min, max }, x, to, part),
            FloatFunction::Sigmoid => self.run(Sigmoid, x, to, part),
            FloatFunction::HardSigmoid { alpha, beta } => {
                self.run(HardSigmoid { alpha, beta }, x, to, part);
            }
            FloatFunction::Silu => self.run(Silu, x, to, part),
            FloatFunction::HardSwish => self.run(HardSwish, x, to, part),
            FloatFunction::LeakyRelu { slope } => self.run(LeakyRelu { slope }, x, to, part),
            FloatFunction::Tanh => self.run(Tanh, x, to, part),
            FloatFunction::Gelu => self.run(Gelu, x, to, part),
        }
    }

    fn run(&self, curve: impl Curve, x: &[f32], to: &mut [f32], part: Part) {
        vectorise(self.cpu, Map { curve, x, to, part });
    }
}

/// Which of the two is asked for.
#[derive(Clone, Copy)]
enum Part {
    /// `f(x)`, stored.
    Value,
    /// The derivative, multiplied to what is there.
    Slope,
}

/// A function and its derivative; both must be `#[inline(always)]`, see [`Loops`].
trait Curve: Copy {
    fn value(self, x: f32) -> f32;
    fn slope(self, x: f32) -> f32;
}

struct Map<'a, C> {
    curve: C,
    x: &'a [f32],
    to: &'a mut [f32],
    part: Part,
}

impl<C: Curve> Loops for Map<'_, C> {
    #[inline(always)]
    fn run(self) {
        let Self { curve, x, to, part } = self;
        match part {
            Part::Value => to.iter_mut().zip(x).for_each(|(to, x)| *to = curve.value(*x)),
            Part::Slope => to.iter_mut().zip(x).for_each(|(to, x)| *to *= curve.slope(*x)),
        }
    }
}

/// `min(max(x, low), high)`; NaN stays.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// `exp(x)` for `x` of -87 to 88, and its value at the nearer end for others.
///
/// The relative error is below 2e-7.
///
/// # Source
/// Moshier's Cephes, `expf`: `exp(x) = 2^n * exp(r)` with `|r| <= ln(2) / 2`, and a polynomial of degree 7.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it leaves the nearest whole number in the lowest bits of the sum.
    const SHIFT: f32 = 12_582_912.0;
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    let x = clamp(x, -87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let mut p = 1.987_569_1e-4;
    for factor in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + factor;
    }
    let power = shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127) << 23;
    (p * r * r + r + 1.0) * f32::from_bits(power)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[derive(Clone, Copy)]
struct Clip {
    min: f32,
    max: f32,
}

impl Curve for Clip {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        clamp(x, self.min, self.max)
    }
    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        if x > self.min && x < self.max { 1.0 } else { 0.0 }
    }
}

#[derive(Clone, Copy)]
struct Sigmoid;

impl Curve for Sigmoid {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        sigmoid(x)
    }
    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        let y = sigmoid(x);
        y * (1.0 - y)
    }
}

#[derive(Clone, Copy)]
struct HardSigmoid {
    alpha: f32,
    beta: f32,
}

impl Curve for HardSigmoid {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        clamp(self.alpha * x + self.beta, 0.0, 1.0)
    }
    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        let y = self.alpha * x + self.beta;
        if y > 0.0 && y < 1.0 { self.alpha } else { 0.0 }
    }
}

#[derive(Clone, Copy)]
struct Silu;

impl Curve for Silu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * sigmoid(x)
    }
    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        let y = sigmoid(x);
        y * (1.0 + x * (1.0 - y))
    }
}

#[derive(Clone, Copy)]
struct HardSwish;

impl Curve for HardSwish {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * clamp(x / 6.0 + 0.5, 0.0, 1.0)
    }
    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        let inside = if x > -3.0 { x / 3.0 + 0.5 } else { 0.0 };
        if x < 3.0 { inside } else { 1.0 }
    }
}

#[derive(Clone, Copy)]
struct LeakyRelu {
    slope: f32,
}

impl Curve for LeakyRelu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        if x > 0.0 { x } else { self.slope * x }
    }
    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        if x > 0.0 { 1.0 } else { self.slope }
    }
}

#[derive(Clone, Copy)]
struct Tanh;

impl Curve for Tanh {
    /// # Source
    /// Moshier's Cephes, `tanhf`: an odd polynomial near 0, where the other formula cancels.
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        let square = x * x;
        let mut p = -5.704_988_7e-3;
        for factor in [2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
            p = p * square + factor;
        }
        let near = p * square * x + x;
        let t = exp(-2.0 * x.abs());
        let far = ((1.0 - t) / (1.0 + t)).copysign(x);
        if x.abs() < 0.625 { near } else { far }
    }
    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        let y = self.value(x);
        1.0 - y * y
    }
}

#[derive(Clone, Copy)]
struct Gelu;

impl Gelu {
    /// The standard normal distribution function and its density.
    ///
    /// # Source
    /// Abramowitz and Stegun 1964, formula 7.1.26, with an error of at most 1e-7.
    #[inline(always)]
    fn normal(x: f32) -> [f32; 2] {
        let bell = exp(-0.5 * x * x);
        let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
        let mut p = 1.061_405_4;
        for factor in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = p * t + factor;
        }
        let tail = 0.5 * p * t * bell;
        let density =
            bell * (0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2);
        [if x > 0.0 { 1.0 - tail } else { tail }, density]
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * Self::normal(x)[0]
    }
    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        let [below, density] = Self::normal(x);
        below + x * density
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: [FloatFunction; 8] = [
        FloatFunction::Clip { min: -0.5, max: 4.0 },
        FloatFunction::Sigmoid,
        FloatFunction::HardSigmoid { alpha: 0.2, beta: 0.5 },
        FloatFunction::Silu,
        FloatFunction::HardSwish,
        FloatFunction::LeakyRelu { slope: 0.1 },
        FloatFunction::Tanh,
        FloatFunction::Gelu,
    ];

    /// By the definition, in double precision.
    fn definition(function: FloatFunction, x: f64) -> f64 {
        let sigmoid = 1.0 / (1.0 + (-x).exp());
        match function {
            FloatFunction::Clip { min, max } => x.clamp(min.into(), max.into()),
            FloatFunction::Sigmoid => sigmoid,
            FloatFunction::HardSigmoid { alpha, beta } => {
                (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0)
            }
            FloatFunction::Silu => x * sigmoid,
            FloatFunction::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            FloatFunction::LeakyRelu { slope } => x.max(f64::from(slope) * x),
            FloatFunction::Tanh => x.tanh(),
            FloatFunction::Gelu => {
                // Simpson's rule over the density, from the mean.
                let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let end = x.clamp(-40.0, 40.0);
                let steps = 4000;
                let step = end / f64::from(steps);
                let weight =
                    |i: i32| if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
                let sum: f64 = (0..=steps).map(|i| weight(i) * density(f64::from(i) * step)).sum();
                x * (0.5 + sum * step / 3.0)
            }
        }
    }

    #[test]
    fn values_and_slopes_equal_the_definition_with_all_instructions() {
        let mut x: Vec<f32> = (-1200..1200).map(|i| i as f32 / 100.0 + 0.003).collect();
        x.extend([0.0, 1e-6, -1e-6, 30.0, -30.0, 200.0, -200.0]);
        for function in FUNCTIONS {
            let mut first = None;
            for isa in Isa::available() {
                let map = FloatMap::new(function, isa).expect("it is available");
                let mut out = vec![0.0; x.len()];
                map.forward(&x, &mut out);
                let mut gradient = vec![1.5; x.len()];
                map.backward(&x, &mut gradient);
                for ((&x, &out), &gradient) in x.iter().zip(&out).zip(&gradient) {
                    let at = f64::from(x);
                    let expected = definition(function, at);
                    let near = (f64::from(out) - expected).abs() <= 4e-7 * (1.0 + expected.abs());
                    assert!(near, "{function:?} of {x}: {out}, expected {expected}");
                    if x == 0.0 {
                        continue;
                    }
                    let apart = 1e-6_f64.min(at.abs() / 2.0);
                    let [above, below] =
                        [at + apart, at - apart].map(|at| definition(function, at));
                    let expected = 1.5 * (above - below) / (2.0 * apart);
                    let near = (f64::from(gradient) - expected).abs() <= 3e-6;
                    assert!(near, "{function:?}' at {x}: {gradient}, expected {expected}");
                }
                let (out, gradient) = first.get_or_insert_with(|| (out.clone(), gradient.clone()));
                let mut again = vec![0.0; x.len()];
                map.forward(&x, &mut again);
                assert_eq!(&again, out, "{function:?} with {isa}");
                let mut again = vec![1.5; x.len()];
                map.backward(&x, &mut again);
                assert_eq!(&again, gradient, "{function:?}' with {isa}");
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_and_infinity_ends_where_it_should() {
        for function in FUNCTIONS {
            let map = FloatMap::new(function, Isa::Portable).expect("it is available");
            let mut out = [0.0; 2];
            map.forward(&[f32::NAN, f32::INFINITY], &mut out);
            assert!(out[0].is_nan(), "{function:?}");
            let expected = definition(function, f64::INFINITY);
            assert!(f64::from(out[1]) == expected || expected.is_nan(), "{function:?}: {out:?}");
        }
    }
}
