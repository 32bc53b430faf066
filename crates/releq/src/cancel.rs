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
pub struct Cancel {
    flag: Arc<AtomicBool>,
    /// A request that counts as this one too.
    parent: Option<Arc<Cancel>>,
}

impl Cancel {
    /// Nobody has asked to stop yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that is made by setting `flag`, as libraries that handle signals do.
    #[must_use]
    pub const fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self { flag, parent: None }
    }

    /// A request for a part of the work, which can be made alone, and is made with this one.
    #[must_use]
    pub fn part(&self) -> Self {
        Self { flag: Arc::default(), parent: Some(Arc::new(self.clone())) }
    }

    /// Asks to stop; tells whether somebody had asked before.
    pub fn cancel(&self) -> bool {
        self.flag.swap(true, Ordering::Relaxed)
    }

    /// Whether somebody has asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
            || self.parent.as_ref().is_some_and(|parent| parent.is_cancelled())
    }

    /// Goes on unless somebody has asked to stop: what the functions of `releq-train` that can be stopped ask for.
    pub fn go_on(&self) -> ControlFlow<()> {
        if self.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_stopped_alone_or_with_the_whole() {
        let whole = Cancel::new();
        let (first, second) = (whole.part(), whole.part().part());
        assert!(!first.cancel() && first.clone().is_cancelled());
        assert!(!whole.is_cancelled() && !second.is_cancelled());
        whole.cancel();
        assert!(second.is_cancelled());
    }
}
