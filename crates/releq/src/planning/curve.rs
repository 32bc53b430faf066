//! Accuracy of the network with the same bitwidth in every layer.

/// How accurate the network is when all searched layers have equally many bits: piecewise linear through what was
/// measured, and never falling, since more bits do no harm but for noise.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// Bitwidths, ascending.
    bits: Vec<f64>,
    /// Accuracy at each.
    accuracy: Vec<f64>,
}

impl Curve {
    /// A curve through `points` of bitwidth and accuracy, sorted by bitwidth, that ends at accuracy 0 at no bits.
    pub(super) fn new(points: &[(f64, f64)]) -> Self {
        let (bits, accuracy): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        let (first_bits, rising) = (bits.first().copied().unwrap_or(1.0), never_falling(&accuracy));
        // Below the lowest measured bitwidth the accuracy falls on, slowly: nothing is known of it.
        let below = 0.9 * rising.first().copied().unwrap_or(0.0);
        Self {
            bits: std::iter::once(first_bits - 2.0).chain(bits).collect(),
            accuracy: std::iter::once(below).chain(rising).collect(),
        }
    }

    /// Accuracy at this many bits, which need not be whole.
    pub(super) fn at(&self, bits: f64) -> f64 {
        let above = self.bits.partition_point(|&known| known < bits);
        if above == 0 {
            return self.accuracy.first().copied().unwrap_or(0.0);
        }
        if above == self.bits.len() {
            return self.accuracy[above - 1];
        }
        let (x0, x1) = (self.bits[above - 1], self.bits[above]);
        let (y0, y1) = (self.accuracy[above - 1], self.accuracy[above]);
        y0 + (y1 - y0) * (bits - x0) / (x1 - x0)
    }

    /// Slope at this many bits, across a tenth of a bit so that a corner has the slope of both sides.
    pub(super) fn slope(&self, bits: f64) -> f64 {
        const HALF: f64 = 0.05;
        (self.at(bits + HALF) - self.at(bits - HALF)) / (2.0 * HALF)
    }
}

/// The nearest sequence that never falls, by pooling adjacent violators.
fn never_falling(values: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for &value in values {
        let mut pool = (value, 1);
        while let Some(&(mean, count)) = pools.last()
            && mean > pool.0
        {
            pools.pop();
            let total = mean * count as f64 + pool.0 * pool.1 as f64;
            pool = (total / (count + pool.1) as f64, count + pool.1);
        }
        pools.push(pool);
    }
    pools.into_iter().flat_map(|(mean, count)| std::iter::repeat_n(mean, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violators_are_pooled() {
        assert_eq!(never_falling(&[1.0, 3.0, 2.0, 4.0]), [1.0, 2.5, 2.5, 4.0]);
        assert_eq!(never_falling(&[3.0, 2.0, 1.0]), [2.0; 3]);
        assert_eq!(never_falling(&[]), [0.0; 0]);
    }

    #[test]
    fn the_curve_goes_through_its_points_and_is_flat_beyond() {
        let curve = Curve::new(&[(2.0, 0.1), (3.0, 0.9), (4.0, 0.95)]);
        for (bits, accuracy) in [(2.0, 0.1), (2.5, 0.5), (3.0, 0.9), (4.0, 0.95), (9.0, 0.95)] {
            assert!((curve.at(bits) - accuracy).abs() < 1e-12, "{bits}");
        }
        assert!(curve.at(1.0) < 0.1 && curve.at(-5.0) >= 0.0);
        assert!((curve.slope(2.5) - 0.8).abs() < 1e-9);
        assert!((curve.slope(3.0) - 0.425).abs() < 1e-9);
    }
}
