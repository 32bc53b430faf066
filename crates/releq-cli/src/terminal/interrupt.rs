//! Ctrl-C and termination.

use std::{
    process,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use releq::Cancel;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Signals that end a program.
const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// How often a thread looks whether there was a signal.
const LOOK: Duration = Duration::from_millis(50);

/// Whether the first signal ends the program at once: until an [`Interrupt`] waits for it.
static AT_ONCE: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// Whether a signal has asked a run to stop.
static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether a signal has asked the run that goes on to stop.
pub(crate) fn is_stopping() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Lets signals end the program at once, with the exit codes that it has after any signal. For commands that have
/// nothing to save; an [`Interrupt`] takes over.
///
/// # Errors
/// If the system lets no signal be handled.
pub fn exit_at_once() -> Result<()> {
    for number in SIGNALS {
        flag::register_conditional_shutdown(number, exit_code(number), Arc::clone(&AT_ONCE))
            .context("signals cannot be handled")?;
    }
    Ok(())
}

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
        AT_ONCE.store(false, Ordering::SeqCst);
        ASKED.store(false, Ordering::SeqCst);
        for number in SIGNALS {
            let handled = || {
                // Handlers run in the order of their registration, so that this one sees the flag of an
                // earlier signal.
                flag::register_conditional_shutdown(number, exit_code(number), Arc::clone(&asked))?;
                flag::register_usize(
                    number,
                    Arc::clone(&signal),
                    usize::try_from(number).unwrap_or(0),
                )?;
                flag::register(number, Arc::clone(&ASKED))?;
                flag::register(number, Arc::clone(&asked))
            };
            handled().context("signals cannot be handled")?;
        }
        Ok(Self { cancel: Cancel::from_flag(asked), signal })
    }

    /// Ends the program this long after the first signal, whatever it is doing by then: for commands that look at the
    /// signal between steps which may last, and that lose nothing of value.
    pub fn leave_after(&self, grace: Duration) {
        let Self { cancel, signal } = self;
        let waiting = Self { cancel: cancel.clone(), signal: Arc::clone(signal) };
        thread::spawn(move || {
            while !waiting.cancel.is_cancelled() {
                thread::sleep(LOOK);
            }
            thread::sleep(grace);
            process::exit(waiting.exit_code().into());
        });
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
