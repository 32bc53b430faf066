//! ReLeQ's own asymmetric shaping.

use std::{f64::consts::E, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Reward, RewardError, reward::finite_or_worst};

/// ReLeQ's asymmetric shaping: a loss of accuracy hurts more than a saving of bits helps.
///
/// ```text
/// acc_state <  threshold:  -1
/// acc_state >= threshold:  scale * ((1 - x^a) * y^(b / y) - shift)
///                          x = quant_state - offset, within [0, 1]
///                          y = acc_state, at most e
/// ```
///
/// By default `a = 0.2`, `b = 0.4`, `threshold = 0.4`, `offset = 0`, `scale = 1`, `shift = 0`; the reward
/// then lies in [-1, e^(b / e)), and below `1 - quant_state^0.2` as long as `acc_state` is at most 1. At
/// `quant_state = 1` it is 0 for every accuracy above the threshold.
///
/// # Source
/// Elthakeb et al., "ReLeQ: A Reinforcement Learning Approach for Deep Quantization of Neural Networks",
/// arXiv 1811.01704, and the form of its released code. The form and the threshold are confirmed; the 0.2
/// and 0.4 are remembered from the paper, not checked against its text. The released scripts use other
/// constants in the same form, which `offset`, `scale` and `shift` express; see [`Self::releq_lenet`]
/// and [`Self::releq_cifar`].
///
/// Ours, where the source says nothing: `x` is kept within [0, 1], and `y` is held at e, beyond which
/// `y^(b / y)` would fall again. Both keep the reward bounded and monotone; neither changes it for a
/// `quant_state` within [`offset`, 1] and an accuracy below 2.7 times that of full precision.
///
/// Written as `shaped`, with the constants that differ from the default ones after a colon:
/// `shaped:b=3,threshold=0.8`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Constants", into = "Constants")]
pub struct Shaped(Constants);

/// The constants as written in a file, before they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Constants {
    a: f64,
    b: f64,
    threshold: f64,
    offset: f64,
    scale: f64,
    shift: f64,
}

/// Reward below the threshold; `scale` and `shift` do not apply to it.
const PENALTY: f64 = -1.0;

impl Default for Constants {
    fn default() -> Self {
        Self { a: 0.2, b: 0.4, threshold: 0.4, offset: 0.0, scale: 1.0, shift: 0.0 }
    }
}

impl Shaped {
    /// The paper's form with other constants.
    ///
    /// # Errors
    /// [`RewardError::Constant`] unless `a` and `b` are positive and finite and `threshold` lies in
    /// (0, 1].
    pub fn new(a: f64, b: f64, threshold: f64) -> Result<Self, RewardError> {
        Self::with_transform(a, b, threshold, 0.0, 1.0, 0.0)
    }

    /// The form of the released scripts, `scale * ((1 - (quant_state - offset)^a) * y^(b / y) - shift)`.
    ///
    /// # Errors
    /// As [`new`](Self::new); also unless `offset` lies in [0, 1), `scale` is positive and finite, and
    /// `scale * shift` lies in [0, 1], as otherwise passing the threshold could lower the reward.
    pub fn with_transform(
        a: f64,
        b: f64,
        threshold: f64,
        offset: f64,
        scale: f64,
        shift: f64,
    ) -> Result<Self, RewardError> {
        Constants { a, b, threshold, offset, scale, shift }.try_into()
    }

    /// Constants of the authors' script `releq_lenet` of December 2018.
    #[must_use]
    pub const fn releq_lenet() -> Self {
        let (a, b, threshold) = (0.6, 3.0, 0.8);
        Self(Constants { a, b, threshold, offset: 0.25, scale: 2.0, shift: 0.5 })
    }

    /// Constants of the authors' scripts `releq_cifar` and `releq_svhn`.
    #[must_use]
    pub const fn releq_cifar() -> Self {
        let (a, b, threshold) = (0.8, 1.0, 0.1);
        Self(Constants { a, b, threshold, offset: 0.25, scale: 2.0, shift: 0.5 })
    }

    /// Exponent of the cost.
    #[must_use]
    pub const fn a(&self) -> f64 {
        self.0.a
    }

    /// Exponent of the accuracy.
    #[must_use]
    pub const fn b(&self) -> f64 {
        self.0.b
    }

    /// Relative accuracy below which the reward is -1.
    #[must_use]
    pub const fn threshold(&self) -> f64 {
        self.0.threshold
    }
}

impl Constants {
    /// The constants by name, in the order in which they are written.
    fn fields(&mut self) -> [(&'static str, &mut f64); 6] {
        [
            ("a", &mut self.a),
            ("b", &mut self.b),
            ("threshold", &mut self.threshold),
            ("offset", &mut self.offset),
            ("scale", &mut self.scale),
            ("shift", &mut self.shift),
        ]
    }
}

impl fmt::Display for Shaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut own, mut default) = (self.0, Constants::default());
        let changed: Vec<String> = own
            .fields()
            .into_iter()
            .zip(default.fields())
            .filter(|((_, value), (_, default))| value != default)
            .map(|((name, value), _)| format!("{name}={value}"))
            .collect();
        let colon = if changed.is_empty() { "" } else { ":" };
        f.pad(&format!("{}{colon}{}", self.name(), changed.join(",")))
    }
}

impl FromStr for Shaped {
    type Err = RewardError;
    fn from_str(text: &str) -> Result<Self, RewardError> {
        let fail = |reason: String| RewardError::Settings { got: text.to_owned(), reason };
        let mut constants = Constants::default();
        let (name, settings) = match text.split_once(':') {
            Some((name, settings)) => (name, settings.split(',').collect()),
            None => (text, Vec::new()),
        };
        if name.trim() != "shaped" {
            return Err(fail("expected `shaped`".to_owned()));
        }
        let mut given = Vec::new();
        for setting in settings {
            let (name, value) = setting
                .split_once('=')
                .map(|(name, value)| (name.trim(), value.trim()))
                .ok_or_else(|| fail("expected constants such as `a=0.2`".to_owned()))?;
            let mut fields = constants.fields();
            let names = fields.each_ref().map(|(name, _)| *name);
            let (_, field) =
                fields.iter_mut().find(|(known, _)| *known == name).ok_or_else(|| {
                    fail(format!("`{name}` is none of its constants {}", names.join(", ")))
                })?;
            if given.contains(&name) {
                return Err(fail(format!("`{name}` is there twice")));
            }
            given.push(name);
            **field = value.parse().map_err(|_| fail(format!("`{value}` is not a number")))?;
        }
        constants.try_into()
    }
}

impl TryFrom<Constants> for Shaped {
    type Error = RewardError;
    fn try_from(constants: Constants) -> Result<Self, RewardError> {
        let Constants { a, b, threshold, offset, scale, shift } = constants;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        for (field, got, holds, allowed) in [
            ("a", a, positive(a), "positive and finite"),
            ("b", b, positive(b), "positive and finite"),
            ("threshold", threshold, threshold > 0.0 && threshold <= 1.0, "in (0, 1]"),
            ("offset", offset, (0.0..1.0).contains(&offset), "in [0, 1)"),
            ("scale", scale, positive(scale), "positive and finite"),
            ("shift", shift, (0.0..=1.0).contains(&(scale * shift)), "in [0, 1 / scale]"),
        ] {
            if !holds {
                return Err(RewardError::Constant { reward: "shaped", field, got, allowed });
            }
        }
        Ok(Self(constants))
    }
}

impl From<Shaped> for Constants {
    fn from(shaped: Shaped) -> Self {
        shaped.0
    }
}

impl Reward for Shaped {
    fn name(&self) -> &str {
        "shaped"
    }

    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        let Constants { a, b, threshold, offset, scale, shift } = self.0;
        let (acc_state, quant_state) = finite_or_worst(acc_state, quant_state);
        if acc_state < threshold {
            return PENALTY;
        }
        let x = (quant_state - offset).clamp(0.0, 1.0);
        let y = acc_state.min(E);
        scale * ((1.0 - x.powf(a)) * y.powf(b / y) - shift)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(reward: Shaped, acc_state: f64, quant_state: f64, expected: f64) {
        let got = reward.reward(acc_state, quant_state);
        assert!(
            (got - expected).abs() < 1e-6,
            "({acc_state}, {quant_state}): {got}, not {expected}"
        );
    }

    #[test]
    fn worked_cases() {
        let lenet = 93.916667 / 99.8;
        for (acc_state, quant_state, expected) in [
            (0.3, 0.5, -1.0),
            (0.4, 0.5, 0.051780),
            (0.5, 0.5, 0.074349),
            (0.8, 0.5, 0.115783),
            (0.9, 0.5, 0.123527),
            (0.95, 0.5, 0.126684),
            (0.99, 0.5, 0.128925),
            (1.0, 0.5, 0.129449),
            (1.02, 0.5, 0.130459),
            (1.0, 0.25, 0.242142),
            (0.9, 0.75, 0.053355),
            (lenet, 0.28125, 0.218364),
            (lenet, 0.362134636, 0.179155),
        ] {
            check(Shaped::default(), acc_state, quant_state, expected);
        }
    }

    #[test]
    fn worked_cases_of_the_released_scripts() {
        check(Shaped::releq_lenet(), 0.9410488, 0.28125, 0.441834);
        check(Shaped::releq_cifar(), 0.9410488, 0.28125, 0.757763);
    }

    #[test]
    fn bad_constants_are_named() {
        let field = |result: Result<Shaped, RewardError>| match result {
            Err(RewardError::Constant { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(field(Shaped::new(bad, 0.4, 0.4)), "a");
            assert_eq!(field(Shaped::new(0.2, bad, 0.4)), "b");
            assert_eq!(field(Shaped::new(0.2, 0.4, bad)), "threshold");
            assert_eq!(field(Shaped::with_transform(0.2, 0.4, 0.4, 0.0, bad, 0.0)), "scale");
        }
        assert_eq!(field(Shaped::new(0.2, 0.4, 1.1)), "threshold");
        for bad in [-0.1, 1.0, f64::NAN] {
            assert_eq!(field(Shaped::with_transform(0.2, 0.4, 0.4, bad, 1.0, 0.0)), "offset");
        }
        for bad in [-0.1, 0.6, f64::NAN] {
            assert_eq!(field(Shaped::with_transform(0.2, 0.4, 0.4, 0.0, 2.0, bad)), "shift");
        }
        for preset in [Shaped::releq_lenet(), Shaped::releq_cifar(), Shaped::default()] {
            assert_eq!(Shaped::try_from(Constants::from(preset)), Ok(preset));
        }
    }

    proptest! {
        #[test]
        fn bounded_and_monotone_for_all_constants(
            (a, b, threshold) in (0.05..4.0, 0.05..10.0, 0.05..1.0),
            (offset, scale, shift) in (0.0..0.9, 0.1..4.0, 0.0..1.0),
            (acc, more_acc) in (0.0..5.0, 0.0..1.0),
            (quant, more_quant) in (0.0..1.0, 0.0..0.5),
        ) {
            let shift = shift / scale;
            let reward = Shaped::with_transform(a, b, threshold, offset, scale, shift).unwrap();
            let here = reward.reward(acc, quant);
            let most = scale * (E.powf(b / E) - shift);
            prop_assert!((-1.0 - 1e-12..=most + 1e-12).contains(&here));
            prop_assert!(reward.reward(acc + more_acc, quant) >= here - 1e-12);
            prop_assert!(reward.reward(acc, quant + more_quant) <= here + 1e-12);
        }
    }
}
