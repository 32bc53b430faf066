//! Batch norm over channels-last values. Sums over a batch are kept in double precision.

use super::{
    rectifier::Rectifier,
    vector::{Family, FloatCpu, Task, Vector, dispatch},
};
use crate::{Isa, KernelError};

/// Values that are processed at a time, so that a second pass over them finds them in the L1 cache.
const CHUNK: usize = 1 << 12;

/// Mean and biased variance of every channel of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchMoments {
    /// Means.
    pub mean: Vec<f32>,
    /// Biased variances.
    pub variance: Vec<f32>,
}

/// Batch norm over `channels`. The caller owns the scale and the shift.
#[derive(Clone, Debug)]
pub struct FloatNorm {
    channels: usize,
    cpu: FloatCpu,
    sums: [Vec<f32>; 2],
    totals: [Vec<f64>; 2],
    factors: [Vec<f32>; 3],
}

impl FloatNorm {
    /// A batch norm for values `[pixels][channels]`.
    ///
    /// # Errors
    /// [`KernelError`] for zero channels, or an instruction set that this processor lacks.
    pub fn new(channels: usize, isa: Isa) -> Result<Self, KernelError> {
        if channels == 0 {
            let reason = "must be positive";
            return Err(KernelError::Shape { what: "channels", got: 0, reason });
        }
        let cpu = FloatCpu::new(isa)?;
        Ok(Self {
            channels,
            cpu,
            sums: Default::default(),
            totals: Default::default(),
            factors: Default::default(),
        })
    }

    fn clear(&mut self) {
        for totals in &mut self.totals {
            totals.clear();
            totals.resize(self.channels, 0.0);
        }
    }

    /// Computes the sums of one chunk; the caller adds them to the totals.
    fn pass(&mut self, chunk: Pass<'_>) {
        for sums in &mut self.sums {
            sums.clear();
            sums.resize(self.channels, 0.0);
        }
        let [first, second] = &mut self.sums;
        dispatch(self.cpu, Sums { channels: self.channels, pass: chunk, first, second });
    }

    fn chunk(&self) -> usize {
        (CHUNK / self.channels).max(16) * self.channels
    }

    /// Mean and variance of every channel.
    ///
    /// # Shapes
    /// - `x`: `[pixels][channels]`
    ///
    /// # Panics
    /// If `x` is not a whole number of pixels.
    pub fn moments(&mut self, x: &[f32], moments: &mut BatchMoments) {
        let channels = self.channels;
        assert!(x.len().is_multiple_of(channels), "whole pixels");
        self.clear();
        let mut seen = 0.0;
        let mut means = std::mem::take(&mut self.factors[0]);
        means.resize(channels, 0.0);
        for x in x.chunks(self.chunk()) {
            // The mean and the squared distances of the chunk are merged with those of the previous chunks
            // (Chan, Golub and LeVeque 1979), which stays accurate even if the mean is far from zero.
            let count = (x.len() / channels) as f64;
            // The first pass rounds the mean to f32. The second sums distances from this value; their mean is
            // what the rounding lost, and is added back below.
            self.pass(Pass::Mean(x));
            for (mean, sum) in means.iter_mut().zip(&self.sums[0]) {
                *mean = sum / count as f32;
            }
            self.pass(Pass::Spread(x, &means));
            let together = seen + count;
            let [mean_of, spread_of] = &mut self.totals;
            for channel in 0..channels {
                let residual = f64::from(self.sums[0][channel]) / count;
                let mean = f64::from(means[channel]) + residual;
                let spread = f64::from(self.sums[1][channel]) - count * residual * residual;
                let apart = mean - mean_of[channel];
                mean_of[channel] += apart * count / together;
                spread_of[channel] += spread + apart * apart * seen * count / together;
            }
            seen = together;
        }
        self.factors[0] = means;
        moments.mean.clear();
        moments.mean.extend(self.totals[0].iter().map(|&mean| mean as f32));
        moments.variance.clear();
        let seen = f64::max(seen, 1.0);
        moments
            .variance
            .extend(self.totals[1].iter().map(|&spread| (spread / seen).max(0.0) as f32));
    }

    /// `out = rectifier((x - mean) * scale + shift)`.
    ///
    /// # Shapes
    /// - `x`, `out`: `[pixels][channels]`; the others: `[channels]`
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn normalize(
        &self,
        x: &[f32],
        [mean, scale, shift]: [&[f32]; 3],
        rectifier: Rectifier,
        out: &mut [f32],
    ) {
        assert_eq!(x.len(), out.len(), "as many values");
        assert!(x.len().is_multiple_of(self.channels), "whole pixels");
        for factors in [mean, scale, shift] {
            assert_eq!(factors.len(), self.channels, "one factor for every channel");
        }
        for (x, out) in x.chunks(self.chunk()).zip(out.chunks_mut(self.chunk())) {
            dispatch(
                self.cpu,
                Affine { channels: self.channels, x, mean, scale, shift, rectifier, out },
            );
        }
    }

    /// The backward pass of [`normalize`](Self::normalize) with the moments of `x` and
    /// `scale = weight * inverse`. Replaces `gradient`, that of the output, by that of `x`, and computes those
    /// of weight and shift.
    ///
    /// Without `inverse`, mean and scale do not depend on `x`, and `scale` itself is the weight.
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn backward(
        &mut self,
        x: &[f32],
        [mean, scale, shift]: [&[f32]; 3],
        inverse: Option<&[f32]>,
        rectifier: Rectifier,
        gradient: &mut [f32],
        [weight_gradient, shift_gradient]: [&mut [f32]; 2],
    ) {
        let channels = self.channels;
        assert_eq!(x.len(), gradient.len(), "as many values");
        assert!(x.len().is_multiple_of(channels), "whole pixels");
        for factors in [mean, scale, shift, weight_gradient, shift_gradient] {
            assert_eq!(factors.len(), channels, "one factor for every channel");
        }
        assert!(inverse.is_none_or(|inverse| inverse.len() == channels), "one for every channel");
        self.clear();
        let len = self.chunk();
        for (x, gradient) in x.chunks(len).zip(gradient.chunks(len)) {
            self.pass(Pass::Gradient { x, gradient, factors: [mean, scale, shift], rectifier });
            for (totals, sums) in self.totals.iter_mut().zip(&self.sums) {
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total += f64::from(*sum);
                }
            }
        }
        // With g the gradient of the output after ReLU and d = x - mean, that of x is
        // scale * (g - mean(g) - d * inverse^2 * mean(g d)): `offsets` are the second term, `slopes` the factor of d.
        let count = (x.len() / channels).max(1) as f64;
        let [offsets, slopes, _] = &mut self.factors;
        offsets.clear();
        slopes.clear();
        let [plain, weighted] = &self.totals;
        for channel in 0..channels {
            shift_gradient[channel] = plain[channel] as f32;
            let Some(inverse) = inverse else {
                weight_gradient[channel] = weighted[channel] as f32;
                offsets.push(0.0);
                slopes.push(0.0);
                continue;
            };
            let inverse = f64::from(inverse[channel]);
            weight_gradient[channel] = (weighted[channel] * inverse) as f32;
            offsets.push((plain[channel] / count) as f32);
            slopes.push((weighted[channel] * inverse * inverse / count) as f32);
        }
        for (x, gradient) in x.chunks(len).zip(gradient.chunks_mut(len)) {
            let factors = [mean, scale, shift, offsets, slopes];
            dispatch(self.cpu, Slope { channels, x, factors, rectifier, gradient });
        }
    }
}

/// The two quantities that are summed over the pixels of a chunk.
enum Pass<'a> {
    /// `x`; the second sum is unused.
    Mean(&'a [f32]),
    /// `x - mean` and its square.
    Spread(&'a [f32], &'a [f32]),
    /// The gradient, and the gradient times `x - mean`.
    Gradient { x: &'a [f32], gradient: &'a [f32], factors: [&'a [f32]; 3], rectifier: Rectifier },
}

struct Sums<'a> {
    channels: usize,
    pass: Pass<'a>,
    first: &'a mut [f32],
    second: &'a mut [f32],
}

/// Runs `$body` for every vector of channels: `$at` is its first channel, `$len` the number of channels that
/// are left.
macro_rules! for_vectors {
    ($channels:expr, $family:ident, |$at:ident, $len:ident| $body:block) => {
        let mut $at = 0;
        while $at < $channels {
            let $len = $channels - $at;
            $body
            $at += $family::Full::LANES;
        }
    };
}

#[allow(unsafe_code, reason = "vector instructions on slices whose lengths were checked")]
impl Task for Sums<'_> {
    #[inline(always)]
    fn run<F: Family>(self, _family: F) {
        let channels = self.channels;
        if let Pass::Gradient { x, gradient, .. } = &self.pass {
            assert_eq!(x.len(), gradient.len(), "as many values");
        }
        for_vectors!(channels, F, |at, len| {
            // SAFETY: `_family` proves that the processor has the instructions. Slices of values hold whole
            // pixels and have equal lengths, all others hold one value per channel, and `len` channels are
            // left.
            unsafe {
                let factor = |factors: &[f32]| {
                    F::Full::load_up_to(factors[..channels].as_ptr().add(at), len)
                };
                let value = |values: &[f32], pixel: usize| {
                    F::Full::load_up_to(values.as_ptr().add(pixel * channels + at), len)
                };
                let mut first = F::Full::splat(0.0);
                let mut second = F::Full::splat(0.0);
                match self.pass {
                    Pass::Mean(x) => {
                        for pixel in 0..x.len() / channels {
                            first = first.add(value(x, pixel));
                        }
                    }
                    Pass::Spread(x, mean) => {
                        let mean = factor(mean);
                        for pixel in 0..x.len() / channels {
                            let apart = value(x, pixel).sub(mean);
                            first = first.add(apart);
                            second = second.add_product(apart, apart);
                        }
                    }
                    Pass::Gradient { x, gradient, factors, rectifier } => {
                        let [mean, scale, shift] = factors.map(factor);
                        for pixel in 0..x.len() / channels {
                            let apart = value(x, pixel).sub(mean);
                            let mut gradient = value(gradient, pixel);
                            // The same operations as in the forward pass, so that the sign is the same.
                            gradient =
                                rectifier.backward(gradient, shift.add_product(apart, scale));
                            first = first.add(gradient);
                            second = second.add_product(gradient, apart);
                        }
                    }
                }
                first.store_up_to(self.first[..channels].as_mut_ptr().add(at), len);
                second.store_up_to(self.second[..channels].as_mut_ptr().add(at), len);
            }
        });
    }
}

struct Affine<'a> {
    channels: usize,
    x: &'a [f32],
    mean: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    rectifier: Rectifier,
    out: &'a mut [f32],
}

#[allow(unsafe_code, reason = "vector instructions on slices whose lengths were checked")]
impl Task for Affine<'_> {
    #[inline(always)]
    fn run<F: Family>(self, _family: F) {
        let channels = self.channels;
        assert_eq!(self.x.len(), self.out.len(), "as many values");
        for_vectors!(channels, F, |at, len| {
            // SAFETY: as in `Sums`; the lengths were compared above.
            unsafe {
                let factor = |factors: &[f32]| {
                    F::Full::load_up_to(factors[..channels].as_ptr().add(at), len)
                };
                let [mean, scale, shift] = [self.mean, self.scale, self.shift].map(factor);
                for pixel in 0..self.x.len() / channels {
                    let index = pixel * channels + at;
                    let x = F::Full::load_up_to(self.x.as_ptr().add(index), len);
                    let y = self.rectifier.apply(shift.add_product(x.sub(mean), scale));
                    y.store_up_to(self.out.as_mut_ptr().add(index), len);
                }
            }
        });
    }
}

struct Slope<'a> {
    channels: usize,
    x: &'a [f32],
    factors: [&'a [f32]; 5],
    rectifier: Rectifier,
    gradient: &'a mut [f32],
}

#[allow(unsafe_code, reason = "vector instructions on slices whose lengths were checked")]
impl Task for Slope<'_> {
    #[inline(always)]
    fn run<F: Family>(self, _family: F) {
        let channels = self.channels;
        assert_eq!(self.x.len(), self.gradient.len(), "as many values");
        for_vectors!(channels, F, |at, len| {
            // SAFETY: as in `Sums`; the lengths were compared above.
            unsafe {
                let factor = |factors: &[f32]| {
                    F::Full::load_up_to(factors[..channels].as_ptr().add(at), len)
                };
                let [mean, scale, shift, offset, slope] = self.factors.map(factor);
                for pixel in 0..self.x.len() / channels {
                    let index = pixel * channels + at;
                    let x = F::Full::load_up_to(self.x.as_ptr().add(index), len);
                    let to = self.gradient.as_mut_ptr().add(index);
                    let mut gradient = F::Full::load_up_to(to, len);
                    let apart = x.sub(mean);
                    gradient = self.rectifier.backward(gradient, shift.add_product(apart, scale));
                    let gradient = gradient.sub(offset).sub(apart.mul(slope)).mul(scale);
                    gradient.store_up_to(to, len);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    fn close(got: f32, expected: f64, context: &str) {
        let distance = (f64::from(got) - expected).abs();
        assert!(distance <= 2e-6 * (1.0 + expected.abs()), "{context}: {got}, expected {expected}");
    }

    /// By the definition, in double precision.
    fn moments(x: &[f32], channels: usize, channel: usize) -> (f64, f64) {
        let of: Vec<f64> =
            x.iter().skip(channel).step_by(channels).map(|&v| f64::from(v)).collect();
        let mean = of.iter().sum::<f64>() / of.len() as f64;
        (mean, of.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / of.len() as f64)
    }

    #[test]
    fn forwards_and_backwards_equal_the_definition_on_every_instruction_set() {
        for isa in Isa::available() {
            for channels in [1, 2, 7, 8, 9, 16, 17, 31, 33, 64] {
                for (pixels, away) in [(1, 0.0), (2, 0.0), (63, 5.0), (1500, 300.0)] {
                    let context = format!("{isa}, {channels} channels, {pixels} pixels");
                    let mut x = numbers(pixels * channels, 1);
                    x.iter_mut().for_each(|x| *x += away);
                    let mut norm = FloatNorm::new(channels, isa).expect("it is available");
                    let mut got = BatchMoments::default();
                    norm.moments(&x, &mut got);
                    let [weight, shift] = [2, 3].map(|seed| numbers(channels, seed));
                    let inverse: Vec<f32> =
                        got.variance.iter().map(|v| 1.0 / (v + 1e-2).sqrt()).collect();
                    let scale: Vec<f32> = weight.iter().zip(&inverse).map(|(w, i)| w * i).collect();
                    let factors = [&got.mean[..], &scale, &shift];
                    for (rectifier, ceiling, depends) in [
                        (Rectifier::None, f64::INFINITY, true),
                        (Rectifier::Relu, f64::INFINITY, true),
                        (Rectifier::Clipped { ceiling: 0.5 }, 0.5, true),
                        (Rectifier::Clipped { ceiling: 0.5 }, 0.5, false),
                    ] {
                        let mut out = vec![0.0; x.len()];
                        norm.normalize(&x, factors, rectifier, &mut out);
                        let upstream = numbers(x.len(), 9);
                        let mut gradient = upstream.clone();
                        let mut sums = [vec![0.0; channels], vec![0.0; channels]];
                        let [first, second] = &mut sums;
                        let into = [&mut first[..], &mut second[..]];
                        let inverse = depends.then_some(&inverse[..]);
                        norm.backward(&x, factors, inverse, rectifier, &mut gradient, into);
                        let rectifies = rectifier != Rectifier::None;
                        for channel in 0..channels {
                            let (mean, variance) = moments(&x, channels, channel);
                            close(got.mean[channel], mean, &context);
                            close(got.variance[channel], variance, &context);
                            let scale = f64::from(scale[channel]);
                            let inverse = inverse.map_or(1.0, |inverse| inverse[channel].into());
                            let apart = |i: usize| f64::from(x[i]) - f64::from(got.mean[channel]);
                            let here = |i: &usize| i % channels == channel;
                            let masked = |i: usize| {
                                let inside = out[i] > 0.0 && f64::from(out[i]) < ceiling;
                                if rectifies && !inside { 0.0 } else { f64::from(upstream[i]) }
                            };
                            let all = || (0..x.len()).filter(here);
                            let plain: f64 = all().map(masked).sum();
                            let weighted: f64 = all().map(|i| masked(i) * apart(i)).sum();
                            let count = pixels as f64;
                            let loose = |got: f32, expected: f64| {
                                let distance = (f64::from(got) - expected).abs();
                                // Single precision within chunks.
                                assert!(
                                    distance <= 1e-5 * (1.0 + count.sqrt()),
                                    "{context}: {got}, {expected}"
                                );
                            };
                            loose(sums[1][channel], plain);
                            loose(sums[0][channel], weighted * inverse);
                            for i in all() {
                                let y = apart(i) * scale + f64::from(shift[channel]);
                                let rectified = if rectifies { y.clamp(0.0, ceiling) } else { y };
                                close(out[i], rectified, &context);
                                let slope = weighted * inverse * inverse / count;
                                let through = masked(i) - plain / count - apart(i) * slope;
                                let expected = if depends { through } else { masked(i) };
                                loose(gradient[i], scale * expected);
                            }
                        }
                    }
                }
            }
        }
    }
}
