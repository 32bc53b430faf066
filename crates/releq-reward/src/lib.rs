//! Reward shapings for bitwidth search: how good is this accuracy at these bitwidths?
//!
//! A [`Reward`] sees two numbers and nothing else, so it knows neither the network nor the hardware:
//!
//! - `acc_state`: accuracy now over accuracy at full precision; it may exceed 1;
//! - `quant_state`: cost of the bitwidths over the cost of the widest ones, in (0, 1].
//!
//! [`Shaped`] is ReLeQ's own and the default; [`Division`] and [`Subtraction`] are what it was compared
//! with; [`LinearGrid`] is what its authors' code ran; [`reward_fn`] takes a closure and [`Scaled`]
//! multiplies any of them. [`RewardKind`] names the four in configuration.
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
//! # States that are not numbers
//!
//! Training can diverge, so an accuracy can be NaN. In every reward here, and before every closure, a pair
//! with a NaN or an infinity in it counts as the worst pair there is, `acc_state` 0 and `quant_state` 1.
//! A reward of this crate is therefore never NaN.

mod division;
mod error;
mod function;
mod kind;
mod linear_grid;
mod reward;
mod scaled;
mod shaped;
mod subtraction;

pub use division::Division;
pub use error::RewardError;
pub use function::{RewardFn, reward_fn};
pub use kind::RewardKind;
pub use linear_grid::LinearGrid;
pub use reward::Reward;
pub use scaled::Scaled;
pub use shaped::Shaped;
pub use subtraction::Subtraction;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
