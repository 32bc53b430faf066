//! Calls into pieces that may be somebody else's.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use releq_agent::AgentError;

use crate::ReleqError;

/// Calls `f`, a part of `piece`. A panic becomes an error that names the piece, so that a run keeps what it
/// has measured; an error of the piece's own, which may say nothing of where it is from, gets the name too.
pub(crate) fn guard<T>(
    piece: impl FnOnce() -> String,
    f: impl FnOnce() -> Result<T, ReleqError>,
) -> Result<T, ReleqError> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Err(ReleqError::Other(source) | ReleqError::Agent(AgentError::Other(source)))) => {
            Err(ReleqError::Piece { piece: piece(), source })
        }
        Ok(answer) => answer,
        Err(panic) => {
            let Blamed { piece, message } = Blamed::of(panic, piece);
            Err(ReleqError::Panicked { piece, message })
        }
    }
}

/// Calls `f`, a part of `piece`, from where no error can be returned: a panic goes on as one that names the
/// piece, whatever the [`guard`] that it comes to says.
pub(crate) fn blame<T>(piece: impl FnOnce() -> String, f: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|panic| resume_unwind(Box::new(Blamed::of(panic, piece))))
}

/// A panic, and whose it is.
struct Blamed {
    piece: String,
    message: String,
}

impl Blamed {
    /// The innermost piece is the one to blame.
    fn of(panic: Box<dyn Any + Send>, piece: impl FnOnce() -> String) -> Self {
        match panic.downcast::<Self>() {
            Ok(known) => *known,
            Err(panic) => Self { piece: piece(), message: message(panic.as_ref()) },
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_piece_is_blamed() {
        let outer = || "outer".to_owned();
        let inner = || "inner".to_owned();
        let error = |result: Result<(), ReleqError>| result.unwrap_err().chain();
        assert_eq!(error(guard(outer, || panic!("no"))), "outer panicked: no");
        let nested = guard(outer, || blame(inner, || panic!("not {}", 1)));
        assert_eq!(error(nested), "inner panicked: not 1");
        let nested = guard(outer, || guard(inner, || Err(ReleqError::Other("no".into()))));
        assert_eq!(error(nested), "inner failed: no");
        let known: Result<(), _> = guard(outer, || Err(ReleqError::Cancelled));
        assert!(matches!(known, Err(ReleqError::Cancelled)));
    }
}
