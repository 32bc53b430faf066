//! Reward shapings for bitwidth search: how good is this accuracy at these bitwidths?
//!
//! A [`Reward`] sees two numbers and nothing else, so it knows neither the network nor the hardware:
//!
//! - `acc_state`: accuracy now over accuracy at full precision; it may exceed 1;
//! - `quant_state`: cost of the bitwidths over the cost of the widest ones, in (0, 1].
//!
//! [`Shaped`] is ReLeQ's own and the default; [`Division`] and [`Subtraction`] are those that the paper
//! compares it with; [`LinearGrid`] is the one in the authors' code. [`reward_fn`] makes a reward of a closure,
//! and [`Scaled`] multiplies any of them. [`RewardKind`] is the form of a reward in configuration.
//!
//! ```
//! use releq_reward::{Reward, Shaped};
//!
//! let reward = Shaped::default();
//! let smaller = reward.reward(1.0, 0.25);
//! assert!((smaller - 0.242142).abs() < 1e-6);
//! assert!(smaller > reward.reward(1.0, 0.5)); // fewer bits are better,
//! assert!(smaller > reward.reward(0.9, 0.25)); // and so is accuracy;
//! assert_eq!(reward.reward(0.3, 0.25), -1.0); // but not at any price.
//! ```
//!
//! # Limits on the cost
//!
//! Where the cost has a limit, an assignment that exceeds it gets [`Reward::over_limit`]: less than any
//! assignment within the limit, and the less the more it exceeds it.
//!
//! # States that are not finite
//!
//! Training can diverge, so an accuracy can be NaN. All rewards of this crate, closures included, treat a pair
//! with a NaN or an infinity as the worst pair, `acc_state` 0 and `quant_state` 1. They are therefore never NaN.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod division;
mod error;
mod exchange;
mod function;
mod kind;
mod linear_grid;
mod reward;
mod scaled;
mod shaped;
mod subtraction;
#[cfg(any(test, feature = "testing"))]
mod testing;

pub use division::Division;
pub use error::RewardError;
pub use exchange::Exchange;
pub use function::{RewardFn, reward_fn};
pub use kind::RewardKind;
pub use linear_grid::LinearGrid;
pub use reward::Reward;
pub use scaled::Scaled;
pub use shaped::Shaped;
pub use subtraction::Subtraction;
#[cfg(any(test, feature = "testing"))]
pub use testing::check_reward;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
