//! Rewards by name and settings, for configuration.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Division, Exchange, LinearGrid, Reward, RewardError, Scaled, Shaped, Subtraction};

/// A reward of this crate, by name and settings.
///
/// The written form is a name, such as `linear-grid`. Constants of [`Shaped`] other than the default ones
/// follow it, as in `shaped:b=3,threshold=0.8`, as the rate of [`Exchange`] does, `exchange:rate=20`, and a factor comes first, as in `5*shaped`.
///
/// ```
/// use releq_reward::{Reward, RewardKind};
///
/// let kind: RewardKind = "linear-grid".parse()?;
/// assert_eq!(kind.build().name(), "linear-grid");
///
/// let kind: RewardKind = "5*shaped:threshold=0.8".parse()?;
/// assert_eq!(kind.build().reward(0.7, 0.5), -5.0);
/// assert_eq!(kind.to_string(), "5*shaped:threshold=0.8");
/// # Ok::<(), releq_reward::RewardError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum RewardKind {
    /// [`Shaped`], ReLeQ's own.
    Shaped(Shaped),
    /// [`Division`].
    Division,
    /// [`Subtraction`].
    Subtraction,
    /// [`LinearGrid`].
    LinearGrid,
    /// [`Exchange`].
    Exchange(Exchange),
    /// [`Scaled`].
    Scaled(Scaled<Box<RewardKind>>),
}

impl Default for RewardKind {
    /// [`Shaped`] with its default constants, those of the paper.
    fn default() -> Self {
        Self::Shaped(Shaped::default())
    }
}

const SHAPED: &str = "shaped";
const EXCHANGE: &str = "exchange";
const DIVISION: &str = "division";
const SUBTRACTION: &str = "subtraction";
const LINEAR_GRID: &str = "linear-grid";

impl RewardKind {
    /// Every reward of this crate with its default constants. [`Scaled`] has none, since it needs another, nor has
    /// [`Exchange`], whose rate is the user's.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![Self::default(), Self::Division, Self::Subtraction, Self::LinearGrid]
    }

    /// The name of every reward of this crate that stands for itself, also of [`Exchange`], which needs a rate besides.
    #[must_use]
    pub const fn names() -> [&'static str; 5] {
        [SHAPED, DIVISION, SUBTRACTION, LINEAR_GRID, EXCHANGE]
    }

    /// The reward itself.
    #[must_use]
    pub fn build(&self) -> Arc<dyn Reward> {
        match self {
            Self::Shaped(shaped) => Arc::new(*shaped),
            Self::Division => Arc::new(Division),
            Self::Subtraction => Arc::new(Subtraction),
            Self::LinearGrid => Arc::new(LinearGrid),
            Self::Exchange(exchange) => Arc::new(*exchange),
            Self::Scaled(scaled) => Arc::new(scaled.map(|kind| kind.build())),
        }
    }
}

impl fmt::Display for RewardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shaped(shaped) => shaped.fmt(f),
            Self::Division => f.pad(DIVISION),
            Self::Subtraction => f.pad(SUBTRACTION),
            Self::LinearGrid => f.pad(LINEAR_GRID),
            Self::Exchange(exchange) => exchange.fmt(f),
            Self::Scaled(scaled) => f.pad(&format!("{}*{}", scaled.factor(), scaled.inner())),
        }
    }
}

impl FromStr for RewardKind {
    type Err = RewardError;
    fn from_str(text: &str) -> Result<Self, RewardError> {
        let text = text.trim();
        if let Some((factor, inner)) = text.split_once('*') {
            let factor = factor.trim().parse().map_err(|_| RewardError::Settings {
                got: text.to_owned(),
                reason: format!("`{}` is not a factor", factor.trim()),
            })?;
            return Ok(Self::Scaled(Scaled::new(Box::new(inner.parse()?), factor)?));
        }
        match text {
            DIVISION => Ok(Self::Division),
            SUBTRACTION => Ok(Self::Subtraction),
            LINEAR_GRID => Ok(Self::LinearGrid),
            _ if text.split(':').next().is_some_and(|name| name.trim() == SHAPED) => {
                text.parse().map(Self::Shaped)
            }
            _ if text.split(':').next().is_some_and(|name| name.trim() == EXCHANGE) => {
                text.parse().map(Self::Exchange)
            }
            _ => Err(RewardError::UnknownName {
                got: text.to_owned(),
                allowed: Self::names().join(", ") + ":rate=N",
            }),
        }
    }
}

impl TryFrom<String> for RewardKind {
    type Error = RewardError;
    fn try_from(text: String) -> Result<Self, RewardError> {
        text.parse()
    }
}

impl From<RewardKind> for String {
    fn from(kind: RewardKind) -> Self {
        kind.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in RewardKind::all() {
            assert_eq!(kind.to_string().parse().as_ref(), Ok(&kind));
            assert_eq!(kind.build().name(), kind.to_string());
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        let message = "product".parse::<RewardKind>().unwrap_err().to_string();
        assert!(message.contains("`product`") && message.contains("linear-grid"), "{message}");
    }

    #[test]
    fn every_reward_is_named() {
        for kind in RewardKind::all() {
            assert!(RewardKind::names().contains(&kind.to_string().as_str()), "{kind}");
        }
        for name in RewardKind::names() {
            let known = match name.parse::<RewardKind>() {
                Ok(kind) => kind.to_string() == name,
                Err(error) => error.to_string().contains("as in `exchange:rate=20`"),
            };
            assert!(known, "{name}");
        }
        let message = "exchang".parse::<RewardKind>().unwrap_err().to_string();
        assert!(message.ends_with("linear-grid, exchange:rate=N"), "{message}");
    }

    #[test]
    fn settings_round_trip() {
        let lenet = RewardKind::Shaped(Shaped::releq_lenet());
        assert_eq!(
            lenet.to_string(),
            "shaped:a=0.6,b=3,threshold=0.8,offset=0.25,scale=2,shift=0.5"
        );
        for text in [
            "shaped:threshold=0.8",
            "5*shaped",
            "0.5*linear-grid",
            "2*3*subtraction",
            "5*shaped:a=0.3,b=3",
            &lenet.to_string(),
        ] {
            let kind: RewardKind = text.parse().unwrap();
            assert_eq!(kind.to_string(), text);
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<RewardKind>(&json).unwrap(), kind);
        }
        let five: RewardKind = " 5 * shaped : b = 3 , a = 0.3 ".parse().unwrap();
        assert_eq!(five.to_string(), "5*shaped:a=0.3,b=3");
        let expected = 5.0 * Shaped::new(0.3, 3.0, 0.4).unwrap().reward(0.9, 0.5);
        assert_eq!(five.build().reward(0.9, 0.5), expected);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, expected) in [
            ("", "unknown reward ``"),
            ("shape", "unknown reward `shape`: expected one of shaped, division"),
            ("x*shaped", "reward `x*shaped`: `x` is not a factor"),
            ("-1*shaped", "factor must be positive and finite, got -1"),
            ("5*", "unknown reward ``"),
            ("shaped:", "reward `shaped:`: expected constants such as `a=0.2`"),
            ("shaped:c=1", "`c` is none of its constants a, b, threshold, offset, scale, shift"),
            ("shaped:a=x", "`x` is not a number"),
            ("shaped:a=1,b=2,a=3", "`a` is there twice"),
            ("shaped:a=0", "a must be positive and finite, got 0"),
            ("division:a=1", "unknown reward `division:a=1`"),
        ] {
            let message = text.parse::<RewardKind>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn a_state_that_is_no_number_is_the_worst_state() {
        let worst = [-1.0, 0.0, -1.0, 0.0];
        for (kind, worst) in RewardKind::all().into_iter().zip(worst) {
            let reward = kind.build();
            assert_eq!(reward.reward(0.0, 1.0), worst, "{kind}");
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                for (acc_state, quant_state) in [(bad, 0.5), (1.0, bad), (bad, bad)] {
                    assert_eq!(reward.reward(acc_state, quant_state), worst, "{kind}");
                }
            }
        }
    }

    proptest! {
        // LinearGrid is zero below 0.28 by its definition, so every kind is compared from there on.
        #[test]
        fn bounded_and_monotone_in_both_states(
            (acc, more_acc) in (0.0..1.5, 0.0..0.5),
            (quant, more_quant) in (0.28..1.0, 0.0..0.5),
        ) {
            for kind in RewardKind::all() {
                let reward = kind.build();
                let here = reward.reward(acc, quant);
                prop_assert!((-1.0..=12.0).contains(&here), "{}: {}", kind, here);
                prop_assert!(reward.reward(acc + more_acc, quant) >= here, "{}", kind);
                prop_assert!(reward.reward(acc, quant + more_quant) <= here, "{}", kind);
            }
        }

        #[test]
        fn never_nan(acc in any::<f64>(), quant in any::<f64>(), excess in any::<f64>()) {
            for kind in RewardKind::all() {
                let reward = kind.build();
                prop_assert!(!reward.reward(acc, quant).is_nan(), "{}", kind);
                prop_assert!(!reward.over_limit(acc, quant, excess).is_nan(), "{}", kind);
            }
        }
    }
}
