//! Seeds of repetitions, and what they have in common.

use std::collections::BTreeSet;

use serde::Serialize;

/// Most seeds of one experiment.
const MOST: u64 = 1000;

/// The seeds of an experiment, each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Seeds(pub(super) Vec<u64>);

/// Reads `5`, which stands for the seeds 1 to 5, or a list such as `3,8,21`.
///
/// # Errors
/// For anything else, and for a seed that stands there twice.
pub(super) fn parse(text: &str) -> Result<Seeds, String> {
    let expected = || {
        format!(
            "expected a number of seeds from 1 to {MOST}, or a list of different ones as in 3,8,21"
        )
    };
    let seeds: Option<Vec<u64>> =
        text.split(',').map(|seed| seed.trim().parse::<u64>().ok()).collect();
    match seeds.ok_or_else(expected)?.as_slice() {
        [count] if (1..=MOST).contains(count) => Ok(Seeds((1..=*count).collect())),
        [_] => Err(expected()),
        list if list.iter().collect::<BTreeSet<_>>().len() == list.len() => {
            Ok(Seeds(list.to_vec()))
        }
        _ => Err(expected()),
    }
}

/// Mean and spread of what several seeds gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) seeds: usize,
    pub(super) mean: f64,
    /// Standard deviation of the seeds, with one less than their number below the fraction; `None` of one seed.
    pub(super) standard_deviation: Option<f64>,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Of values of which there is at least one.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let extent =
            values.iter().copied().reduce(f64::min).zip(values.iter().copied().reduce(f64::max));
        extent.map(|(least, most)| Self {
            seeds: values.len(),
            mean,
            standard_deviation: (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
            least,
            most,
        })
    }

    /// As in `0.912 ± 0.034`.
    pub(super) fn text(&self, decimals: usize) -> String {
        match self.standard_deviation {
            Some(deviation) => format!("{:.decimals$} ± {deviation:.decimals$}", self.mean),
            None => format!("{:.decimals$}", self.mean),
        }
    }
}

/// The spread as text, or a dash.
pub(super) fn text(spread: Option<&Spread>, decimals: usize) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| spread.text(decimals))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn seeds_are_a_number_or_a_list() {
        assert_eq!(parse("3").unwrap().0, [1, 2, 3]);
        assert_eq!(parse("3, 8,21").unwrap().0, [3, 8, 21]);
        assert_eq!(parse("0,7").unwrap().0, [0, 7]);
        for text in ["", "0", "1001", "1,1", "1,", "-1", "x", "1.5"] {
            assert!(parse(text).unwrap_err().contains("as in 3,8,21"), "{text}");
        }
    }

    #[test]
    fn the_spread_is_the_standard_deviation_of_a_sample() {
        let spread = Spread::of([1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!((spread.mean, spread.least, spread.most), (2.5, 1.0, 4.0));
        assert!((spread.standard_deviation.unwrap() - (5.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(spread.text(2), "2.50 ± 1.29");
        assert_eq!(Spread::of([2.0]).unwrap().text(1), "2.0");
        assert_eq!(Spread::of([]), None);
        assert_eq!(text(None, 2), "-");
    }
}
