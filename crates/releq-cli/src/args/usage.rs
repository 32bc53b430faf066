//! Mistakes on the command line that show only after it was parsed.

use anyhow::Result;

/// A command line that cannot work, whatever is in the files that it names; the program exits with 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The error of a check of options as a mistake of the command line, with its causes.
///
/// # Errors
/// [`UsageError`] for any error.
pub fn usage<T, E: Into<anyhow::Error>>(checked: Result<T, E>) -> Result<T> {
    checked.map_err(|error| UsageError(format!("{:#}", error.into())).into())
}
