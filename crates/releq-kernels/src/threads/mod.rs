//! Splits the results of a layer among threads.

mod parts;
mod place;
mod pool;
mod share;

use std::{
    num::NonZeroUsize,
    sync::{Mutex, OnceLock, PoisonError},
};

use parts::Parts;
use pool::Pool;
pub(crate) use share::{Grid, Part, share};

/// Parts of a layer for each thread. With more than one, a thread that is late or interrupted holds up less.
const PARTS: usize = 4;
/// Products that a part of a layer has at least: a microsecond or more of work.
const PRODUCTS: usize = 1 << 18;
/// Products that take as long as a result for which little is done.
const RESULT: usize = 16;

/// The threads that compute a layer together: the caller's, and others that wait for its layers.
///
/// The others are started by the first layer that is worth it. They look out for the next layer for a tenth of a millisecond,
/// then sleep, and they end when this is dropped. Results do not depend on the number of threads. If several layers use the
/// same threads at the same time, the first one has them, and the others are computed by their callers alone.
#[derive(Debug)]
pub struct Threads {
    count: NonZeroUsize,
    /// Products that a part of a layer has at least.
    products: usize,
    pool: OnceLock<Pool>,
}

impl Threads {
    /// So many threads, the caller's among them.
    #[must_use]
    pub const fn new(count: NonZeroUsize) -> Self {
        Self { count, products: PRODUCTS, pool: OnceLock::new() }
    }

    /// As [`new`](Self::new), but splits every layer, however small: slower, for tests.
    #[must_use]
    pub const fn eager(count: NonZeroUsize) -> Self {
        Self { count, products: 1, pool: OnceLock::new() }
    }

    /// The caller's thread alone.
    #[must_use]
    pub const fn one() -> Self {
        Self::new(NonZeroUsize::MIN)
    }

    /// Number of threads, the caller's among them.
    #[must_use]
    pub const fn count(&self) -> NonZeroUsize {
        self.count
    }

    /// Calls `work` for disjoint parts of `out` that are together all of it, with the number of the first unit of each. A unit
    /// is `unit` results, such as a pixel, and is never split. Few results are a single part.
    pub fn split<T: Send>(
        &self,
        out: &mut [T],
        unit: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let parts = self.parts(out.len(), RESULT).min(out.len().div_ceil(unit.max(1)));
        if parts <= 1 {
            return work(0, out);
        }
        self.each(Parts::of(out, unit, parts), |(first, out)| work(first, out));
    }

    /// Number of parts of so many results with so many products each.
    fn parts(&self, results: usize, products: usize) -> usize {
        self.rounded(results.saturating_mul(products) / self.products)
    }

    /// At most so many parts, as many for every thread if there are enough.
    fn rounded(&self, most: usize) -> usize {
        let threads = self.count.get();
        if most < threads { most } else { (most / threads).min(PARTS) * threads }
    }

    /// Calls `run` once for every item.
    fn each<I: DoubleEndedIterator<Item: Send> + ExactSizeIterator + Send>(
        &self,
        items: I,
        run: impl Fn(I::Item) + Sync,
    ) {
        let workers = self.count.get().min(items.len()).saturating_sub(1);
        if workers == 0 {
            return items.for_each(run);
        }
        let pool = self.pool.get_or_init(|| Pool::new(self.count.get() - 1));
        let items = Mutex::new(items);
        // Nothing panics while the lock is held.
        let taken = |take: fn(&mut I) -> Option<I::Item>| {
            take(&mut items.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let all = |take| {
            while let Some(item) = taken(take) {
                run(item);
            }
        };
        // From both ends, so that in every run of a layer a thread gets much the same weights, which its cache may still have.
        pool.run(workers, || all(Iterator::next), &|| all(DoubleEndedIterator::next_back));
    }
}

impl From<NonZeroUsize> for Threads {
    fn from(count: NonZeroUsize) -> Self {
        Self::new(count)
    }
}

impl Clone for Threads {
    /// As many threads, but others.
    fn clone(&self) -> Self {
        Self { count: self.count, products: self.products, pool: OnceLock::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    fn threads(count: usize) -> Threads {
        Threads::eager(NonZeroUsize::new(count).expect("positive"))
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes")]
    fn every_unit_is_computed_once() {
        for (count, unit) in (1..=5).flat_map(|count| [1, 3, 64, 1000].map(|unit| (count, unit))) {
            let threads = threads(count);
            // Awake and asleep.
            for len in [0, 1, 1 << 13, 1 << 15, (1 << 17) + 7] {
                let mut out = vec![(0_usize, 0_usize); len];
                threads.split(&mut out, unit, |first, out| {
                    for (at, out) in out.iter_mut().enumerate() {
                        *out = (out.0 + 1, first * unit + at);
                    }
                });
                let is_right = |(at, result): (usize, &_)| *result == (1, at);
                assert!(out.iter().enumerate().all(is_right), "{count} {unit} {len}");
                thread::sleep(Duration::from_micros(50 * len as u64 % 300));
            }
        }
    }

    #[test]
    fn all_threads_take_part_whether_they_sleep_or_not() {
        let threads = threads(3);
        for pause in [0, 5] {
            let seen = Mutex::new(HashSet::new());
            threads.each([(); 60].into_iter(), |()| {
                seen.lock().expect("no panic").insert(thread::current().id());
                thread::sleep(Duration::from_millis(5));
            });
            assert_eq!(seen.into_inner().expect("no panic").len(), 3, "{pause}");
            thread::sleep(Duration::from_millis(pause));
        }
    }

    #[test]
    fn who_finds_the_threads_in_use_works_alone() {
        let (threads, done) = (threads(2), AtomicUsize::new(0));
        threads.each([(); 4].into_iter(), |()| {
            threads.each([(); 3].into_iter(), |()| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(done.into_inner(), 12);
    }

    #[test]
    fn a_panic_of_any_thread_is_passed_on_and_the_next_layer_is_computed() {
        let threads = threads(2);
        for bad in 0..8 {
            let run = || {
                threads.each(0..8, |item: usize| {
                    thread::sleep(Duration::from_millis(1));
                    assert!(item != bad, "item {item} is broken");
                });
            };
            let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
            let message = payload.downcast_ref::<String>().map(String::as_str);
            assert_eq!(message, Some(format!("item {bad} is broken").as_str()));
            let done = AtomicUsize::new(0);
            threads.each(0..8, |item| _ = done.fetch_add(item, Ordering::Relaxed));
            assert_eq!(done.into_inner(), 28);
        }
    }
}
