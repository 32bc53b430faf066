//! Threads that wait for work.
#![allow(unsafe_code, reason = "threads that outlive a call are lent a closure that does not")]

use std::{
    any::Any,
    fmt, hint, mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError, RwLock, TryLockError,
        atomic::{AtomicBool, AtomicUsize, Ordering::*},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::place;

/// How long a thread looks out for work before it sleeps. To wake one takes about as long as a small layer, so threads should
/// be awake from layer to layer, and sleep between images at most.
const AWAKE: Duration = Duration::from_micros(100);
/// Looks between two looks at the clock.
const LOOKS: usize = 16;

type Work<'a> = dyn Fn() + Sync + 'a;

/// Threads that wait for work. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Locked by whoever uses the workers.
    in_use: Mutex<()>,
}

#[derive(Default)]
struct Shared {
    /// Whoever does the work has it locked for reading meanwhile.
    work: RwLock<Option<&'static Work<'static>>>,
    /// Another number whenever there is work, or the end has come.
    turn: AtomicUsize,
    /// Where the thread that brings the work runs.
    processor: AtomicUsize,
    is_over: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts as many threads, or fewer if the system gives no more.
    pub(super) fn new(workers: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |_| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("releq".to_owned()).spawn(move || shared.serve()).ok()
        };
        let workers = (0..workers).map_while(start).collect();
        Self { shared, workers, in_use: Mutex::new(()) }
    }

    /// Calls `own` on this thread and, in the meantime, `work` on up to `workers` others: on each at most once, and on none that
    /// is not awake before `own` ends. So `own` must do whatever they leave undone. Returns when all calls have.
    ///
    /// # Panics
    /// If one of the calls does.
    pub(super) fn run(&self, workers: usize, own: impl FnOnce(), work: &Work<'_>) {
        let in_use = match self.in_use.try_lock() {
            Ok(in_use) => in_use,
            Err(TryLockError::Poisoned(in_use)) => in_use.into_inner(),
            Err(TryLockError::WouldBlock) => return own(),
        };
        // SAFETY: only the lifetime changes. Workers find the reference in `shared.work` alone and use it while they hold the
        // lock. Below, it is taken out of there, which waits for that lock, before this function returns; and between here
        // and there nothing unwinds. No other call puts a reference there, because of `in_use`.
        let work = unsafe { mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        *self.shared.work.write().unwrap_or_else(PoisonError::into_inner) = Some(work);
        self.shared.processor.store(place::processor(), Relaxed);
        self.shared.turn.fetch_add(1, Release);
        for worker in self.workers.iter().take(workers) {
            worker.thread().unpark();
        }
        let own = catch_unwind(AssertUnwindSafe(own));
        self.shared.take_work();
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(in_use);
        if let Some(payload) = own.err().or(panic) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        self.shared.turn.fetch_add(1, Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Panics of the work were passed on, and nothing else panics there.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// What a worker does.
    fn serve(&self) {
        let mut turn = 0;
        loop {
            turn = self.turn_after(turn);
            if self.is_over.load(Relaxed) {
                return;
            }
            // For who comes late, the work is gone, or is being taken away.
            let Ok(work) = self.work.try_read() else { continue };
            if let Some(work) = *work
                && let Err(payload) = catch_unwind(AssertUnwindSafe(work))
            {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
        }
    }

    /// Waits for another turn than `last`: awake for a while, then asleep.
    fn turn_after(&self, last: usize) -> usize {
        let turn = || Some(self.turn.load(Acquire)).filter(|&turn| turn != last);
        if let Some(turn) = look_out(turn) {
            return turn;
        }
        loop {
            // If the turn changes in between, `park` returns at once.
            thread::park();
            if let Some(turn) = turn() {
                let processor = self.processor.load(Relaxed);
                if place::processor() == processor {
                    place::leave(processor);
                }
                return turn;
            }
        }
    }

    /// Takes the work away as soon as no worker does it any more.
    fn take_work(&self) {
        let unused = || match self.work.try_write() {
            Ok(work) => Some(work),
            Err(TryLockError::Poisoned(work)) => Some(work.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let wait = || self.work.write().unwrap_or_else(PoisonError::into_inner);
        *look_out(unused).unwrap_or_else(wait) = None;
    }
}

/// Looks again and again, for as long as a thread stays awake.
fn look_out<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = look() {
                return Some(found);
            }
            hint::spin_loop();
        }
        if start.elapsed() > AWAKE {
            return None;
        }
    }
}
