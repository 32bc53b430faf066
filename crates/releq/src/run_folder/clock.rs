//! The working time of a run, over all of its lives.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Time that a run has worked. It begins at zero and stands still while nobody works on the run.
///
/// A run that is resumed plays again what it has on record; with every answer from there, the clock is set to
/// the time at which the answer first came. So a limit in minutes counts the work of all lives, and meets a
/// resumed search where it met it before.
#[derive(Clone, Debug)]
pub(crate) struct Clock(Arc<Mutex<Reading>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    base: Duration,
    since: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Reading { base: Duration::ZERO, since: Instant::now() })))
    }

    /// Time worked so far.
    pub(crate) fn elapsed(&self) -> Duration {
        let Reading { base, since } = *self.lock();
        base.saturating_add(since.elapsed())
    }

    /// The same in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    /// Something came from the record that first came when the clock showed `seconds`. The clock never runs
    /// backwards.
    pub(crate) fn replayed(&self, seconds: f64) {
        let then = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let mut reading = self.lock();
        let base = reading.base.saturating_add(reading.since.elapsed()).max(then);
        *reading = Reading { base, since: Instant::now() };
    }

    fn lock(&self) -> MutexGuard<'_, Reading> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_sets_the_clock_forwards_alone() {
        let clock = Clock::new();
        assert!(clock.seconds() < 60.0);
        clock.replayed(100.0);
        assert!((100.0..160.0).contains(&clock.seconds()));
        for earlier in [50.0, -1.0, f64::NAN, f64::INFINITY] {
            clock.replayed(earlier);
            assert!((100.0..160.0).contains(&clock.seconds()), "{earlier}");
        }
        // The longest that a record can say.
        clock.replayed(Duration::MAX.as_secs_f64().next_down());
        assert!(clock.seconds() > 1e19);
        clock.replayed(0.0);
        assert!(clock.seconds() > 1e19);
    }
}
