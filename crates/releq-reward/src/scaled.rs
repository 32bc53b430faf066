//! Any reward, times a constant.

use crate::{Reward, RewardError};

/// Another reward times a positive constant.
///
/// [`Shaped`](crate::Shaped) reaches only about 0.25 above zero, which makes an agent with a small learning rate
/// slow. A factor of five solved that in our replays of the LeNet table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaled<R> {
    inner: R,
    factor: f64,
}

impl<R> Scaled<R> {
    /// Multiplies `inner` by `factor`.
    ///
    /// # Errors
    /// [`RewardError::Constant`] unless `factor` is positive and finite.
    pub fn new(inner: R, factor: f64) -> Result<Self, RewardError> {
        if factor.is_finite() && factor > 0.0 {
            Ok(Self { inner, factor })
        } else {
            let (reward, field, allowed) = ("scaled", "factor", "positive and finite");
            Err(RewardError::Constant { reward, field, got: factor, allowed })
        }
    }

    /// The reward that is multiplied.
    pub const fn inner(&self) -> &R {
        &self.inner
    }

    /// The factor.
    #[must_use]
    pub const fn factor(&self) -> f64 {
        self.factor
    }

    /// Another reward, made of the inner one, times the same factor.
    pub(crate) fn map<S>(&self, make: impl FnOnce(&R) -> S) -> Scaled<S> {
        Scaled { inner: make(&self.inner), factor: self.factor }
    }
}

impl<R: Reward> Reward for Scaled<R> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        self.factor * self.inner.reward(acc_state, quant_state)
    }

    fn over_limit(&self, acc_state: f64, quant_state: f64, excess: f64) -> f64 {
        self.factor * self.inner.over_limit(acc_state, quant_state, excess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Subtraction;

    #[test]
    fn multiplies() {
        assert_eq!(Scaled::new(Subtraction, 5.0).unwrap().reward(1.0, 0.5), 2.5);
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Scaled::new(Subtraction, bad).is_err());
        }
    }
}
