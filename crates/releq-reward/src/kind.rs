//! Rewards by name, for configuration.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Division, LinearGrid, Reward, RewardError, Shaped, Subtraction};

/// One of this crate's rewards with its default constants, by name.
///
/// ```
/// use releq_reward::{Reward, RewardKind};
///
/// let kind: RewardKind = "linear-grid".parse()?;
/// assert_eq!(kind.build().name(), kind.to_string());
/// # Ok::<(), releq_reward::RewardError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardKind {
    /// [`Shaped`], ReLeQ's own.
    #[default]
    Shaped,
    /// [`Division`].
    Division,
    /// [`Subtraction`].
    Subtraction,
    /// [`LinearGrid`].
    LinearGrid,
}

impl RewardKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Shaped, Self::Division, Self::Subtraction, Self::LinearGrid];

    /// The name in configuration, as `linear-grid`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shaped => "shaped",
            Self::Division => "division",
            Self::Subtraction => "subtraction",
            Self::LinearGrid => "linear-grid",
        }
    }

    /// The reward that this name stands for.
    #[must_use]
    pub fn build(self) -> Box<dyn Reward> {
        match self {
            Self::Shaped => Box::new(Shaped::default()),
            Self::Division => Box::new(Division),
            Self::Subtraction => Box::new(Subtraction),
            Self::LinearGrid => Box::new(LinearGrid),
        }
    }
}

impl fmt::Display for RewardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for RewardKind {
    type Err = RewardError;
    fn from_str(text: &str) -> Result<Self, RewardError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text.trim()).ok_or_else(|| {
            RewardError::UnknownName {
                got: text.to_owned(),
                allowed: Self::ALL.map(Self::name).join(", "),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_round_trip() {
        for kind in RewardKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(kind.build().name(), kind.name());
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        let message = "product".parse::<RewardKind>().unwrap_err().to_string();
        assert!(message.contains("`product`") && message.contains("linear-grid"), "{message}");
    }

    #[test]
    fn a_state_that_is_no_number_is_the_worst_state() {
        let worst = [-1.0, 0.0, -1.0, 0.0];
        for (kind, worst) in RewardKind::ALL.into_iter().zip(worst) {
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
            for kind in RewardKind::ALL {
                let reward = kind.build();
                let here = reward.reward(acc, quant);
                prop_assert!((-1.0..=12.0).contains(&here), "{}: {}", kind, here);
                prop_assert!(reward.reward(acc + more_acc, quant) >= here, "{}", kind);
                prop_assert!(reward.reward(acc, quant + more_quant) <= here, "{}", kind);
            }
        }

        #[test]
        fn never_nan(acc in any::<f64>(), quant in any::<f64>()) {
            for kind in RewardKind::ALL {
                prop_assert!(!kind.build().reward(acc, quant).is_nan(), "{}", kind);
            }
        }
    }
}
