//! Workers that answer at once from the record of a run, and what is asked of them.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use releq::{
    Cancel, RecordedRetrain, RecordedRetrains, ReleqError,
    core::BitwidthAssignment,
    evaluate::Evaluation,
    jobs::{Bench, Job, JobAnswer, Task, Workers},
    train::Hits,
};

/// Answers and durations of one kind of retrain.
#[derive(Debug)]
struct Known<T> {
    answers: Vec<(BitwidthAssignment, T)>,
    seconds: BTreeMap<BitwidthAssignment, f64>,
    /// The same in their order.
    all: Vec<f64>,
}

impl<T: Clone> Known<T> {
    /// `at_once` is how many were under way at a time: from one answer to the one so many later, a retrain passes.
    fn new(recorded: &[RecordedRetrain<T>], at_once: usize, since: f64) -> Self {
        let answers = recorded.iter().map(|one| (one.bits.clone(), one.answer.clone())).collect();
        let mut ends: Vec<(f64, &BitwidthAssignment)> = recorded
            .iter()
            .filter(|one| one.run_seconds > 0.0)
            .map(|one| (one.run_seconds, &one.bits))
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let seconds: BTreeMap<_, _> = ends
            .iter()
            .enumerate()
            .filter_map(|(place, &(end, bits))| {
                let begun = match place.checked_sub(at_once) {
                    Some(before) => ends[before].0,
                    None => since,
                };
                (end > begun).then(|| (bits.clone(), end - begun))
            })
            .collect();
        let all = seconds.values().copied().collect();
        Self { answers, seconds, all }
    }

    /// The answer of the assignment, or of the nearest on record.
    fn answer(&self, bits: &BitwidthAssignment) -> Option<T> {
        let far = |other: &BitwidthAssignment| -> u32 {
            let pairs = bits.to_bits().into_iter().zip(other.to_bits());
            pairs.map(|(a, b)| u32::from(a.abs_diff(b))).sum()
        };
        self.answers.iter().min_by_key(|(other, _)| far(other)).map(|(_, answer)| answer.clone())
    }

    /// The seconds of the assignment, or of any on record, always the same for the same seed.
    fn seconds(&self, bits: &BitwidthAssignment, seed: u64) -> f64 {
        if let Some(seconds) = self.seconds.get(bits) {
            return *seconds;
        }
        let of_bits = |sum: u64, bits: u8| sum.wrapping_mul(31).wrapping_add(bits.into());
        let mut rng = ChaCha8Rng::seed_from_u64(bits.to_bits().into_iter().fold(seed, of_bits));
        self.all.get(rng.random_range(0..self.all.len().max(1))).copied().unwrap_or_default()
    }
}

/// The retrains of a run on record.
#[derive(Debug)]
pub(super) struct Record {
    short: Known<Evaluation>,
    long: Known<Result<[Hits; 2], String>>,
    seed: u64,
}

impl Record {
    /// `at_once` retrains of the run were under way at a time. `search` and `finals` are when the first of each kind began,
    /// in seconds of the run.
    ///
    /// # Errors
    /// If there is nothing to draw durations from.
    pub(super) fn new(
        recorded: &RecordedRetrains,
        at_once: usize,
        (search, finals): (f64, f64),
        seed: u64,
    ) -> Result<Self> {
        let short = Known::new(&recorded.short, at_once, search);
        let long = Known::new(&recorded.long, at_once, finals);
        ensure!(
            !short.all.is_empty() && !long.all.is_empty(),
            "the run has no retrains of its own on record, short and long ones; name one that has come to its end"
        );
        Ok(Self { short, long, seed })
    }

    /// Seconds that a job takes.
    pub(super) fn seconds(&self, job: &Job) -> f64 {
        match job.task {
            Task::Long { again, .. } => self.long.seconds(&job.bits, self.seed ^ again as u64),
            _ => self.short.seconds(&job.bits, self.seed),
        }
    }

    /// Mean seconds of the short and of the long retrains on record.
    pub(super) fn means(&self) -> [f64; 2] {
        [&self.short.all, &self.long.all].map(|all| all.iter().sum::<f64>() / all.len() as f64)
    }
}

/// Workers that answer at once, and remember which long retrains were asked for together.
#[derive(Debug)]
pub(super) struct Replay {
    record: Arc<Record>,
    width: usize,
    rounds: Mutex<Vec<Vec<Job>>>,
}

impl Replay {
    pub(super) fn new(record: Arc<Record>, width: usize) -> Self {
        Self { record, width, rounds: Mutex::default() }
    }

    /// What is asked for from now on is asked for together.
    pub(super) fn next_round(&self) {
        self.rounds().push(Vec::new());
    }

    /// The long retrains, round by round.
    pub(super) fn taken(&self) -> Vec<Vec<Job>> {
        let mut rounds = mem::take(&mut *self.rounds());
        // Threads have asked in any order.
        let again = |job: &Job| matches!(job.task, Task::Long { again, .. } if again > 0);
        for round in &mut rounds {
            round.sort_by(|a, b| (again(a), &a.bits).cmp(&(again(b), &b.bits)));
        }
        rounds
    }

    fn rounds(&self) -> MutexGuard<'_, Vec<Vec<Job>>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers for Replay {
    fn width(&self) -> usize {
        self.width
    }

    fn carry_out(
        &self,
        bench: &Arc<Bench>,
        job: &Job,
        cancel: &Cancel,
    ) -> Result<JobAnswer, ReleqError> {
        if cancel.is_cancelled() {
            return Err(ReleqError::Cancelled);
        }
        if matches!(job.task, Task::Long { .. })
            && let Some(round) = self.rounds().last_mut()
        {
            round.push(job.clone());
        }
        let none = || ReleqError::Other("nothing is on record".into());
        Ok(match job.task {
            Task::Long { weights, .. } => JobAnswer::Long {
                retrained: self.record.long.answer(&job.bits).ok_or_else(none)?,
                weights: weights.then(|| bench.weights().clone()),
            },
            _ => JobAnswer::Short(self.record.short.answer(&job.bits).ok_or_else(none)?),
        })
    }

    fn name(&self) -> &str {
        "simulated workers"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_on_record_or_drawn_from_them_by_the_seed() {
        let known = |at_once: usize| Known::<u8>::new(&recorded(), at_once, 10.0);
        let seconds = |known: &Known<u8>, bits: &str| known.seconds(&bits.parse().unwrap(), 1);
        let one = known(1);
        assert_eq!(one.all.len(), 3, "what was taken over has no duration");
        assert_eq!(["2-2", "3-3", "4-4"].map(|bits| seconds(&one, bits)), [1.0, 2.0, 4.0]);
        // Two at a time: from the answer before the last one.
        assert_eq!(["2-2", "3-3", "4-4"].map(|bits| seconds(&known(2), bits)), [1.0, 3.0, 6.0]);
        let drawn = seconds(&one, "8-8");
        assert!(one.all.contains(&drawn) && seconds(&one, "8-8") == drawn);
        assert_eq!(one.answer(&"5-7".parse().unwrap()), Some(5));
    }

    fn recorded() -> Vec<RecordedRetrain<u8>> {
        let answers = [("5-5", 5, 0.0), ("2-2", 2, 11.0), ("3-3", 3, 13.0), ("4-4", 4, 17.0)];
        let one = |(bits, answer, run_seconds): (&str, u8, f64)| RecordedRetrain {
            bits: bits.parse().unwrap(),
            answer,
            run_seconds,
        };
        answers.map(one).into()
    }
}
