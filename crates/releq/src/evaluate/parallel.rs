//! Several evaluations side by side.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use releq_core::BitwidthAssignment;

use super::{Evaluation, Evaluator};
use crate::{ReleqError, guard::guard};

/// Evaluates batches of `E` on several threads; the answers do not depend on how many.
#[derive(Clone, Debug)]
pub struct Parallel<E> {
    inner: E,
    threads: NonZeroUsize,
}

impl<E: Evaluator> Parallel<E> {
    /// Up to `threads` evaluations of `inner` side by side.
    pub const fn new(inner: E, threads: NonZeroUsize) -> Self {
        Self { inner, threads }
    }

    /// The evaluator behind the threads.
    pub const fn inner(&self) -> &E {
        &self.inner
    }
}

impl<E: Evaluator> Evaluator for Parallel<E> {
    fn full_precision(&self) -> f64 {
        self.inner.full_precision()
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        self.inner.evaluate(bits)
    }

    fn evaluate_batch(&self, batch: &[BitwidthAssignment]) -> Result<Vec<Evaluation>, ReleqError> {
        let piece = || format!("evaluator `{}`", self.inner.name());
        in_parallel(batch, self.threads, |bits| guard(piece, || self.inner.evaluate(bits)))
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

/// Maps `f` over `items` on up to `threads` threads, keeping their order.
pub(crate) fn in_parallel<T: Sync, R: Send, X: Send>(
    items: &[T],
    threads: NonZeroUsize,
    f: impl Fn(&T) -> Result<R, X> + Sync,
) -> Result<Vec<R>, X> {
    let threads = threads.get().min(items.len());
    if threads <= 1 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<R, X>)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let answer = f(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, answer));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, answer)| answer).collect()
}
