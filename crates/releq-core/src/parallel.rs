//! Work on many items side by side.
//!
//! Which thread does what is left to chance, so the work on an item must depend on that item alone. The
//! result then does not depend on the number of threads.

use std::{
    any::Any,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

/// Most threads that work is ever split among, more than any machine has processors.
pub const MOST_THREADS: usize = 1024;

/// Number of threads to use where `asked` were asked for; 0 asks for one per processor.
#[must_use]
pub fn threads(asked: usize) -> usize {
    match asked {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        asked => asked.min(MOST_THREADS),
    }
}

/// Why the work on an item ended early.
enum Failure<E> {
    Error(E),
    Panic(Box<dyn Any + Send>),
}

/// Runs `work` once on every item, on up to `threads` threads; items are handed out in order.
///
/// Where the system gives fewer threads, or `threads` exceeds [`MOST_THREADS`], fewer do the same work.
///
/// Once an item fails, no more are handed out. Those that were are finished first, so the error is that
/// of the first item in order that fails, whatever the number of threads.
///
/// # Errors
/// The error of the first item in order that fails.
///
/// # Panics
/// If the first item in order that fails panics, with the message of that panic; the other threads
/// finish what they have begun.
///
/// # Examples
///
/// ```
/// let mut squares = [0; 10];
/// releq_core::parallel::try_for_each(squares.iter_mut().enumerate(), 4, |(index, square)| {
///     *square = index * index;
///     Ok::<(), String>(())
/// })?;
/// assert_eq!(squares[9], 81);
/// # Ok::<(), String>(())
/// ```
pub fn try_for_each<T: Send, E: Send>(
    items: impl Iterator<Item = T> + Send,
    threads: usize,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let threads = items.size_hint().1.map_or(threads, |most| threads.min(most)).min(MOST_THREADS);
    if threads <= 1 {
        let mut items = items;
        return items.try_for_each(work);
    }
    let items = Mutex::new(items.enumerate());
    let failed: Mutex<Option<(usize, Failure<E>)>> = Mutex::new(None);
    let run = || {
        while lock(&failed).is_none() {
            // Poisoned if the iterator itself panicked: the scope passes that on.
            let next = items.lock().ok().and_then(|mut items| items.next());
            let Some((position, item)) = next else { break };
            let failure = match catch_unwind(AssertUnwindSafe(|| work(item))) {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => Failure::Error(error),
                Err(payload) => Failure::Panic(payload),
            };
            let mut failed = lock(&failed);
            if failed.as_ref().is_none_or(|&(other, _)| position < other) {
                *failed = Some((position, failure));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // A limit on threads is no reason to fail: those that there are do the work.
            if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Ok(()),
        Some((_, Failure::Error(error))) => Err(error),
        Some((_, Failure::Panic(payload))) => resume_unwind(payload),
    }
}

/// The results of `work` on every item, in the order of the items; otherwise as [`try_for_each`].
///
/// # Errors
/// The error of the first item in order that fails.
///
/// # Panics
/// If the first item in order that fails panics, with the message of that panic.
///
/// # Examples
///
/// ```
/// use releq_core::parallel::try_map;
///
/// let halved = |n: u32| if n % 2 == 0 { Ok(n / 2) } else { Err(format!("{n} is odd")) };
/// assert_eq!(try_map([2, 4, 6].into_iter(), 2, halved), Ok(vec![1, 2, 3]));
/// assert_eq!(try_map([2, 3, 5].into_iter(), 2, halved), Err("3 is odd".to_owned()));
/// ```
pub fn try_map<T: Send, R: Send, E: Send>(
    items: impl Iterator<Item = T> + Send,
    threads: usize,
    work: impl Fn(T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    try_for_each(items.enumerate(), threads, |(position, item)| {
        let result = work(item)?;
        lock(&done).push((position, result));
        Ok(())
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|&(position, _)| position);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// No panic of `work` happens while a lock is held, so what it protects is intact.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_results_keep_their_order() {
        for threads in [0, 1, 2, 7, 200] {
            let mut places = vec![0_usize; 100];
            let add = |(index, place): (usize, &mut usize)| {
                *place += index + 1;
                Ok::<(), ()>(())
            };
            try_for_each(places.iter_mut().enumerate(), threads, add).unwrap();
            assert!(places.iter().copied().eq(1..=100), "{threads}");
            let mapped = try_map(places.iter(), threads, |&place| Ok::<usize, ()>(place * 2));
            assert!(mapped.unwrap().into_iter().eq((2..=200).step_by(2)), "{threads}");
        }
        assert_eq!((threads(3), threads(usize::MAX)), (3, MOST_THREADS));
        assert!(threads(0) >= 1);
    }

    #[test]
    fn a_huge_number_of_threads_is_bounded() {
        let seen = Mutex::new(HashSet::new());
        try_for_each(0..3000, usize::MAX, |_| {
            lock(&seen).insert(thread::current().id());
            // Long enough for every thread to begin.
            thread::sleep(Duration::from_millis(200));
            Ok::<(), ()>(())
        })
        .unwrap();
        assert!((2..=MOST_THREADS).contains(&lock(&seen).len()));
    }

    #[test]
    fn the_first_failure_in_order_counts_and_ends_the_work() {
        for threads in [1, 2, 8] {
            let begun = AtomicUsize::new(0);
            let found = try_map(0..10_000, threads, |item| {
                begun.fetch_add(1, Ordering::Relaxed);
                if item == 5 {
                    // Later failures are noticed first.
                    thread::sleep(Duration::from_millis(20));
                }
                if item >= 5 { Err(item) } else { Ok(item) }
            });
            assert_eq!(found, Err(5), "{threads} threads");
            assert!(begun.into_inner() < 1000, "{threads} threads");
        }
    }

    #[test]
    fn a_panic_keeps_its_message() {
        for threads in [1, 2, 8] {
            let work = |item: usize| {
                assert!(item != 40, "item {item} is broken");
                Ok::<(), ()>(())
            };
            let run = || try_for_each(0..1000, threads, work);
            let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            let message = payload.downcast_ref::<String>().map(String::as_str);
            assert_eq!(message, Some("item 40 is broken"), "{threads} threads");
        }
    }
}
