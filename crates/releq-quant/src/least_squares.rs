//! Search for the clip of least squared rounding error.

use std::array::from_fn;

use crate::rounding::round_half_even;

/// Bins of the histogram of magnitudes.
///
/// One far outlier squeezes all other weights into few bins, but it cannot squeeze them into too few: it
/// is worth its own level, against the other `len` weights, once it exceeds their magnitude by about
/// `sqrt(len)`, which is 632 for 400,000 weights.
pub(crate) const LAYER_BINS: usize = 2048;

/// Bins for one channel of `len` weights and `n` positive levels, at most [`LAYER_BINS`].
///
/// A layer has many channels, and the search over each of them visits every bin 48 times. `4 sqrt(len)` bins
/// leave room for an outlier, as above, and 8 bins for each level tell the levels apart. Compared with
/// [`LAYER_BINS`], the squared error of bell-shaped channels grows by less than 1 %.
pub(crate) fn channel_bins(len: usize, n: f32) -> usize {
    (4 * len.isqrt()).max(8 * n as usize).clamp(64, LAYER_BINS)
}

/// Clips of the first pass: falling by a constant factor from the largest magnitude to 1/512 of it.
const COARSE: usize = 32;
/// Clips of the second pass: evenly between the neighbours of the best one.
const FINE: usize = 16;
/// Clips that are tried side by side, in vectors; the order of every sum stays the same.
const LANES: usize = 8;

/// The clip of least squared rounding error for `n` positive levels, at most `max`, the largest
/// magnitude among `weights`; at equal error the larger one. No randomness.
pub(crate) fn clip(weights: &[f32], max: f32, n: f32, bins: usize) -> f32 {
    let bins = histogram(weights, max, bins);
    let mut best = (1.0, f64::INFINITY);
    let mut consider = |fractions: [f32; LANES]| {
        for (fraction, error) in fractions.into_iter().zip(errors(&bins, fractions, n)) {
            if error < best.1 {
                best = (fraction, error);
            }
        }
        best.0
    };
    let factor = 512f32.powf(-1.0 / (COARSE - 1) as f32);
    let coarse = (0..COARSE).step_by(LANES);
    let centre = coarse.fold(1.0, |_, first| consider(from_fn(|lane| power(factor, first + lane))));
    let (high, low) = ((centre / factor).min(1.0), centre * factor);
    let step = (high - low) / (FINE + 1) as f32;
    let place = |i: usize| high - step * (i + 1) as f32;
    let fine = (0..FINE).step_by(LANES);
    max * fine.fold(centre, |_, first| consider(from_fn(|lane| place(first + lane))))
}

/// `base^exponent` by repeated squaring. Written out because `powi` may round differently wherever the compiler
/// knows its arguments.
fn power(base: f32, mut exponent: usize) -> f32 {
    let (mut result, mut square) = (1.0, base);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result *= square;
        }
        square *= square;
        exponent /= 2;
    }
    result
}

/// Weights of about the same magnitude, as a fraction of the largest.
struct Bin {
    count: f64,
    /// Sum of the magnitudes.
    sum: f64,
    mean: f32,
}

/// The bins that hold a weight.
fn histogram(weights: &[f32], max: f32, len: usize) -> Vec<Bin> {
    let mut bins = vec![(0u32, 0.0f64); len];
    for weight in weights {
        let magnitude = weight.abs() / max;
        let bin = &mut bins[((magnitude * len as f32) as usize).min(len - 1)];
        bin.0 += 1;
        bin.1 += f64::from(magnitude);
    }
    bins.into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, sum)| {
            let count = f64::from(count);
            Bin { count, sum, mean: (sum / count) as f32 }
        })
        .collect()
}

/// Squared rounding error over all weights for each clip, less the sum of their squares, which no clip changes:
/// `sum (w - q)^2 - w^2 = q^2 count - 2 q sum` where a whole bin rounds to `q`.
fn errors(bins: &[Bin], fractions: [f32; LANES], n: f32) -> [f64; LANES] {
    let to_steps = fractions.map(|fraction| n / fraction);
    let scales = fractions.map(|fraction| f64::from(fraction / n));
    let mut errors = [0.0; LANES];
    for bin in bins {
        for ((error, scale), to_steps) in errors.iter_mut().zip(scales).zip(to_steps) {
            let level = scale * f64::from(round_half_even((bin.mean * to_steps).min(n)));
            *error += level * (level * bin.count - 2.0 * bin.sum);
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarser_histogram_of_a_channel_is_as_good() {
        let mut state = 3u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        for len in [9, 27, 144, 576, 800, 4608] {
            for n in [1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 127.0] {
                let mut squares = [0.0; 2];
                for channel in 0..40 {
                    let mut weights: Vec<f32> =
                        (0..len).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 0.05).collect();
                    if channel % 8 == 0 {
                        weights[0] *= 20.0;
                    }
                    let max = weights.iter().fold(0.0f32, |max, weight| max.max(weight.abs()));
                    for (squares, bins) in
                        squares.iter_mut().zip([channel_bins(len, n), LAYER_BINS])
                    {
                        let clip = clip(&weights, max, n, bins);
                        let rounded =
                            |w: f32| clip / n * round_half_even((w / clip).clamp(-1.0, 1.0) * n);
                        let error = |w: &f32| f64::from(w - rounded(*w)).powi(2);
                        *squares += weights.iter().map(error).sum::<f64>();
                    }
                }
                let ratio = squares[0] / squares[1];
                assert!(ratio < 1.01, "{len} weights, {n} levels: {ratio}");
            }
        }
    }
}
