//! Never measures the same assignment twice.

use std::{
    collections::{HashMap, HashSet},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use releq_core::BitwidthAssignment;

use super::{Evaluation, Evaluator, each_unknown};
use crate::ReleqError;

/// Remembers every answer of `E`, so that several searches share what one of them has measured, also those that go on at the
/// same time: whoever asks for what is being measured waits for it.
#[derive(Debug)]
pub struct Cached<E> {
    inner: E,
    answers: Mutex<Answers>,
    /// A measurement has ended, with an answer or without.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Answers {
    known: HashMap<BitwidthAssignment, Evaluation>,
    /// What somebody is measuring.
    begun: HashSet<BitwidthAssignment>,
}

/// What one caller measures. It is free for others when this is dropped.
struct Claim<'c, E> {
    cache: &'c Cached<E>,
    claimed: Vec<BitwidthAssignment>,
}

impl<E> Drop for Claim<'_, E> {
    fn drop(&mut self) {
        let mut answers = self.cache.lock();
        for bits in &self.claimed {
            answers.begun.remove(bits);
        }
        self.cache.ended.notify_all();
    }
}

impl<E> Cached<E> {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes on what nobody has measured, and nobody is measuring.
    fn claim(&self, batch: &[BitwidthAssignment]) -> Claim<'_, E> {
        let mut answers = self.lock();
        let free = |answers: &mut Answers, bits: &BitwidthAssignment| {
            !answers.known.contains_key(bits) && answers.begun.insert(bits.clone())
        };
        let claimed = batch.iter().filter(|bits| free(&mut answers, bits)).cloned().collect();
        Claim { cache: self, claimed }
    }

    /// Waits until nobody measures any of these.
    fn wait(&self, batch: &[BitwidthAssignment]) {
        let mut answers = self.lock();
        while batch.iter().any(|bits| answers.begun.contains(bits)) {
            answers = self.ended.wait(answers).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<E: Evaluator> Cached<E> {
    /// An empty cache in front of `inner`.
    pub fn new(inner: E) -> Self {
        Self { inner, answers: Mutex::default(), ended: Condvar::new() }
    }

    /// Number of assignments measured so far.
    pub fn len(&self) -> usize {
        self.lock().known.len()
    }

    /// Whether nothing was measured yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The evaluator behind the cache.
    pub const fn inner(&self) -> &E {
        &self.inner
    }

    fn known(&self, bits: &BitwidthAssignment) -> Option<Evaluation> {
        self.lock().known.get(bits).cloned()
    }

    fn keep(&self, bits: &BitwidthAssignment, answer: &Evaluation) {
        let mut answers = self.lock();
        answers.known.insert(bits.clone(), answer.clone());
        answers.begun.remove(bits);
        self.ended.notify_all();
    }
}

impl<E: Evaluator> Evaluator for Cached<E> {
    fn full_precision(&self) -> f64 {
        self.inner.full_precision()
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        loop {
            if let Some(known) = self.known(bits) {
                return Ok(known);
            }
            let batch = std::slice::from_ref(bits);
            let claim = self.claim(batch);
            if claim.claimed.is_empty() {
                self.wait(batch);
                continue;
            }
            let answer = self.inner.evaluate(bits)?;
            self.keep(bits, &answer);
            return Ok(answer);
        }
    }

    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        let known = |bits: &BitwidthAssignment| self.known(bits);
        let keep = |bits: &BitwidthAssignment, answer: &Evaluation| {
            self.keep(bits, answer);
            Ok(answer.clone())
        };
        let mut answers: Vec<Option<Evaluation>> = vec![None; batch.len()];
        // One's own share first, so that nobody waits for somebody who waits for him.
        loop {
            let claim = self.claim(batch);
            let (mut ready, mut rest) = (Vec::new(), Vec::new());
            for place in (0..batch.len()).filter(|&place| answers[place].is_none()) {
                let bits = &batch[place];
                let is_ready = claim.claimed.contains(bits) || self.known(bits).is_some();
                if is_ready { ready.push(place) } else { rest.push(place) }
            }
            let asked: Vec<_> = ready.iter().map(|&place| batch[place].clone()).collect();
            let told = |place: usize, answer: &Evaluation| answered(ready[place], answer);
            let new = each_unknown(&self.inner, &asked, &known, &keep, &told)?;
            drop(claim);
            for (place, answer) in ready.into_iter().zip(new) {
                answers[place] = Some(answer);
            }
            if rest.is_empty() {
                return Ok(answers.into_iter().flatten().collect());
            }
            self.wait(&rest.iter().map(|&place| batch[place].clone()).collect::<Vec<_>>());
        }
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
        time::Duration,
    };

    use super::*;

    /// Counts, and takes so long that callers meet. The first of all evaluations fails.
    struct Slow {
        asked: AtomicUsize,
    }

    impl Evaluator for Slow {
        fn full_precision(&self) -> f64 {
            0.9
        }

        fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
            let first = self.asked.fetch_add(1, Ordering::Relaxed) == 0;
            thread::sleep(Duration::from_millis(20));
            if first {
                return Err(ReleqError::Other("the first one fails".into()));
            }
            Ok(Evaluation::new(f64::from(bits.to_bits()[0]) / 10.0))
        }
    }

    #[test]
    fn callers_that_meet_measure_everything_once() {
        let cached = Cached::new(Slow { asked: AtomicUsize::new(0) });
        let bits = |b: u8| BitwidthAssignment::from_bits(vec![b]).unwrap();
        cached.evaluate(&bits(8)).unwrap_err();
        let (callers, start) = (4, Barrier::new(4));
        thread::scope(|scope| {
            for caller in 0..callers {
                let (cached, start) = (&cached, &start);
                scope.spawn(move || {
                    // Everybody begins elsewhere, so that all wait for others.
                    let mut batch: Vec<_> = (1..=8).map(bits).collect();
                    batch.rotate_left(2 * caller);
                    start.wait();
                    let told = AtomicUsize::new(0);
                    let answers = cached.evaluate_each(&batch, &|place, answer| {
                        told.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(answer, &cached.evaluate(&batch[place])?);
                        Ok(())
                    });
                    let answers = answers.unwrap();
                    for (bits, answer) in batch.iter().zip(answers) {
                        let accuracy = f64::from(bits.to_bits()[0]) / 10.0;
                        assert_eq!(answer.accuracy(), Some(accuracy));
                    }
                    assert_eq!(told.into_inner(), 8);
                });
            }
        });
        assert_eq!(cached.inner().asked.load(Ordering::Relaxed), 1 + 8);
        assert_eq!(cached.len(), 8);
    }

    #[test]
    fn what_fails_with_one_caller_is_left_to_the_next() {
        let cached = Cached::new(Slow { asked: AtomicUsize::new(0) });
        let bits = BitwidthAssignment::from_bits(vec![4]).unwrap();
        let results: Vec<_> = thread::scope(|scope| {
            let ask = || scope.spawn(|| cached.evaluate(&bits).is_ok());
            let asked: Vec<_> = (0..3).map(|_| ask()).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|ok| !**ok).count(), 1, "{results:?}");
        assert_eq!(cached.inner().asked.load(Ordering::Relaxed), 2);
    }
}
