//! A limit on memory that all threads share.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that may be in use at the same time, whichever threads use them.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: Mutex<u64>,
    released: Condvar,
}

/// A part of a [`Budget`], returned to it on drop.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    pub(crate) const fn new(limit: u64) -> Self {
        Self { limit, used: Mutex::new(0), released: Condvar::new() }
    }

    pub(crate) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Waits until `bytes` are free and takes them; `None` if they never can be.
    ///
    /// To rule out deadlocks, a thread must not hold a part of the budget that it waits for.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reserved<'_>> {
        if bytes > self.limit {
            return None;
        }
        let busy = |used: &mut u64| *used > self.limit - bytes;
        let used = self.released.wait_while(self.used(), busy);
        *used.unwrap_or_else(PoisonError::into_inner) += bytes;
        Some(Reserved { budget: self, bytes })
    }

    /// No panic happens while the lock is held, so the number is right.
    fn used(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        *self.budget.used() -= self.bytes;
        self.budget.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn no_more_than_the_limit_is_in_use_at_any_time() {
        let budget = Budget::new(100);
        let (used, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for thread in 1..=8 {
                let (budget, used, most) = (&budget, &used, &most);
                scope.spawn(move || {
                    for round in 1..200 {
                        let bytes = (thread * round * 7) % 101;
                        let part = budget.reserve(bytes).unwrap();
                        let now = used.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        most.fetch_max(now, Ordering::SeqCst);
                        thread::yield_now();
                        used.fetch_sub(bytes, Ordering::SeqCst);
                        drop(part);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 100);
        assert_eq!(*budget.used(), 0);
        assert!(budget.reserve(101).is_none());
        assert!(budget.reserve(100).is_some());
    }
}
