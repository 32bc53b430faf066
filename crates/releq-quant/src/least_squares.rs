//! Search for the clip of least squared rounding error.

use crate::rounding::round_half_even;

/// Bins of the histogram of magnitudes.
///
/// One far outlier squeezes all other weights into few bins, but it cannot squeeze them into too few: it
/// is worth its own level, against the other `len` weights, once it exceeds their magnitude by about
/// `sqrt(len)`, which is 632 for 400,000 weights.
const BINS: usize = 2048;
/// Clips of the first pass: falling by a constant factor from the largest magnitude to 1/512 of it.
const COARSE: u32 = 32;
/// Clips of the second pass: evenly between the neighbours of the best one.
const FINE: u32 = 16;

/// The clip of least squared rounding error for `n` positive levels, at most `max`, the largest
/// magnitude among `weights`; at equal error the larger one. No randomness.
pub(crate) fn clip(weights: &[f32], max: f32, n: f32) -> f32 {
    let bins = histogram(weights, max);
    let mut best = (1.0, error(&bins, 1.0, n));
    let mut consider = |fraction: f32| {
        let error = error(&bins, fraction, n);
        if error < best.1 {
            best = (fraction, error);
        }
        best.0
    };
    let factor = 512f32.powf(-1.0 / (COARSE - 1) as f32);
    let centre = (1..COARSE).fold(1.0, |_, step| consider(factor.powi(step as i32)));
    let (high, low) = ((centre / factor).min(1.0), centre * factor);
    let step = (high - low) / (FINE + 1) as f32;
    max * (1..=FINE).fold(centre, |_, i| consider(high - step * i as f32))
}

/// Weights of about the same magnitude, as a fraction of the largest.
struct Bin {
    count: f64,
    /// Sum of the magnitudes.
    sum: f64,
    mean: f32,
}

/// The bins that hold a weight.
fn histogram(weights: &[f32], max: f32) -> Vec<Bin> {
    let mut bins = vec![(0u32, 0.0f64); BINS];
    for weight in weights {
        let magnitude = weight.abs() / max;
        let bin = &mut bins[((magnitude * BINS as f32) as usize).min(BINS - 1)];
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

/// Squared rounding error over all weights, less the sum of their squares, which no clip changes:
/// `sum (w - q)^2 - w^2 = q^2 count - 2 q sum` where a whole bin rounds to `q`.
fn error(bins: &[Bin], fraction: f32, n: f32) -> f64 {
    let (to_steps, scale) = (n / fraction, f64::from(fraction / n));
    bins.iter()
        .map(|bin| {
            let level = scale * f64::from(round_half_even((bin.mean * to_steps).min(n)));
            level * (level * bin.count - 2.0 * bin.sum)
        })
        .sum()
}
