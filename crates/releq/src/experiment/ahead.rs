//! Long retrains that are wanted whatever the searches find, done while workers would stand idle.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use releq_core::{BitwidthAssignment, Weights};

use super::seeds::Final;
use crate::{Cancel, ReleqError};

/// What a long retrain gives.
pub(super) type LongAnswer = (Final, Option<Weights>);

/// How often it is looked whether there are more workers than before.
const LOOK: Duration = Duration::from_secs(1);

/// Long retrains that are begun before anybody asks for them.
pub(super) struct Ahead<'a> {
    state: Mutex<State>,
    changed: Condvar,
    /// How many retrains all workers do at a time, now.
    width: &'a (dyn Fn() -> usize + Sync),
    /// The first long retrain of an assignment.
    retrain: &'a (dyn Fn(&BitwidthAssignment, &Cancel) -> Result<LongAnswer, ReleqError> + Sync),
    /// Made where nobody will ask for what is under way.
    cancel: Cancel,
}

#[derive(Default)]
struct State {
    /// What nobody has begun.
    waiting: VecDeque<BitwidthAssignment>,
    under_way: Vec<BitwidthAssignment>,
    done: BTreeMap<BitwidthAssignment, LongAnswer>,
    over: bool,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(
        wanted: impl IntoIterator<Item = BitwidthAssignment>,
        width: &'a (dyn Fn() -> usize + Sync),
        retrain: &'a (
                dyn Fn(&BitwidthAssignment, &Cancel) -> Result<LongAnswer, ReleqError> + Sync
            ),
        cancel: &Cancel,
    ) -> Self {
        let waiting = wanted.into_iter().collect();
        let state = Mutex::new(State { waiting, ..State::default() });
        Self { state, changed: Condvar::new(), width, retrain, cancel: cancel.part() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what `main` does, and the retrains beside it until that [asks for them](Self::close) itself or ends.
    pub(super) fn beside<T>(&self, main: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            let threads = self.lock().waiting.len();
            for _ in 0..threads {
                // Without a thread, whoever wants the retrain does it.
                if thread::Builder::new().spawn_scoped(scope, || self.work()).is_err() {
                    break;
                }
            }
            let _end = Closing(self);
            main()
        })
    }

    /// Half of the workers are left to the searches, whose short retrains would wait behind the long ones.
    fn work(&self) {
        loop {
            let room = (self.width)() / 2;
            let mut state = self.lock();
            if state.over || state.waiting.is_empty() {
                return;
            }
            if state.under_way.len() >= room {
                // Looks again when one of them is done, or there may be more workers.
                drop(self.changed.wait_timeout(state, LOOK));
                continue;
            }
            let Some(bits) = state.waiting.pop_front() else { return };
            state.under_way.push(bits.clone());
            drop(state);
            let retrained = (self.retrain)(&bits, &self.cancel);
            let mut state = self.lock();
            state.under_way.retain(|other| *other != bits);
            // Whoever wants one that failed asks again, and gets the error.
            if let Ok(retrained) = retrained {
                state.done.insert(bits, retrained);
            }
            self.changed.notify_all();
        }
    }

    /// Begins no more.
    pub(super) fn close(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Whether the retrain of an assignment has come to its end.
    pub(super) fn has(&self, bits: &BitwidthAssignment) -> bool {
        self.lock().done.contains_key(bits)
    }

    /// The retrain of an assignment if it was begun, once it has come to its end.
    pub(super) fn take(&self, bits: &BitwidthAssignment) -> Option<LongAnswer> {
        let mut state = self.lock();
        state.waiting.retain(|other| other != bits);
        while state.under_way.contains(bits) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.done.remove(bits)
    }
}

/// Ends what is beside with what it is beside, also where a panic passes: threads would wait for ever.
struct Closing<'c, 'a>(&'c Ahead<'a>);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn bits(bits: u8) -> BitwidthAssignment {
        BitwidthAssignment::from_bits(vec![bits]).unwrap()
    }

    #[test]
    fn half_of_the_workers_do_what_is_wanted_and_whoever_asks_gets_it() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let retrain = |asked: &BitwidthAssignment, _: &Cancel| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(5));
            now.fetch_sub(1, Ordering::SeqCst);
            match asked.to_bits()[0] {
                4 => Err(ReleqError::Other("this one fails".into())),
                bits => Ok((Err(format!("{bits} bits")), None)),
            }
        };
        let (width, cancel) = (|| 5, Cancel::new());
        let ahead = Ahead::new((1..=8).map(bits), &width, &retrain, &cancel);
        ahead.beside(|| {
            while !(1..=8).all(|b| b == 4 || ahead.has(&bits(b))) {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(most.load(Ordering::SeqCst), 2);
            assert_eq!(ahead.take(&bits(3)), Some((Err("3 bits".to_owned()), None)));
            assert_eq!(ahead.take(&bits(3)), None, "another retrain is wanted");
            assert_eq!(ahead.take(&bits(4)), None, "whoever asks again gets the error");
        });
    }

    #[test]
    fn nothing_goes_on_once_nobody_will_ask() {
        let begun = AtomicUsize::new(0);
        let retrain = |_: &BitwidthAssignment, cancel: &Cancel| {
            begun.fetch_add(1, Ordering::SeqCst);
            while !cancel.is_cancelled() {
                thread::sleep(Duration::from_millis(1));
            }
            Err(ReleqError::Cancelled)
        };
        let (width, cancel) = (|| 4, Cancel::new());
        let ahead = Ahead::new((1..=8).map(bits), &width, &retrain, &cancel);
        ahead.beside(|| {
            while begun.load(Ordering::SeqCst) < 2 {
                thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        assert!(!cancel.is_cancelled(), "the run goes on");
        // With a single worker nothing is begun.
        let one = || 1;
        Ahead::new([bits(2)], &one, &retrain, &cancel).beside(|| ());
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }
}
