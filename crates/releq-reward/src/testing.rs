//! What every reward promises, as a test suite that any implementation can run.

use crate::Reward;

/// Points of the grid along each state, 0.02 apart, from 0 to 1.2.
const POINTS: u32 = 61;

/// Distance of the points.
const STEP: f64 = 0.02;

/// Rounding that a reward may show where it is flat, relative to its size.
const TOLERANCE: f64 = 1e-12;

/// Asserts what every [`Reward`] promises, for states from 0 to 1.2.
///
/// - The reward has a name, its values are finite, and the same states give the same value.
/// - It does not fall with the accuracy state, and from a `quant_state` of `monotone_from` on it does not rise
///   with the state of quantization. Pass 0 unless the reward knowingly differs below.
/// - States that are NaN or infinite give `reward(0.0, 1.0)`.
/// - [`over_limit`](Reward::over_limit) is finite, falls with the excess, and is below every reward of a
///   `quant_state` up to 1.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use releq_reward::{check_reward, reward_fn};
///
/// check_reward(&reward_fn("mine", |acc, quant| 2.0 * acc - quant), 0.0);
/// # }
/// ```
///
/// # Panics
/// If the reward breaks one of these promises.
pub fn check_reward(reward: &dyn Reward, monotone_from: f64) {
    let name = reward.name();
    assert!(!name.is_empty(), "a reward needs a name");
    let states: Vec<f64> = (0..POINTS).map(|point| f64::from(point) * STEP).collect();
    let at = |acc: f64, quant: f64| {
        let value = reward.reward(acc, quant);
        assert!(value.is_finite(), "{name} at ({acc}, {quant}): {value} is not finite");
        let again = reward.reward(acc, quant);
        assert_eq!(value, again, "{name} at ({acc}, {quant}): the second value differs");
        value
    };
    let mut lowest = f64::INFINITY;
    for &other in &states {
        for pair in states.windows(2) {
            let (less, more) = (at(pair[0], other), at(pair[1], other));
            let slack = TOLERANCE * less.abs().max(1.0);
            let states = format!(
                "accuracy states {} and {}, state of quantization {other}",
                pair[0], pair[1]
            );
            assert!(
                more >= less - slack,
                "{name} falls with the accuracy: {less} and {more} at {states}"
            );
            let (less, more) = (at(other, pair[0]), at(other, pair[1]));
            let slack = TOLERANCE * less.abs().max(1.0);
            let states = format!(
                "states of quantization {} and {}, accuracy state {other}",
                pair[0], pair[1]
            );
            assert!(
                pair[0] < monotone_from || more <= less + slack,
                "{name} rises with the cost: {less} and {more} at {states}"
            );
            if pair[0] <= 1.0 {
                lowest = lowest.min(less);
            }
        }
    }
    let worst = at(0.0, 1.0);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for (acc, quant) in [(bad, 0.5), (1.0, bad), (bad, bad)] {
            let got = reward.reward(acc, quant);
            assert_eq!(got, worst, "{name} at ({acc}, {quant}): expected the worst pair's value");
        }
    }
    check_over_limit(reward, &states, lowest.min(worst));
}

fn check_over_limit(reward: &dyn Reward, states: &[f64], lowest: f64) {
    let name = reward.name();
    for &acc in states {
        for &quant in states {
            let mut last = f64::INFINITY;
            for excess in [1e-6, 0.01, 0.1, 1.0, 10.0, 1e6, f64::INFINITY] {
                let value = reward.over_limit(acc, quant, excess);
                let case =
                    format!("{name} at ({acc}, {quant}), a share of {excess} over the limit");
                assert!(value.is_finite(), "{case}: {value} is not finite");
                assert!(
                    value < lowest,
                    "{case}: {value}, but there is a reward of {lowest} within the limit"
                );
                assert!(value <= last, "{case}: {value}, but less excess gives {last}");
                last = value;
            }
            assert!(
                last < reward.over_limit(acc, quant, 1e-6),
                "{name} does not fall with the excess"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{Division, LinearGrid, Scaled, Shaped, Subtraction, reward_fn};

    fn passes(reward: &dyn Reward, monotone_from: f64) -> bool {
        catch_unwind(AssertUnwindSafe(|| check_reward(reward, monotone_from))).is_ok()
    }

    #[test]
    fn every_reward_passes() {
        let strict = Shaped::new(0.5, 2.0, 0.95).unwrap();
        let rewards: [&dyn Reward; 7] = [
            &Shaped::default(),
            &Shaped::releq_lenet(),
            &Shaped::releq_cifar(),
            &strict,
            &Division,
            &Subtraction,
            &Scaled::new(Shaped::default(), 5.0).unwrap(),
        ];
        for reward in rewards {
            check_reward(reward, 0.0);
        }
        // Zero below 0.28 by its definition.
        check_reward(&LinearGrid, 0.28);
        assert!(!passes(&LinearGrid, 0.0));
    }

    #[test]
    fn every_promise_is_checked() {
        assert!(passes(&reward_fn("good", |acc, quant| acc - quant), 0.0));
        assert!(!passes(&reward_fn("", |acc, quant| acc - quant), 0.0), "no name");
        assert!(!passes(&reward_fn("falls", |acc, quant| -acc - quant), 0.0));
        assert!(!passes(&reward_fn("rises", |acc, quant| acc + quant), 0.0));
        assert!(!passes(&reward_fn("infinite", |acc, _| 1.0 / (1.2 - acc).max(0.0)), 0.0));

        /// Passes bad states on, and likes to be over a limit.
        struct Careless(bool);
        impl Reward for Careless {
            fn name(&self) -> &str {
                "careless"
            }
            fn reward(&self, acc: f64, _: f64) -> f64 {
                if self.0 && acc.is_nan() { 5.0 } else { acc.clamp(0.0, 2.0) }
            }
            fn over_limit(&self, _: f64, _: f64, excess: f64) -> f64 {
                if self.0 { -1.0 - excess.min(1.0) } else { 0.5 }
            }
        }
        assert!(!passes(&Careless(true), 0.0), "NaN is not the worst state");
        assert!(!passes(&Careless(false), 0.0), "the limit does not matter");
    }
}
