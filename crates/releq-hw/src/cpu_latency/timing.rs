//! Comparable timings.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Duration of one call, over repeated measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Median in microseconds.
    pub median_us: f64,
    /// Least duration in microseconds.
    pub min_us: f64,
    /// First quartile in microseconds.
    pub low_us: f64,
    /// Third quartile in microseconds.
    pub high_us: f64,
    /// Number of measurements.
    pub repeats: usize,
}

impl Timing {
    /// Distance between the quartiles, relative to the median: a few percent on an idle machine.
    #[must_use]
    pub fn spread(&self) -> f64 {
        (self.high_us - self.low_us) / self.median_us
    }

    fn new(mut us: Vec<f64>) -> Self {
        us.sort_by(f64::total_cmp);
        let at = |quarters: usize| us[((us.len() - 1) * quarters + 2) / 4];
        let (median_us, min_us, low_us, high_us) = (at(2), us[0], at(1), at(3));
        Self { median_us, min_us, low_us, high_us, repeats: us.len() }
    }

    /// Whether the numbers can be measurements at all.
    pub(super) fn is_plausible(&self) -> bool {
        let order = [0.0, self.min_us, self.low_us, self.median_us, self.high_us];
        self.repeats > 0 && self.min_us > 0.0 && self.high_us.is_finite() && order.is_sorted()
    }
}

/// Times all of `runs` in turn, `repeats` times, so that other load on the machine affects all of them alike.
///
/// One measurement is a fixed number of calls, at least one, which took `sample` in a trial at the beginning.
pub fn time_interleaved(
    runs: &mut [&mut dyn FnMut()],
    repeats: NonZeroUsize,
    sample: Duration,
) -> Vec<Timing> {
    let calls: Vec<u32> = runs.iter_mut().map(|run| calls_in(*run, sample)).collect();
    let mut times = vec![Vec::with_capacity(repeats.get()); runs.len()];
    for _ in 0..repeats.get() {
        for ((run, &calls), times) in runs.iter_mut().zip(&calls).zip(&mut times) {
            times.push(seconds(*run, calls) / f64::from(calls) * 1e6);
        }
    }
    times.into_iter().map(Timing::new).collect()
}

/// Number of calls that take at least this long.
fn calls_in(run: &mut dyn FnMut(), sample: Duration) -> u32 {
    // The first call loads code and memory into the caches.
    run();
    let mut calls = 1_u32;
    loop {
        let seconds = seconds(run, calls);
        if seconds >= sample.as_secs_f64() || calls > u32::MAX / 16 {
            return calls;
        }
        calls *= if 16.0 * seconds < sample.as_secs_f64() { 16 } else { 2 };
    }
}

fn seconds(run: &mut dyn FnMut(), calls: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        run();
    }
    // A clock that did not advance would make the cost 0.
    start.elapsed().as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics() {
        let timing = Timing::new(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        let expected =
            Timing { median_us: 3.0, min_us: 1.0, low_us: 2.0, high_us: 4.0, repeats: 5 };
        assert_eq!(timing, expected);
        assert!((timing.spread() - 2.0 / 3.0).abs() < 1e-12);
        assert!(timing.is_plausible());
        assert!(!Timing { min_us: 0.0, ..timing }.is_plausible());
        assert!(!Timing { median_us: 9.0, ..timing }.is_plausible());
        assert!(!Timing { high_us: f64::NAN, ..timing }.is_plausible());
        assert!(!Timing { repeats: 0, ..timing }.is_plausible());
    }

    #[test]
    fn every_run_is_called_and_longer_work_takes_longer() {
        let work = |n: u64| (0..n).fold(1_u64, |x, i| std::hint::black_box(x.wrapping_mul(i | 1)));
        let (mut short, mut long) = (0, 0);
        let timings = time_interleaved(
            &mut [&mut || short = work(100) | 1, &mut || long = work(100_000) | 1],
            NonZeroUsize::new(3).unwrap(),
            Duration::from_micros(100),
        );
        assert!(short > 0 && long > 0);
        assert!(timings.iter().all(|timing| timing.repeats == 3 && timing.is_plausible()));
        // A thousand times the work: a factor that no noise hides.
        assert!(timings[1].min_us > timings[0].min_us);
    }
}
