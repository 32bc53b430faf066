//! Configuration errors of rewards.

/// Why the configuration of a reward is invalid.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// A constant lies outside its range.
    #[error("reward `{reward}`: {field} must be {allowed}, got {got:?}")]
    Constant {
        /// Name of the reward.
        reward: &'static str,
        /// Name of the constant.
        field: &'static str,
        /// The rejected value.
        got: f64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The settings in a reward's text form cannot be read.
    #[error("reward `{got}`: {reason}")]
    Settings {
        /// The rejected text.
        got: String,
        /// What is wrong.
        reason: String,
    },
    /// No reward has this name.
    #[error("unknown reward `{got}`: expected one of {allowed}")]
    UnknownName {
        /// The rejected name.
        got: String,
        /// Every known name, comma-separated.
        allowed: String,
    },
}
