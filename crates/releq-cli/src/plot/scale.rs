//! Where a value lies on a drawing, and which values an axis names.

use super::number::{short, trimmed};

/// A mark on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    /// The value that it stands at.
    pub(crate) value: f64,
    /// The value in words.
    pub(crate) label: String,
}

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    /// Evenly.
    Even,
    /// By their logarithm.
    Log,
    /// Accuracies, by the logarithm of the error that is left: half the error is equally far everywhere.
    LogError,
}

/// A function from values to pixels.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    spread: Spread,
    /// In values; for accuracies by error, the errors at either end.
    from: f64,
    to: f64,
    /// In pixels.
    start: f64,
    end: f64,
    percent: bool,
    /// Whether there is nothing between whole numbers.
    whole: bool,
}

/// Ratio of the largest to the smallest above which an axis is logarithmic.
const WIDE: f64 = 20.0;

/// The same of errors, where the interesting points crowd at one end.
const WIDE_ERROR: f64 = 5.0;

/// The smallest error that an axis shows.
const LEAST_ERROR: f64 = 1e-5;

impl Scale {
    /// An even scale over `values`, both ends at a tick; 0 to 1 without any.
    pub(crate) fn even(values: impl IntoIterator<Item = f64>, start: f64, end: f64) -> Self {
        let (from, to) = widened(extent(values).unwrap_or((0.0, 1.0)));
        let step = step(to - from, 6);
        let (from, to) = ((from / step + 1e-9).floor() * step, (to / step - 1e-9).ceil() * step);
        Self { spread: Spread::Even, from, to, start, end, percent: false, whole: false }
    }

    /// The same scale for counts, with ticks at whole numbers alone.
    pub(crate) fn whole(self) -> Self {
        Self { whole: true, ..self }
    }

    /// An even scale from 0.
    pub(crate) fn from_zero(values: impl IntoIterator<Item = f64>, start: f64, end: f64) -> Self {
        Self::even(values.into_iter().chain([0.0]), start, end)
    }

    /// An even scale from `from` to exactly `to`.
    pub(crate) fn exact(from: f64, to: f64, start: f64, end: f64) -> Self {
        let to = if to > from { to } else { from + 1.0 };
        Self { spread: Spread::Even, from, to, start, end, percent: false, whole: false }
    }

    /// Logarithmic where all values are positive and far apart, else even.
    pub(crate) fn positive(values: &[f64], start: f64, end: f64) -> Self {
        match extent(values.iter().copied()) {
            Some((least, most)) if least > 0.0 && most / least > WIDE => {
                let (from, to, spread) = (least, most, Spread::Log);
                Self { spread, from, to, start, end, percent: false, whole: false }
            }
            _ => Self::even(values.iter().copied(), start, end),
        }
    }

    /// For accuracies in 0 to 1, named in percent: by the logarithm of the error where errors are far apart,
    /// since what matters then lies close together at the top.
    pub(crate) fn accuracy(values: &[f64], start: f64, end: f64) -> Self {
        let errors = values.iter().map(|accuracy| 1.0 - accuracy).filter(|&error| error > 0.0);
        match extent(errors) {
            Some((least, most)) if most / least.max(LEAST_ERROR) > WIDE_ERROR => {
                let least = if values.iter().any(|&accuracy| accuracy >= 1.0) {
                    0.5 * least
                } else {
                    0.85 * least
                };
                let (from, to) = ((most * 1.05).min(1.0), least.max(LEAST_ERROR));
                let spread = Spread::LogError;
                Self { spread, from, to, start, end, percent: true, whole: false }
            }
            _ => {
                let (least, most) = extent(values.iter().copied()).unwrap_or((0.0, 1.0));
                let margin = (0.08 * (most - least)).max(5e-4);
                let ends = [(least - margin).max(0.0), (most + margin).min(1.0)];
                Self { percent: true, ..Self::even(ends, start, end) }
            }
        }
    }

    /// The pixel of a value; of the nearer end for those beyond, and of the start for what is no number.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let share = match self.spread {
            Spread::Even => (value - self.from) / (self.to - self.from),
            Spread::Log => (value / self.from).ln() / (self.to / self.from).ln(),
            Spread::LogError => {
                let error = (1.0 - value).max(LEAST_ERROR);
                (error / self.from).ln() / (self.to / self.from).ln()
            }
        };
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self.start + share * (self.end - self.start)
    }

    /// Ticks at least `spacing` pixels apart.
    pub(crate) fn ticks(&self, spacing: f64) -> Vec<Tick> {
        let length = (self.end - self.start).abs();
        let most = ((length / spacing) as usize).clamp(1, 12);
        match self.spread {
            Spread::Even => self.even_ticks(most),
            Spread::Log => {
                let tick = |value| Tick { value, label: short(value) };
                self.spaced(&round_values(self.from, self.to), tick, spacing)
            }
            Spread::LogError => {
                let tick = |error: f64| {
                    let label = trimmed(format!("{:.3}", 100.0 * (1.0 - error)));
                    Tick { value: 1.0 - error, label }
                };
                self.spaced(&round_values(self.to, self.from), tick, spacing)
            }
        }
    }

    fn even_ticks(&self, most: usize) -> Vec<Tick> {
        let factor = if self.percent { 100.0 } else { 1.0 };
        let step = step(factor * (self.to - self.from), most);
        let step = if self.whole { step.max(1.0) } else { step };
        let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let first = (factor * self.from / step - 1e-9).ceil() as i64;
        let last = (factor * self.to / step + 1e-9).floor() as i64;
        (first..=last)
            .map(|index| {
                let value = index as f64 * step;
                let label =
                    if value.abs() >= 1e4 { short(value) } else { format!("{value:.decimals$}") };
                Tick { value: value / factor, label }
            })
            .collect()
    }

    /// The roundest of `values`, given with how round they are, that keep their distance.
    fn spaced(&self, values: &[(f64, u8)], tick: impl Fn(f64) -> Tick, spacing: f64) -> Vec<Tick> {
        let mut kept: Vec<Tick> = Vec::new();
        for level in 0..=3 {
            for &(value, _) in values.iter().filter(|(_, roundness)| *roundness == level) {
                let tick = tick(value);
                let at = self.place(tick.value);
                if kept.iter().all(|other| (self.place(other.value) - at).abs() >= spacing) {
                    kept.push(tick);
                }
            }
        }
        kept.sort_by(|a, b| a.value.total_cmp(&b.value));
        kept
    }
}

/// The smallest and the largest of the numbers among `values`.
pub(crate) fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|value| value.is_finite()).fold(None, |extent, value| match extent {
        None => Some((value, value)),
        Some((least, most)) => Some((least.min(value), most.max(value))),
    })
}

/// Room around a single value.
fn widened((from, to): (f64, f64)) -> (f64, f64) {
    if to > from {
        return (from, to);
    }
    let margin = if from == 0.0 { 0.5 } else { 0.05 * from.abs() };
    (from - margin, to + margin)
}

/// The smallest of 1, 2 and 5 times a power of ten of which at most `most` fit into `range`.
fn step(range: f64, most: usize) -> f64 {
    let rough = range / most.max(1) as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

/// Round numbers between two positive ones, each with how round it is: 0 for the roundest.
fn round_values(from: f64, to: f64) -> Vec<(f64, u8)> {
    let powers = from.log10().floor() as i32..=to.log10().ceil() as i32;
    let values = powers.flat_map(|power| {
        [(1.0, 0), (2.0, 2), (3.0, 3), (5.0, 1), (7.0, 3)]
            .map(|(factor, round)| (factor * 10_f64.powi(power), round))
    });
    values.filter(|(value, _)| (from * 0.999..=to * 1.001).contains(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale, spacing: f64) -> Vec<String> {
        scale.ticks(spacing).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn even_ticks_are_round_and_cover_the_values() {
        let scale = Scale::even([0.13, 0.97], 0.0, 300.0);
        assert_eq!(labels(&scale, 40.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!((scale.place(0.0), scale.place(1.0)), (0.0, 300.0));
        assert_eq!(
            labels(&Scale::exact(0.0, 2000.0, 0.0, 600.0), 100.0),
            ["0", "500", "1000", "1500", "2000"]
        );
        assert_eq!(
            labels(&Scale::even([-3.0, 4.0], 200.0, 0.0), 40.0),
            ["-4", "-2", "0", "2", "4"]
        );
        let count = |most: f64| labels(&Scale::exact(0.0, most, 0.0, 600.0).whole(), 60.0);
        assert_eq!((count(2.0), count(4.0).len()), (vec!["0".into(), "1".into(), "2".into()], 5));
        let large = Scale::from_zero([1.3e6], 0.0, 200.0);
        assert_eq!(labels(&large, 60.0), ["0", "500 k", "1 M", "1.5 M"]);
    }

    #[test]
    fn accuracies_far_apart_are_spread_by_their_errors() {
        let scale = Scale::accuracy(&[0.31, 0.9, 0.991], 300.0, 0.0);
        assert_eq!(labels(&scale, 25.0), ["50", "70", "80", "90", "95", "97", "98", "99"]);
        let step = |from: f64, to: f64| scale.place(from) - scale.place(to);
        assert!((step(0.5, 0.75) - step(0.96, 0.98)).abs() < 1e-9, "halves are equally far");
        let close = Scale::accuracy(&[0.981, 0.99], 300.0, 0.0);
        assert_eq!(labels(&close, 50.0), ["98.0", "98.2", "98.4", "98.6", "98.8", "99.0", "99.2"]);
        let perfect = Scale::accuracy(&[0.5, 1.0, 0.99], 300.0, 0.0);
        assert!(perfect.place(1.0) < 1.0 && perfect.place(0.99) > 1.0);
    }

    #[test]
    fn what_does_not_vary_or_is_no_number_has_a_place() {
        for values in [vec![], vec![0.0], vec![0.99; 3], vec![f64::NAN], vec![f64::INFINITY, 1.0]] {
            for scale in [
                Scale::even(values.iter().copied(), 10.0, 90.0),
                Scale::from_zero(values.iter().copied(), 10.0, 90.0),
                Scale::positive(&values, 10.0, 90.0),
                Scale::accuracy(&values, 10.0, 90.0),
            ] {
                assert!(!scale.ticks(20.0).is_empty(), "{values:?}: {scale:?}");
                for value in values.iter().chain(&[0.0, -1.0, 1.0, f64::NEG_INFINITY]) {
                    assert!((10.0..=90.0).contains(&scale.place(*value)), "{values:?}: {scale:?}");
                }
            }
        }
    }

    #[test]
    fn positive_values_far_apart_are_logarithmic() {
        let scale = Scale::positive(&[0.004, 3.0], 0.0, 300.0);
        assert_eq!(labels(&scale, 60.0), ["0.01", "0.1", "1"]);
        assert_eq!(labels(&Scale::positive(&[0.0, 3.0], 0.0, 300.0), 90.0), ["0", "1", "2", "3"]);
    }
}
