//! Simulated workers, and who asks them for what and when, in virtual time.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, BinaryHeap, VecDeque},
};

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

/// Jobs that are asked for together, by their numbers; what comes next waits for all of them.
pub(super) type Round = Vec<usize>;

/// What a run asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Seconds that each job takes.
    pub(super) seconds: Vec<f64>,
    /// By the agent's search.
    pub(super) agent: Vec<Round>,
    /// Seconds that it takes for itself before each round.
    pub(super) between: f64,
    /// By the searches that it is compared with, and how many evaluations each of them asks for at a time.
    pub(super) rivals: Vec<(usize, Vec<Round>)>,
    /// The long retrains that are wanted whatever the searches find.
    pub(super) ahead: Vec<usize>,
    /// The long retrains after the searches, beside those.
    pub(super) finals: Vec<Round>,
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Passed {
    /// Seconds until all searches had ended.
    pub(super) searched: f64,
    /// Seconds until everything had.
    pub(super) all: f64,
    /// Workers that have died.
    pub(super) deaths: usize,
}

/// Lets workers do all that is asked for. The rules of who asks when are those of a run: see `Ahead` and `Lead` of `releq`.
pub(super) fn pass(asked: &Asked, workers: Workers, seed: u64) -> Passed {
    let mut searches: Vec<Chain<'_>> =
        asked.rivals.iter().map(|(batch, rounds)| Chain::new(rounds, *batch)).collect();
    searches.insert(AGENT, Chain::new(&asked.agent, 0));
    let mut run = Simulation {
        asked,
        workers,
        rng: ChaCha8Rng::seed_from_u64(seed),
        jobs: vec![Job::New; asked.seconds.len()],
        queue: VecDeque::new(),
        idle: workers.count,
        events: BinaryHeap::new(),
        told: 0,
        searches,
        finals: Chain::new(&asked.finals, 0),
        ahead: asked.ahead.iter().copied().collect(),
        ahead_under_way: BTreeSet::new(),
        passed: Passed::default(),
    };
    for chain in 0..run.searches.len() {
        run.plan_turn(0.0, chain);
    }
    while let Some(Planned { when, event, .. }) = run.events.pop() {
        run.happen(when, event);
        run.begin_ahead();
        run.give_out(when);
    }
    run.passed
}

/// The agent's place among the searches.
const AGENT: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Job {
    New,
    Asked,
    Done,
}

/// Whose rounds follow each other.
#[derive(Debug)]
struct Chain<'a> {
    rounds: &'a [Round],
    next: usize,
    /// Evaluations asked for so far.
    asked: usize,
    /// How many it asks for at a time.
    batch: usize,
    missing: BTreeSet<usize>,
    /// Whether it waits for the agent's search to come further.
    held: bool,
    over: bool,
}

impl<'a> Chain<'a> {
    const fn new(rounds: &'a [Round], batch: usize) -> Self {
        let missing = BTreeSet::new();
        Self { rounds, next: 0, asked: 0, batch, missing, held: false, over: false }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Done(usize),
    /// A job whose worker has died is there again.
    Again(usize),
    /// A worker that has died is there again.
    Back,
    /// A search asks for its next round.
    Turn(usize),
    /// So do the long retrains.
    Finals,
}

/// An event, when it happens, and how many were planned before it.
#[derive(Clone, Copy, Debug)]
struct Planned {
    when: f64,
    place: usize,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The earliest is the greatest, which a heap gives first.
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        other.when.total_cmp(&self.when).then(other.place.cmp(&self.place))
    }
}

struct Simulation<'a> {
    asked: &'a Asked,
    workers: Workers,
    rng: ChaCha8Rng,
    jobs: Vec<Job>,
    queue: VecDeque<usize>,
    idle: usize,
    events: BinaryHeap<Planned>,
    /// Events planned so far.
    told: usize,
    searches: Vec<Chain<'a>>,
    finals: Chain<'a>,
    ahead: VecDeque<usize>,
    ahead_under_way: BTreeSet<usize>,
    passed: Passed,
}

impl Simulation<'_> {
    fn plan(&mut self, when: f64, event: Event) {
        self.events.push(Planned { when, place: self.told, event });
        self.told += 1;
    }

    /// A search has all that it asked for. Only the agent thinks before it asks again.
    fn plan_turn(&mut self, now: f64, chain: usize) {
        let search = &self.searches[chain];
        let thinks = chain == AGENT && search.next < search.rounds.len();
        self.plan(now + if thinks { self.asked.between } else { 0.0 }, Event::Turn(chain));
    }

    fn happen(&mut self, now: f64, event: Event) {
        match event {
            Event::Done(job) => {
                self.jobs[job] = Job::Done;
                self.idle += 1;
                self.passed.all = now;
                self.ahead_under_way.remove(&job);
                for chain in 0..self.searches.len() {
                    let search = &mut self.searches[chain];
                    if search.missing.remove(&job) && search.missing.is_empty() {
                        self.plan_turn(now, chain);
                    }
                }
                if self.finals.missing.remove(&job) && self.finals.missing.is_empty() {
                    self.plan(now, Event::Finals);
                }
            }
            // Before all others.
            Event::Again(job) => self.queue.push_front(job),
            Event::Back => self.idle += 1,
            Event::Turn(chain) => self.turn(now, chain),
            Event::Finals => {
                let Some(round) = self.finals.rounds.get(self.finals.next) else { return };
                self.finals.next += 1;
                // What nobody had time for until now is asked for with the first of them.
                let rest = std::mem::take(&mut self.ahead);
                let wanted = rest.into_iter().chain(self.ahead_under_way.clone());
                let wanted: Round = wanted.chain(round.iter().copied()).collect();
                self.finals.missing = self.ask(&wanted);
                if self.finals.missing.is_empty() {
                    self.plan(now, Event::Finals);
                }
            }
        }
    }

    /// A search asks for its next round, unless it would be ahead of the agent's.
    fn turn(&mut self, now: f64, chain: usize) {
        let lead = &self.searches[AGENT];
        let (asked, over) = (lead.asked, lead.over);
        let search = &mut self.searches[chain];
        if chain != AGENT && !over && search.asked + search.batch > asked {
            search.held = true;
            return;
        }
        let rounds = search.rounds;
        let Some(round) = rounds.get(search.next) else {
            search.over = true;
            self.passed.searched = now;
            if self.searches.iter().all(|search| search.over) {
                self.plan(now, Event::Finals);
            }
            if chain == AGENT {
                self.release(now);
            }
            return;
        };
        search.next += 1;
        search.asked += round.len();
        let missing = self.ask(round);
        let is_there = missing.is_empty();
        self.searches[chain].missing = missing;
        if is_there {
            self.plan_turn(now, chain);
        }
        if chain == AGENT {
            self.release(now);
        }
    }

    /// Lets the searches look again that wait for the agent's.
    fn release(&mut self, now: f64) {
        for chain in 0..self.searches.len() {
            if std::mem::take(&mut self.searches[chain].held) {
                self.plan(now, Event::Turn(chain));
            }
        }
    }

    /// Asks for jobs; gives those that are not there yet.
    fn ask(&mut self, round: &[usize]) -> BTreeSet<usize> {
        for &job in round {
            if self.jobs[job] == Job::New {
                self.jobs[job] = Job::Asked;
                self.queue.push_back(job);
            }
        }
        round.iter().copied().filter(|&job| self.jobs[job] != Job::Done).collect()
    }

    /// Half of the workers may do what is wanted later.
    fn begin_ahead(&mut self) {
        if self.finals.next > 0 {
            return;
        }
        while self.ahead_under_way.len() < self.workers.count / 2
            && let Some(job) = self.ahead.pop_front()
        {
            let missing = self.ask(&[job]);
            self.ahead_under_way.extend(missing);
        }
    }

    /// Workers take jobs in the order of the queue.
    fn give_out(&mut self, now: f64) {
        let Workers { beside, deaths, lease, back_after, .. } = self.workers;
        while self.idle > 0
            && let Some(job) = self.queue.pop_front()
        {
            self.idle -= 1;
            let lasts = self.asked.seconds[job] + beside;
            if self.rng.random_bool(deaths) {
                let died = now + lasts * self.rng.random::<f64>();
                self.plan(died + lease, Event::Again(job));
                self.plan(died + back_after, Event::Back);
                self.passed.deaths += 1;
            } else {
                self.plan(now + lasts, Event::Done(job));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(count: usize) -> Workers {
        Workers { count, beside: 0.0, deaths: 0.0, lease: 30.0, back_after: 60.0 }
    }

    /// What the agent alone asks for.
    fn alone(rounds: &[&[f64]]) -> Asked {
        let mut asked = Asked::default();
        for round in rounds {
            let first = asked.seconds.len();
            asked.agent.push((first..first + round.len()).collect());
            asked.seconds.extend(*round);
        }
        asked
    }

    fn time(workers: Workers, rounds: &[&[f64]]) -> f64 {
        pass(&alone(rounds), workers, 1).all
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
        let slow = Asked { between: 7.0, ..alone(&[&[1.0; 5], &[1.0]]) };
        assert_eq!(pass(&slow, workers(4), 1), Passed { searched: 17.0, all: 17.0, deaths: 0 });
    }

    #[test]
    fn other_searches_and_long_retrains_fill_the_gaps() {
        // The agent asks twice for two jobs of 1 s; a rival wants one of them and two more of 1 s, one at a time.
        let mut asked = alone(&[&[1.0, 1.0], &[1.0, 1.0]]);
        asked.seconds.extend([1.0, 1.0, 4.0, 4.0, 2.0]);
        asked.rivals = vec![(1, vec![vec![0], vec![4], vec![5]])];
        (asked.ahead, asked.finals) = (vec![6, 7], vec![vec![8]]);
        // One worker does nothing ahead: 6 s of searches, then what is left.
        assert_eq!(pass(&asked, workers(1), 1), Passed { searched: 6.0, all: 16.0, deaths: 0 });
        // Of four workers, two begin with the long retrains. The third job of the rival has to wait for the agent's third.
        assert_eq!(pass(&asked, workers(4), 1), Passed { searched: 3.0, all: 5.0, deaths: 0 });
        // Of six, three might, and the last long retrain is all that is left.
        assert_eq!(pass(&asked, workers(6), 1), Passed { searched: 3.0, all: 5.0, deaths: 0 });
    }

    #[test]
    fn jobs_of_workers_that_die_are_done_after_their_lease() {
        let mortal = Workers { deaths: 0.3, ..workers(8) };
        let jobs = [2.0; 200];
        let passed = |workers: Workers, jobs: &[f64], seed| pass(&alone(&[jobs]), workers, seed);
        let first = passed(mortal, &jobs, 5);
        assert!((30..120).contains(&first.deaths), "{first:?}");
        // Nothing is lost, so that it takes as long as its work and the leases ask for.
        assert!(first.all > passed(workers(8), &jobs, 5).all + 30.0, "{first:?}");
        assert_eq!(passed(mortal, &jobs, 5), first, "the seed decides");
        // One worker, which is away longer than the lease: its return is what is waited for.
        let one = Workers { deaths: 0.5, ..workers(1) };
        let Passed { all, deaths, .. } = passed(one, &[1.0; 20], 1);
        let deaths = deaths as f64;
        assert!(
            deaths > 0.0 && all >= 20.0 + 60.0 * deaths && all <= 20.0 + 61.0 * deaths,
            "{all}"
        );
    }
}
