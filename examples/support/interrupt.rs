//! Ctrl-C.

use anyhow::Result;
use releq::Cancel;

/// Exit code after Ctrl-C, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// A request to stop that the first Ctrl-C makes, so that the run ends in good order; the second one ends it
/// at once.
///
/// # Errors
/// If there is a handler already.
pub fn cancel() -> Result<Cancel> {
    let cancel = Cancel::new();
    let handler = cancel.clone();
    ctrlc::set_handler(move || {
        if handler.cancel() {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })?;
    Ok(cancel)
}
