//! Ctrl-C and termination.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use anyhow::{Context, Result};
use releq::Cancel;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// A request to stop that the first Ctrl-C or termination signal makes, so that the run ends in good order; the
/// second one ends it at once.
#[derive(Debug)]
pub struct Interrupt {
    /// Set by the first signal.
    pub cancel: Cancel,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Waits for signals from now on.
    ///
    /// # Errors
    /// If the system lets no signal be handled.
    pub fn new() -> Result<Self> {
        let (asked, signal) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for number in [SIGINT, SIGTERM] {
            let handled = || {
                // Handlers run in the order of their registration, so that this one sees the flag of an
                // earlier signal.
                flag::register_conditional_shutdown(number, exit_code(number), Arc::clone(&asked))?;
                flag::register_usize(
                    number,
                    Arc::clone(&signal),
                    usize::try_from(number).unwrap_or(0),
                )?;
                flag::register(number, Arc::clone(&asked))
            };
            handled().context("signals cannot be handled")?;
        }
        Ok(Self { cancel: Cancel::from_flag(asked), signal })
    }

    /// What a program exits with that a signal stopped, as shells have it: 130 after Ctrl-C, 143 after a
    /// termination signal.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let signal = self.signal.load(Ordering::Relaxed);
        let code = exit_code(i32::try_from(signal).unwrap_or(SIGINT).max(SIGINT));
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

fn exit_code(signal: i32) -> i32 {
    128 + signal
}
