//! What can go wrong with an agent.

use std::path::PathBuf;

/// A setting, a call or a file that an agent cannot work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A hyperparameter outside its range.
    #[error("`{field}`: {reason}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// `act`, `reward` and `finish` must alternate after `begin`.
    #[error("`{call}` came out of turn: {expected} was expected")]
    OutOfTurn {
        /// What was called.
        call: &'static str,
        /// What should have been.
        expected: &'static str,
    },
    /// Another number of episodes, or observations of another length.
    #[error("{what}: got {got}, expected {expected}")]
    Count {
        /// What was counted.
        what: &'static str,
        /// What came.
        got: usize,
        /// What was expected.
        expected: usize,
    },
    /// A number that is not finite.
    #[error("{0} is not finite")]
    NotFinite(&'static str),
    /// A saved agent that cannot be read.
    #[error("{file} is no saved agent of this version: {reason}", file = path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot read or write {file}", file = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Refuses another number than `expected`.
pub(crate) fn check_count(
    what: &'static str,
    got: usize,
    expected: usize,
) -> Result<(), AgentError> {
    if got == expected { Ok(()) } else { Err(AgentError::Count { what, got, expected }) }
}
