//! A closure as a reward.

use std::fmt;

use crate::{Reward, reward::finite_or_worst};

/// A closure as a reward; see [`reward_fn`].
#[derive(Clone)]
pub struct RewardFn<F> {
    name: String,
    function: F,
}

/// Makes a reward of a closure over `acc_state` and `quant_state`, in this order.
///
/// The closure never gets a NaN or an infinity, but 0 and 1, the worst pair, instead. Its result is not
/// checked.
///
/// ```
/// use releq_reward::{Reward, reward_fn};
///
/// let product = reward_fn("product", |acc, quant| acc * (1.0 - quant));
/// assert_eq!(product.reward(0.5, 0.5), 0.25);
/// assert_eq!(product.reward(f64::NAN, 0.5), 0.0);
/// ```
pub fn reward_fn<F>(name: impl Into<String>, function: F) -> RewardFn<F>
where
    F: Fn(f64, f64) -> f64 + Send + Sync,
{
    RewardFn { name: name.into(), function }
}

impl<F: Fn(f64, f64) -> f64 + Send + Sync> Reward for RewardFn<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        let (acc_state, quant_state) = finite_or_worst(acc_state, quant_state);
        (self.function)(acc_state, quant_state)
    }
}

impl<F> fmt::Debug for RewardFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RewardFn").field("name", &self.name).finish_non_exhaustive()
    }
}
