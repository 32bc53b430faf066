//! Errors with what caused them.

use std::error::Error;

/// The messages of an error and of what caused it, in one line.
///
/// ```
/// use releq_core::{CostError, with_causes};
///
/// let error = CostError::other("board", "the board does not answer");
/// assert_eq!(with_causes(&error), "board failed: the board does not answer");
/// ```
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
