//! The seam between what was measured and what the agent maximizes.

/// Scores one pair of states; a pure function.
pub trait Reward: Send + Sync {
    /// Short name for tables and configuration, as `shaped`.
    fn name(&self) -> &str;

    /// Reward of relative accuracy `acc_state` at relative cost `quant_state`; never NaN.
    ///
    /// If either state is NaN or infinite, the reward is that of the worst pair, `reward(0.0, 1.0)`.
    fn reward(&self, acc_state: f64, quant_state: f64) -> f64;
}

impl<R: Reward + ?Sized> Reward for &R {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        (**self).reward(acc_state, quant_state)
    }
}

impl<R: Reward + ?Sized> Reward for Box<R> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        (**self).reward(acc_state, quant_state)
    }
}

impl<R: Reward + ?Sized> Reward for std::sync::Arc<R> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        (**self).reward(acc_state, quant_state)
    }
}

/// The pair itself if both are finite, else the worst pair.
pub(crate) fn finite_or_worst(acc_state: f64, quant_state: f64) -> (f64, f64) {
    if acc_state.is_finite() && quant_state.is_finite() {
        (acc_state, quant_state)
    } else {
        (0.0, 1.0)
    }
}
