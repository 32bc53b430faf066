//! What a run asks its workers for, from its report and its long retrains.

use std::collections::{BTreeMap, BTreeSet};

use releq::{
    FinalRow, Report, SearchOutcome,
    core::BitwidthAssignment,
    jobs::{Job, Task},
};

use super::{
    replay::Record,
    schedule::{Asked, Round},
};
use crate::plot::{Facts, RowKind};

/// Numbers of jobs that were met.
struct Numbered<'r> {
    record: &'r Record,
    /// By the assignment, and the place among its long retrains where it is one.
    jobs: BTreeMap<(BitwidthAssignment, Option<usize>), usize>,
    seconds: Vec<f64>,
}

impl Numbered<'_> {
    fn number(&mut self, job: &Job) -> usize {
        let again = match job.task {
            Task::Long { again, .. } => Some(again),
            _ => None,
        };
        let Self { record, jobs, seconds } = self;
        *jobs.entry((job.bits.clone(), again)).or_insert_with(|| {
            seconds.push(record.seconds(job));
            seconds.len() - 1
        })
    }

    /// The batches of a search.
    fn rounds(&mut self, search: &SearchOutcome, full_precision: f64) -> Vec<Round> {
        let mut before = 0;
        let mut rounds = Vec::new();
        for batch in &search.history {
            let scored = &search.scored[before..batch.evaluations];
            before = batch.evaluations;
            let task = Task::Short { full_precision };
            let job = |bits: &BitwidthAssignment| Job { bits: bits.clone(), task };
            rounds.push(scored.iter().map(|scored| self.number(&job(&scored.bits))).collect());
        }
        rounds
    }
}

impl Asked {
    /// By a run with this report, and these long retrains, round by round. Of one worker, the first round has what is wanted whatever
    /// the searches find; the runs of others have that on record.
    pub(super) fn by(report: &Report, long: Vec<Vec<Job>>, record: &Record) -> Self {
        let (jobs, seconds) = (BTreeMap::new(), Vec::new());
        let mut numbered = Numbered { record, jobs, seconds };
        let full_precision = report.full_precision_validation;
        let agent = numbered.rounds(&report.search, full_precision);
        let of_rival = |rival: &SearchOutcome| {
            let rounds = numbered.rounds(rival, full_precision);
            // The last batch may be smaller.
            (rounds.iter().map(Vec::len).max().unwrap_or(1), rounds)
        };
        let rivals = report.comparisons.iter().map(of_rival).collect();
        let facts = Facts::new(report, &[]);
        let of_search =
            |row: &FinalRow| matches!(facts.row_kind(row), RowKind::Agent | RowKind::Rival);
        let mut seen = BTreeSet::new();
        let wanted = report.rows.iter().filter(|row| !of_search(row));
        let wanted = wanted.filter(|row| seen.insert(&row.bits)).map(|row| Job {
            bits: row.bits.clone(),
            task: Task::Long { again: 0, weights: true },
        });
        let ahead = wanted.map(|job| numbered.number(&job)).collect();
        let finals = long
            .iter()
            .map(|round| round.iter().map(|job| numbered.number(job)).collect())
            .collect();
        let seconds = numbered.seconds;
        Self { seconds, agent, between: 0.0, rivals, ahead, finals }
    }

    /// Seconds of all retrains.
    pub(super) fn work(&self) -> f64 {
        self.seconds.iter().sum()
    }

    /// How many short and how many long retrains.
    pub(super) fn jobs(&self) -> [usize; 2] {
        let searches = self.rivals.iter().map(|(_, rounds)| rounds).chain([&self.agent]);
        let short = searches.flatten().flatten().collect::<BTreeSet<_>>().len();
        [short, self.seconds.len() - short]
    }
}
