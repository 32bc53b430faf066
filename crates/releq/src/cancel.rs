//! Stopping a run from outside.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A request to stop, shared by all of its clones: whoever holds one may make it, as a Ctrl-C handler
/// does, and whatever runs looks at it between two steps.
///
/// ```
/// use releq::Cancel;
///
/// let cancel = Cancel::new();
/// let handler = cancel.clone();
/// assert!(!handler.cancel(), "the first request");
/// assert!(cancel.is_cancelled() && handler.cancel());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Nobody has asked to stop yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that is made by setting `flag`, as libraries that handle signals do.
    #[must_use]
    pub const fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Asks to stop; tells whether somebody had asked before.
    pub fn cancel(&self) -> bool {
        self.0.swap(true, Ordering::Relaxed)
    }

    /// Whether somebody has asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on unless somebody has asked to stop: what the functions of `releq-train` that can be stopped ask for.
    pub fn go_on(&self) -> ControlFlow<()> {
        if self.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
