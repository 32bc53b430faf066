//! Calls into pieces that may be somebody else's.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::ReleqError;

/// Calls `f`, a part of `piece`; a panic becomes an error that names the piece, so that a run keeps what it
/// has measured.
pub(crate) fn guard<T>(
    piece: impl FnOnce() -> String,
    f: impl FnOnce() -> Result<T, ReleqError>,
) -> Result<T, ReleqError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        Err(ReleqError::Panicked { piece: piece(), message: message(panic.as_ref()) })
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}
