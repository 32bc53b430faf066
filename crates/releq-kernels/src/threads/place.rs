//! Which processor a thread runs on.
//!
//! Linux often wakes a thread on the processor of the thread that wakes it, where each waits for the other, and leaves them there for
//! tens of milliseconds: on two processors nearly always. So threads that were asleep look where they are. Miri has no processors.

/// Number of the processor that this thread runs on.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn processor() -> usize {
    rustix::thread::sched_getcpu()
}

/// Moves this thread to another processor than that one, if it may run elsewhere. Afterwards it may run wherever it might before.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn leave(processor: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    // Where this fails, the thread stays where it is, which is only slower.
    let Ok(all) = sched_getaffinity(None) else { return };
    let mut others = all;
    if processor < CpuSet::MAX_CPU {
        others.unset(processor);
    }
    if others.count() > 0 && sched_setaffinity(None, &others).is_ok() {
        let _ = sched_setaffinity(None, &all);
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
pub(super) fn processor() -> usize {
    0
}

#[cfg(not(all(target_os = "linux", not(miri))))]
pub(super) fn leave(_processor: usize) {}
