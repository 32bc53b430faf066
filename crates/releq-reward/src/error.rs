//! What can be wrong with a reward's configuration.

/// A reward that cannot be configured so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RewardError {
    /// A constant lies outside its range.
    #[error("reward `{reward}`: {field} must be {allowed}, got {got}")]
    Constant {
        /// Name of the reward.
        reward: &'static str,
        /// Name of the constant.
        field: &'static str,
        /// What came.
        got: f64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// No reward has this name.
    #[error("unknown reward `{got}`: expected one of {allowed}")]
    UnknownName {
        /// What came.
        got: String,
        /// Every known name, comma-separated.
        allowed: String,
    },
}
