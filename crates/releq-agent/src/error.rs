//! The errors of agents.

use std::path::PathBuf;

/// An agent's error: a bad setting, a call out of turn, or an unusable snapshot or file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A hyperparameter is outside its range.
    #[error("`{field}`: {reason}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The calls are `begin`, then `act` once per step, then `finish`.
    #[error("`{call}` was called out of turn, expected `{expected}`")]
    OutOfTurn {
        /// The call.
        call: &'static str,
        /// The call that had to come first.
        expected: &'static str,
    },
    /// The number of episodes, steps or numbers in an observation is wrong.
    #[error("{what}: got {got}, expected {expected}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// The actual number.
        got: usize,
        /// The expected number.
        expected: usize,
    },
    /// An action that does not exist.
    #[error("action {action} is not below {action_count}")]
    Action {
        /// The action.
        action: usize,
        /// Number of actions.
        action_count: usize,
    },
    /// A number is NaN or infinite.
    #[error("{0} is not finite")]
    NotFinite(&'static str),
    /// The agent does not implement snapshots, so a search with it cannot be resumed.
    #[error("agent `{agent}` does not support snapshots")]
    NoSnapshot {
        /// Name of the agent.
        agent: String,
    },
    /// A snapshot was asked for between `begin` and `finish`.
    #[error("agent `{agent}` cannot be saved during an unfinished batch of episodes")]
    UnfinishedBatch {
        /// Name of the agent.
        agent: String,
    },
    /// A snapshot cannot be taken or restored.
    #[error("snapshot of agent `{agent}`, field `{field}`: {reason}")]
    Snapshot {
        /// Name of the agent.
        agent: String,
        /// The field at fault.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file does not contain a usable agent.
    #[error(
        "{file} does not contain a usable agent: {reason}; take an earlier copy, or train an agent anew",
        file = path.display()
    )]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {file}", file = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The error of an agent from outside this crate.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// Fails unless `got` is `expected`.
pub(crate) fn check_count(
    what: &'static str,
    got: usize,
    expected: usize,
) -> Result<(), AgentError> {
    if got == expected { Ok(()) } else { Err(AgentError::Count { what, got, expected }) }
}
