//! The queue of jobs with simulated workers, in virtual time.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What of workers and queue the time depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workers {
    pub(super) count: usize,
    /// Seconds beside each retrain for queue and journal.
    pub(super) beside: f64,
    /// Share of the jobs that a worker takes and dies at.
    pub(super) deaths: f64,
    /// Seconds until a job whose worker has died is given out again.
    pub(super) lease: f64,
    /// Seconds until a worker that has died is there again.
    pub(super) back_after: f64,
}

/// Workers that take one job at a time, the one first that has waited longest, as those at a server do. A job whose worker
/// dies comes back before all others when its lease ends.
#[derive(Debug)]
pub(super) struct Queue {
    workers: Workers,
    /// When each worker is free.
    free: Vec<f64>,
    now: f64,
    deaths: usize,
    rng: ChaCha8Rng,
}

impl Queue {
    pub(super) fn new(workers: Workers, seed: u64) -> Self {
        let (free, rng) = (vec![0.0; workers.count], ChaCha8Rng::seed_from_u64(seed));
        Self { workers, free, now: 0.0, deaths: 0, rng }
    }

    /// Seconds since the beginning.
    pub(super) const fn now(&self) -> f64 {
        self.now
    }

    /// Workers that have died.
    pub(super) const fn deaths(&self) -> usize {
        self.deaths
    }

    /// Whoever asks for jobs does something else for so long.
    pub(super) fn pass(&mut self, seconds: f64) {
        self.now += seconds;
    }

    /// Jobs that take so many seconds each are asked for together, and all of their answers are waited for.
    pub(super) fn round(&mut self, jobs: &[f64]) {
        let Workers { beside, deaths, lease, back_after, .. } = self.workers;
        let mut fresh: VecDeque<f64> = jobs.iter().copied().collect();
        // Those that come back, with the time at which they do.
        let mut again: Vec<(f64, f64)> = Vec::new();
        let mut end = self.now;
        while !(fresh.is_empty() && again.is_empty()) {
            let Some((worker, free)) = least(self.free.iter().copied()) else { return };
            let free = free.max(self.now);
            let (start, seconds) = match least(again.iter().map(|(when, _)| *when)) {
                Some((place, when)) if when <= free || fresh.is_empty() => {
                    (free.max(when), again.swap_remove(place).1)
                }
                _ => match fresh.pop_front() {
                    Some(seconds) => (free, seconds),
                    None => return,
                },
            };
            let lasts = seconds + beside;
            if self.rng.random_bool(deaths) {
                let died = start + lasts * self.rng.random::<f64>();
                again.push((died + lease, seconds));
                self.free[worker] = died + back_after;
                self.deaths += 1;
            } else {
                self.free[worker] = start + lasts;
                end = end.max(start + lasts);
            }
        }
        self.now = end;
    }
}

/// The place of the least number, and the number.
fn least(numbers: impl Iterator<Item = f64>) -> Option<(usize, f64)> {
    numbers.enumerate().min_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(count: usize) -> Workers {
        Workers { count, beside: 0.0, deaths: 0.0, lease: 30.0, back_after: 60.0 }
    }

    fn time(workers: Workers, rounds: &[&[f64]]) -> f64 {
        let mut queue = Queue::new(workers, 1);
        rounds.iter().for_each(|jobs| queue.round(jobs));
        queue.now()
    }

    #[test]
    fn jobs_are_taken_in_their_order_by_whoever_is_free() {
        assert_eq!(time(workers(1), &[&[3.0, 1.0, 2.0]]), 6.0);
        assert_eq!(time(workers(2), &[&[3.0, 1.0, 2.0]]), 3.0);
        // The long one comes last, so that two workers wait for the third.
        assert_eq!(time(workers(3), &[&[1.0, 1.0, 1.0, 5.0]]), 6.0);
        assert_eq!(time(workers(1000), &[&[1.0, 2.0], &[4.0], &[]]), 6.0);
        let beside = Workers { beside: 0.5, ..workers(1) };
        assert_eq!(time(beside, &[&[1.0, 1.0]]), 3.0);
        let mut queue = Queue::new(workers(4), 1);
        queue.pass(7.0);
        queue.round(&[1.0; 5]);
        assert_eq!((queue.now(), queue.deaths()), (9.0, 0));
    }

    #[test]
    fn jobs_of_workers_that_die_are_done_after_their_lease() {
        let mortal = Workers { deaths: 0.3, ..workers(8) };
        let jobs = [2.0; 200];
        let mut queue = Queue::new(mortal, 5);
        queue.round(&jobs);
        assert!((30..120).contains(&queue.deaths()), "{}", queue.deaths());
        // Nothing is lost, so that it takes as long as its work and the leases ask for.
        assert!(queue.now() > time(workers(8), &[&jobs]) + 30.0, "{}", queue.now());
        let mut same = Queue::new(mortal, 5);
        same.round(&jobs);
        assert_eq!(same.now(), queue.now(), "the seed decides");
        // One worker, which is away longer than the lease: its return is what is waited for.
        let one = Workers { deaths: 0.5, ..workers(1) };
        let mut alone = Queue::new(one, 1);
        alone.round(&[1.0; 20]);
        let (deaths, now) = (alone.deaths() as f64, alone.now());
        assert!(
            deaths > 0.0 && now >= 20.0 + 60.0 * deaths && now <= 20.0 + 61.0 * deaths,
            "{now}"
        );
    }
}
