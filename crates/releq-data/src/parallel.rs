//! Work on many images at once.

use std::{
    num::NonZero,
    sync::{Mutex, PoisonError},
    thread,
};

/// Number of threads that `asked` stands for: 0 means as many as the machine has processors.
pub(crate) fn threads(asked: usize) -> usize {
    match asked {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        asked => asked,
    }
}

/// Runs `work` once on every item, on `threads` threads.
///
/// Items are handed out in order, as threads become free. Which thread does what is left to chance,
/// so an item has to bring along everything its result depends on, and the place it goes to.
pub(crate) fn for_each<T: Send>(
    items: impl Iterator<Item = T> + Send,
    threads: usize,
    work: impl Fn(T) + Sync,
) {
    let items = Mutex::new(items);
    // A poisoned lock means that a thread panicked; the scope passes that on.
    let next = || items.lock().ok().and_then(|mut items| items.next());
    let run = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
}

/// As [`for_each`], with work that can fail: returns the error of the first item in order that failed.
///
/// No items are handed out once one has failed.
pub(crate) fn try_for_each<T: Send, E: Send>(
    items: impl Iterator<Item = T> + Send,
    threads: usize,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let failed: Mutex<Option<(usize, E)>> = Mutex::new(None);
    let lock = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let items = items.enumerate().take_while(|_| lock().is_none());
    for_each(items, threads, |(position, item)| {
        if let Err(error) = work(item) {
            let mut failed = lock();
            // Items before this one are already being worked on, and may fail later.
            if failed.as_ref().is_none_or(|&(other, _)| position < other) {
                *failed = Some((position, error));
            }
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 7, 200] {
            let mut places = vec![0_usize; 100];
            for_each(places.iter_mut().enumerate(), threads, |(index, place)| *place += index + 1);
            assert!(places.into_iter().eq(1..=100), "{threads}");
        }
        assert_eq!(threads(3), 3);
        assert!(threads(0) >= 1);
    }
}
