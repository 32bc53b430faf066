//! Accuracy and cost at a fixed rate of exchange.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Reward, RewardError, reward::finite_or_worst};

/// What is saved less what is lost, at a fixed rate: `w = 1 - quant_state - rate * (1 - acc_state)`. Where that is negative, the
/// reward is `w / (1 - w)`, which orders as `w` does and stays above -1.
///
/// There is no threshold, so no noise decides on which side of one an assignment falls, and every loss counts: also where
/// a limit on the cost leaves nothing but assignments that lose many times the tolerance. A gain
/// of accuracy over full precision counts for nothing: it is mostly noise.
///
/// # Source
/// Ours, in place of [`Shaped`](crate::Shaped), which values a loss above its threshold so little that one bit in one of
/// five layers pays for a tenth of the accuracy.
///
/// Written as `exchange:rate=20`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Constants", into = "Constants")]
pub struct Exchange {
    rate: f64,
}

/// The constants as written in a file, before they are checked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Constants {
    rate: f64,
}

/// A rate beyond which no saving is worth any loss that can be measured.
const HIGHEST: f64 = 1e5;

/// What a user loses nothing by.
const SMALLEST_TOLERANCE: f64 = 1e-5;

impl Exchange {
    /// A loss of all accuracy is worth as much as `rate` times the cost at the highest bitwidth.
    ///
    /// # Errors
    /// [`RewardError::Constant`] unless `rate` is positive and at most 100,000.
    pub fn new(rate: f64) -> Result<Self, RewardError> {
        Constants { rate }.try_into()
    }

    /// The rate at which the best assignment loses about `tolerance`, a share of the accuracy in full precision, where
    /// `highest_bits` is the highest bitwidth to choose from.
    ///
    /// With every bit less, the damage grows fourfold, as the variance of uniform rounding does. Where the cost is
    /// proportional to the bits, a loss `l` thus grows by `highest_bits * ln 4 * l` with the cost; at the best
    /// assignment, that times the rate is 1.
    #[must_use]
    pub fn for_tolerance(tolerance: f64, highest_bits: u8) -> Self {
        let growth = f64::from(highest_bits.max(1)) * 4f64.ln();
        let tolerance = if tolerance > SMALLEST_TOLERANCE { tolerance } else { SMALLEST_TOLERANCE };
        Self { rate: (1.0 / (growth * tolerance)).min(HIGHEST) }
    }

    /// Cost over loss.
    #[must_use]
    pub const fn rate(&self) -> f64 {
        self.rate
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:rate={}", self.name(), self.rate))
    }
}

impl FromStr for Exchange {
    type Err = RewardError;
    fn from_str(text: &str) -> Result<Self, RewardError> {
        let fail = |reason: &str| RewardError::Settings {
            got: text.to_owned(),
            reason: reason.to_owned(),
        };
        let expected = "expected a rate, as in `exchange:rate=20`";
        let (name, setting) = text.split_once(':').ok_or_else(|| fail(expected))?;
        match setting.split_once('=') {
            Some((field, value)) if name.trim() == "exchange" && field.trim() == "rate" => {
                Self::new(value.trim().parse().map_err(|_| fail("the rate is not a number"))?)
            }
            _ => Err(fail(expected)),
        }
    }
}

impl TryFrom<Constants> for Exchange {
    type Error = RewardError;
    fn try_from(Constants { rate }: Constants) -> Result<Self, RewardError> {
        if rate > 0.0 && rate <= HIGHEST {
            return Ok(Self { rate });
        }
        let (reward, field, allowed) = ("exchange", "rate", "positive and at most 100000");
        Err(RewardError::Constant { reward, field, got: rate, allowed })
    }
}

impl From<Exchange> for Constants {
    fn from(exchange: Exchange) -> Self {
        Self { rate: exchange.rate }
    }
}

impl Reward for Exchange {
    fn name(&self) -> &str {
        "exchange"
    }

    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        let (acc_state, quant_state) = finite_or_worst(acc_state, quant_state);
        let loss = (1.0 - acc_state).max(0.0);
        let worth = 1.0 - quant_state - self.rate * loss;
        if worth < 0.0 { worth / (1.0 - worth) } else { worth }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_cases() {
        let reward = Exchange::new(20.0).unwrap();
        for (acc_state, quant_state, expected) in [
            (1.0, 0.5, 0.5),
            (1.1, 0.5, 0.5),
            (0.99, 0.5, 0.3),
            (0.99, 0.25, 0.55),
            (0.95, 0.5, -1.0 / 3.0),
            (0.5, 0.25, -9.25 / 10.25),
            (f64::NAN, 0.5, -20.0 / 21.0),
        ] {
            let got = reward.reward(acc_state, quant_state);
            assert!((got - expected).abs() < 1e-9, "({acc_state}, {quant_state}): {got}");
        }
    }

    #[test]
    fn the_best_assignment_loses_the_tolerance() {
        for (tolerance, highest) in [(0.003, 8), (0.01, 8), (0.02, 4)] {
            let reward = Exchange::for_tolerance(tolerance, highest);
            // Bits in steps of a hundredth, loss falling fourfold with each.
            let bits =
                (100..=100 * u32::from(highest)).map(|hundredths| f64::from(hundredths) / 100.0);
            let loss = |bits: f64| 0.5 * 4f64.powf(-(bits - 1.0));
            let worth = |bits: &f64| reward.reward(1.0 - loss(*bits), bits / f64::from(highest));
            let best = bits.max_by(|a, b| worth(a).total_cmp(&worth(b))).unwrap();
            assert!((loss(best) / tolerance - 1.0).abs() < 0.02, "{best}: {}", loss(best));
        }
        assert_eq!(Exchange::for_tolerance(0.0, 8), Exchange::for_tolerance(-1.0, 8));
        assert!(Exchange::new(Exchange::for_tolerance(f64::NAN, 1).rate()).is_ok());
    }

    #[test]
    fn every_loss_counts_however_high_the_rate() {
        for rate in [1e-3, 40.0, HIGHEST] {
            let reward = Exchange::new(rate).unwrap();
            let worths: Vec<f64> =
                (0..=1000).map(|loss| reward.reward(1.0 - f64::from(loss) / 1000.0, 0.9)).collect();
            assert!(worths.is_sorted_by(|less_lost, more_lost| less_lost > more_lost), "{rate}");
            assert!(worths.iter().all(|worth| (-1.0..=1.0).contains(worth)), "{rate}");
        }
    }

    #[test]
    fn bad_rates_are_named() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = Exchange::new(bad).unwrap_err();
            assert!(matches!(error, RewardError::Constant { field: "rate", .. }), "{error}");
        }
        for text in ["exchange", "exchange:", "exchange:rate", "exchange:rate=x", "exchange:a=1"] {
            let error = text.parse::<Exchange>().unwrap_err().to_string();
            assert!(error.contains("rate"), "{text}: {error}");
        }
        let exchange = Exchange::new(2.5).unwrap();
        assert_eq!(exchange.to_string().parse::<Exchange>().unwrap(), exchange);
    }
}
