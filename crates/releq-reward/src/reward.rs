//! The trait between what was measured and what the agent maximizes.

/// Scores one pair of states; a pure function.
///
/// A reward should not fall with `acc_state` and not rise with `quant_state`. With the feature `testing`,
/// `check_reward` checks an implementation for this and for what the methods promise.
pub trait Reward: Send + Sync {
    /// Short name for tables and configuration, such as `shaped`.
    fn name(&self) -> &str;

    /// Reward of relative accuracy `acc_state` at relative cost `quant_state`; never NaN.
    ///
    /// If either state is NaN or infinite, the reward is that of the worst pair, `reward(0.0, 1.0)`.
    fn reward(&self, acc_state: f64, quant_state: f64) -> f64;

    /// Reward of an assignment that exceeds a limit on its cost by `excess`, a positive share of the limit:
    /// 0.25 is a quarter too much.
    ///
    /// Always below the reward of an assignment within the limit, however inaccurate that one is, so that the
    /// agent first learns to keep to the limit. It falls as the excess grows, which tells the agent the way
    /// back. By default
    ///
    /// ```text
    /// reward(0, 1) - excess / (1 + excess) - 1 / (1 + e^reward(acc_state, quant_state))
    /// ```
    ///
    /// The first term is the worst reward of a `quant_state` up to 1; the others lie in (0, 1), so that one
    /// assignment far above the limit does not outweigh all others in a batch. Override it for a reward whose
    /// lowest value within the limit is not that of the worst pair, or which spans much more than 1. An
    /// `excess` that is NaN counts as infinite.
    fn over_limit(&self, acc_state: f64, quant_state: f64, excess: f64) -> f64 {
        let excess = if excess.is_nan() { f64::MAX } else { excess.clamp(0.0, f64::MAX) };
        let worst = self.reward(0.0, 1.0);
        let reward = self.reward(acc_state, quant_state);
        worst - excess / (1.0 + excess) - 1.0 / (1.0 + reward.exp())
    }
}

macro_rules! forward_reward {
    ($($pointer:ty),*) => {$(
        impl<R: Reward + ?Sized> Reward for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }
            fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
                (**self).reward(acc_state, quant_state)
            }
            fn over_limit(&self, acc_state: f64, quant_state: f64, excess: f64) -> f64 {
                (**self).over_limit(acc_state, quant_state, excess)
            }
        }
    )*};
}

forward_reward!(&R, Box<R>, std::sync::Arc<R>);

/// The pair itself if both are finite, else the worst pair.
pub(crate) fn finite_or_worst(acc_state: f64, quant_state: f64) -> (f64, f64) {
    if acc_state.is_finite() && quant_state.is_finite() {
        (acc_state, quant_state)
    } else {
        (0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Scaled, Shaped, Subtraction};

    #[test]
    fn over_limit_worked_cases() {
        // -1 - 0.25 / 1.25 - 1 / (1 + e^0.5).
        let expected = -1.2 - 1.0 / (1.0 + 0.5f64.exp());
        assert!((Subtraction.over_limit(1.0, 0.5, 0.25) - expected).abs() < 1e-12);
        // The worst accuracy within the limit is better than the best one above it.
        let reward = Shaped::default();
        assert!(reward.over_limit(1.0, 0.1, 1e-9) < reward.reward(0.0, 1.0));
        assert_eq!(
            reward.over_limit(1.0, 0.1, f64::NAN),
            reward.over_limit(1.0, 0.1, f64::INFINITY)
        );
    }

    #[test]
    fn pointers_and_factors_forward_an_overridden_over_limit() {
        struct Flat;
        impl Reward for Flat {
            fn name(&self) -> &str {
                "flat"
            }
            fn reward(&self, _: f64, _: f64) -> f64 {
                0.0
            }
            fn over_limit(&self, _: f64, _: f64, excess: f64) -> f64 {
                -excess
            }
        }
        let shared: Arc<dyn Reward> = Arc::new(Flat);
        let boxed: Box<dyn Reward> = Box::new(Arc::clone(&shared));
        for reward in [&shared as &dyn Reward, &boxed, &&Flat] {
            assert_eq!((reward.name(), reward.over_limit(1.0, 1.0, 2.0)), ("flat", -2.0));
        }
        assert_eq!(Scaled::new(shared, 5.0).unwrap().over_limit(1.0, 1.0, 2.0), -10.0);
    }
}
