//! Takes jobs from the queue, carries them out, and stores the answers.

use std::{
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_nats::jetstream::{AckKind, Message, kv::CreateErrorKind};
use futures_util::StreamExt as _;
use releq::{
    Cancel, Choice, DataConfig, ReleqError,
    format::safetensors,
    hw::Machine,
    jobs::{Bench, Job, JobAnswer, JobRunner, RunSpec},
};
use tokio::time;

use crate::{
    Access, Doing, RemoteError, WorkerStatus,
    blobs::{self, Cache, Missing},
    connection::{CONNECT, Connection},
    engine::Engine,
    error::chain,
    layout::Layout,
    lease::Lease,
    message::{JobMessage, NoJob, Outcome, PROTOCOL, ResultMessage, Step, machine_kind, now},
};

/// Where a worker reports content that its search has to store again.
pub(crate) const MISSING: &str = "missing.";

/// How long the server holds an open question for a job. One that died with the server is noticed then at the latest.
const ASK: Duration = Duration::from_secs(5);
/// So often a worker tells what it does.
const TELL: Duration = Duration::from_secs(2);
/// Runs whose networks and images stay loaded.
const BENCHES: usize = 2;
/// A job that was given out so often without an answer has something that ends workers, or that no worker can do.
const MOST_DELIVERIES: i64 = 100;
/// How long a job that one worker cannot do is kept back: it would come again at once.
const KEEP_BACK: Duration = Duration::from_secs(5);
/// Pause of a worker after several jobs in a row that it cannot do, so that it takes no others away; doubled with each.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After so many questions in a row that nobody answers, there is no queue.
const NO_QUEUE: u32 = 4;
/// How long a worker that was asked to end waits for a server that is away.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// So often a worker looks whether it was asked to end.
const LOOK: Duration = Duration::from_millis(50);

/// Settings of a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Name in lists; letters, digits, `-` and `_`.
    pub name: String,
    /// Jobs that it carries out at a time, each on one thread.
    pub threads: NonZeroUsize,
    /// Folders with images, tried in this order where those that a run names are not on this machine.
    pub data: Vec<PathBuf>,
    /// Folder for descriptions of runs and weights that were fetched.
    pub cache: PathBuf,
}

impl WorkerConfig {
    /// A name for a worker of this machine and process.
    #[must_use]
    pub fn default_name(host: &str) -> String {
        let host: String =
            host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let host = if host.is_empty() { "worker".to_owned() } else { host };
        format!("{host}-{}", std::process::id())
    }
}

/// News of a worker.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WorkerEvent {
    /// It is connected, and waits for jobs.
    Ready,
    /// There is no queue at this server: nobody has begun a search there yet, or its store was emptied.
    NoQueue,
    /// It begins a job.
    Began {
        /// The network.
        network: String,
        /// The job.
        job: Job,
    },
    /// The answer is stored.
    Done {
        /// The job.
        job: Job,
        /// How long it took.
        seconds: f64,
    },
    /// It cannot do a job, which is left to others.
    Refused {
        /// Why.
        reason: String,
    },
    /// It leaves a job that no search wants any more.
    Unwanted {
        /// The job.
        job: Job,
    },
    /// It was asked to end, and finishes what it is at.
    Ending {
        /// How many jobs that are.
        jobs: usize,
    },
    /// It ends without a server that could take its last answers.
    Left,
}

impl fmt::Display for WorkerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("waiting for jobs"),
            Self::NoQueue => f.write_str("no search uses this server yet; waiting for one"),
            Self::Began { network, job } => write!(f, "{network} at {}, {}", job.bits, job.task),
            Self::Done { job, seconds } => {
                write!(f, "{}, {} done in {seconds:.1} s", job.bits, job.task)
            }
            Self::Refused { reason } => write!(f, "a job is left to others: {reason}"),
            Self::Unwanted { job } => {
                write!(f, "{}, {} left: no search wants it any more", job.bits, job.task)
            }
            Self::Ending { jobs } => {
                let jobs = if *jobs == 1 { "one job".to_owned() } else { format!("{jobs} jobs") };
                write!(f, "ending after {jobs}; a second signal ends it at once")
            }
            Self::Left => f.write_str(
                "the server is away, and does not get the last answers; others will do these jobs",
            ),
        }
    }
}

/// A process that carries out jobs of any number of searches.
#[derive(Debug)]
pub struct Worker {
    access: Access,
    config: WorkerConfig,
}

impl Worker {
    /// A worker for the searches at this server.
    #[must_use]
    pub const fn new(access: Access, config: WorkerConfig) -> Self {
        Self { access, config }
    }

    /// Works until somebody asks to stop; jobs that it is at are done first. A server that is away is waited for.
    ///
    /// # Errors
    /// [`RemoteError`] if the server cannot be reached at the start, or does not let this user work.
    pub fn run(
        self,
        stop: &Cancel,
        on_event: &(dyn Fn(&WorkerEvent) + Sync),
    ) -> Result<(), RemoteError> {
        let engine = Arc::new(Engine::start()?);
        let (access, name) = (self.access, format!("releq worker {}", self.config.name));
        let over = || stop.is_cancelled();
        let open = async move { Connection::open(&access, &name, CONNECT).await };
        let Some(connection) = engine.call_unless(&over, open)?.transpose()? else {
            return Ok(());
        };
        let mut told = false;
        let layout = loop {
            let of = connection.clone();
            let open = async move { Layout::open(&of).await };
            match engine.call_unless(&over, open)? {
                None => return Ok(()),
                Some(Ok(layout)) => break layout,
                Some(Err(error @ (RemoteError::NoQueue | RemoteError::Server { .. }))) => {
                    let absent = matches!(error, RemoteError::NoQueue);
                    if absent && !std::mem::replace(&mut told, true) {
                        on_event(&WorkerEvent::NoQueue);
                    }
                    thread::sleep(Duration::from_millis(500));
                }
                Some(Err(error)) => return Err(error),
            }
        };
        let slots = Slots::new(engine, connection, layout, &self.config, (stop, &Cancel::new()))?;
        on_event(&WorkerEvent::Ready);
        let telling = slots.tell();
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            let work = || {
                if let Err(error) = slots.work(on_event) {
                    locked(&failed).get_or_insert(error);
                    // One that may not work stops all.
                    stop.cancel();
                }
            };
            let threads = (0..self.config.threads.get()).map(|_| scope.spawn(work));
            let threads: Vec<_> = threads.collect();
            while !stop.is_cancelled() {
                thread::sleep(LOOK);
            }
            let jobs = threads.iter().filter(|thread| !thread.is_finished()).count();
            let jobs = jobs.min(locked(&slots.status).doing.len());
            if jobs > 0 {
                on_event(&WorkerEvent::Ending { jobs });
            }
        });
        telling.abort();
        slots.leave();
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(RemoteError::Closed) if slots.is_left() => on_event(&WorkerEvent::Left),
            Some(error) => return Err(error),
            None => {}
        }
        Ok(())
    }
}

/// A job that was taken.
struct Taken<'s> {
    id: String,
    message: JobMessage,
    lease: Lease,
    shown: Shown<'s>,
}

/// A job on the list of what the worker does, until it is dropped.
struct Shown<'s> {
    status: &'s Mutex<WorkerStatus>,
    doing: Doing,
}

impl<'s> Shown<'s> {
    fn new(status: &'s Mutex<WorkerStatus>, message: &JobMessage) -> Self {
        let (network, job) = (message.network.clone(), message.job.clone());
        let doing = Doing { network, job, since: now(), step: Step::Loading };
        locked(status).doing.push(doing.clone());
        Self { status, doing }
    }

    fn step(&mut self, step: Step) {
        let mut status = locked(self.status);
        if let Some(doing) = status.doing.iter_mut().find(|doing| **doing == self.doing) {
            doing.step = step;
            self.doing.step = step;
        }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let mut status = locked(self.status);
        if let Some(place) = status.doing.iter().position(|doing| *doing == self.doing) {
            status.doing.remove(place);
        }
    }
}

/// What the threads of a worker share.
pub(crate) struct Slots {
    engine: Arc<Engine>,
    connection: Connection,
    layout: Layout,
    cache: Cache,
    data: Vec<PathBuf>,
    /// Those used last come last.
    benches: Mutex<Vec<(String, Arc<Bench>)>>,
    status: Arc<Mutex<WorkerStatus>>,
    refusals: AtomicUsize,
    /// Whether it was told that there is no queue.
    told: AtomicBool,
    /// Whether no more jobs are to be taken.
    stop: Cancel,
    /// Whether nothing is to be waited for any more, and what was begun is to be left.
    abandon: Cancel,
}

impl Slots {
    pub(crate) fn new(
        engine: Arc<Engine>,
        connection: Connection,
        layout: Layout,
        config: &WorkerConfig,
        (stop, abandon): (&Cancel, &Cancel),
    ) -> Result<Self, RemoteError> {
        let status = WorkerStatus {
            name: config.name.clone(),
            machine: machine_kind(&Machine::this()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            threads: config.threads.get(),
            since: now(),
            done: 0,
            busy_seconds: 0.0,
            doing: Vec::new(),
            refused: None,
        };
        Ok(Self {
            engine,
            connection,
            layout,
            cache: Cache::new(config.cache.clone())?,
            data: config.data.clone(),
            benches: Mutex::default(),
            status: Arc::new(Mutex::new(status)),
            refusals: AtomicUsize::new(0),
            told: AtomicBool::new(false),
            stop: stop.clone(),
            abandon: abandon.clone(),
        })
    }

    /// What the server says, unless nobody is to wait for it any more.
    fn ask<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<T, RemoteError>> + Send + 'static,
    ) -> Result<T, RemoteError> {
        self.engine.call_unless(&|| self.is_over(), question)?.ok_or(RemoteError::Closed)?
    }

    /// Whether nobody waits for the server any more.
    fn is_over(&self) -> bool {
        self.abandon.is_cancelled() || self.is_left()
    }

    /// Whether the worker was asked to end, and the server has been away for so long that it does not wait for it.
    fn is_left(&self) -> bool {
        self.stop.is_cancelled() && self.connection.away() > LAST_WAIT
    }

    /// A run that is loaded already, as in the process of its search.
    pub(crate) fn preload(&self, run: String, bench: Arc<Bench>) {
        locked(&self.benches).push((run, bench));
    }

    /// Tells every few seconds what the worker does.
    pub(crate) fn tell(&self) -> tokio::task::AbortHandle {
        let (bucket, status) = (self.layout.workers.clone(), Arc::clone(&self.status));
        self.engine.spawn(async move {
            loop {
                let (name, value) = {
                    let status = locked(&status);
                    (status.name.clone(), serde_json::to_vec(&*status).unwrap_or_default())
                };
                if let Err(error) = bucket.put(name, value.into()).await {
                    log::info!("what this worker does is not told: {error}");
                }
                time::sleep(TELL).await;
            }
        })
    }

    /// Takes itself off the list of workers.
    pub(crate) fn leave(&self) {
        let (bucket, name) = (self.layout.workers.clone(), locked(&self.status).name.clone());
        if !self.connection.away().is_zero() {
            return;
        }
        let left = async move {
            let _ = time::timeout(Duration::from_secs(2), bucket.delete(name)).await;
        };
        let _ = self.engine.call(left);
    }

    /// Takes jobs and carries them out until it is to stop, one after the other; hands back what it is at where it is to be
    /// left.
    pub(crate) fn work(&self, on_event: &dyn Fn(&WorkerEvent)) -> Result<(), RemoteError> {
        while !self.stop.is_cancelled() {
            self.work_until(&self.abandon.part(), on_event)?;
        }
        Ok(())
    }

    /// The same until one of the jobs turns out to be `unwanted`, which its trainers look at.
    fn work_until(
        &self,
        unwanted: &Cancel,
        on_event: &dyn Fn(&WorkerEvent),
    ) -> Result<(), RemoteError> {
        let mut next = self.take(unwanted, on_event)?;
        while let Some(taken) = next.take() {
            let bench = match self.bench(&taken.message) {
                Ok(bench) => bench,
                Err(reason) => {
                    self.refuse(taken.lease, reason, on_event);
                    next = self.take(unwanted, on_event)?;
                    continue;
                }
            };
            let run = taken.message.run.clone();
            let mut runner = bench.runner(unwanted);
            let mut current = Some(taken);
            // The trainers of a run are kept as long as its jobs come.
            while let Some(taken) = current.take() {
                if taken.message.run != run {
                    next = Some(taken);
                    break;
                }
                self.carry_out(&mut runner, taken, on_event)?;
                if unwanted.is_cancelled() {
                    return Ok(());
                }
                current = self.take(unwanted, on_event)?;
            }
        }
        Ok(())
    }

    /// The next job that this worker can do and that has no answer. `unwanted` is cancelled when no search wants it any more.
    fn take(
        &self,
        unwanted: &Cancel,
        on_event: &dyn Fn(&WorkerEvent),
    ) -> Result<Option<Taken<'_>>, RemoteError> {
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let message = match self.ask_for_job()? {
                Ok(Some(message)) => message,
                Ok(None) => {
                    failures = 0;
                    continue;
                }
                Err(reason) => {
                    log::info!("no job: {reason}");
                    failures += 1;
                    let first = failures == NO_QUEUE && self.connection.away().is_zero();
                    if first && !self.told.swap(true, Ordering::Relaxed) {
                        on_event(&WorkerEvent::NoQueue);
                    }
                    thread::sleep(Duration::from_millis(500));
                    continue;
                }
            };
            failures = 0;
            self.told.store(false, Ordering::Relaxed);
            let delivered = message.info().map_or(1, |info| info.delivered);
            let (message, acker) = message.split();
            let subject = message.subject.to_string();
            let id = subject.rsplit('.').next().unwrap_or_default().to_owned();
            let place = (self.connection.jetstream.clone(), subject);
            let lease =
                Lease::new(&self.engine, acker, self.layout.lease(), place, unwanted.clone());
            match JobMessage::read(&message.payload, &id) {
                Ok(_) if self.answered(&id)? => {
                    lease.end(&self.engine, &self.connection, AckKind::Ack)
                }
                Ok(_) if delivered > MOST_DELIVERIES => {
                    let reason =
                        format!("the job was given out {MOST_DELIVERIES} times without an answer");
                    self.store(&id, 0.0, Outcome::Failed { reason })?;
                    lease.end(&self.engine, &self.connection, AckKind::Term);
                }
                Ok(message) => {
                    let shown = Shown::new(&self.status, &message);
                    return Ok(Some(Taken { id, message, lease, shown }));
                }
                Err(NoJob::Malformed(reason)) => {
                    log::warn!("a message that is no job is removed from the queue: {reason}");
                    lease.end(&self.engine, &self.connection, AckKind::Term);
                }
                Err(NoJob::Other(reason)) => self.refuse(lease, reason, on_event),
            }
        }
        Ok(None)
    }

    /// The next message in the queue, or why there is nobody to ask; nothing where the queue is empty for a while, or it is time
    /// to stop.
    fn ask_for_job(&self) -> Result<Result<Option<Message>, String>, RemoteError> {
        let (connection, consumer) = (self.connection.clone(), self.layout.jobs.clone());
        let ask = async move {
            let asked = async {
                // One at a time: a second job would wait here while other workers stand idle.
                let batch = consumer.batch().max_messages(1).expires(ASK).messages().await;
                let message = batch.map_err(|error| chain(&error))?.next().await.transpose();
                message.map_err(|error| error.to_string())
            };
            // A question that was open when the connection was lost has no answer any more.
            tokio::select! {
                message = asked => message,
                () = connection.reconnected() => Ok(None),
            }
        };
        let over = || self.stop.is_cancelled();
        Ok(self.engine.call_unless(&over, ask)?.unwrap_or(Ok(None)))
    }

    /// Leaves a job to others, and pauses where it has done nothing else for a while.
    fn refuse(&self, lease: Lease, reason: String, on_event: &dyn Fn(&WorkerEvent)) {
        lease.end(&self.engine, &self.connection, AckKind::Nak(Some(KEEP_BACK)));
        let pause = match self.refusals.fetch_add(1, Ordering::Relaxed) {
            0 => Duration::ZERO,
            before => PAUSE.saturating_mul(1 << before.min(8)).min(LONGEST_PAUSE),
        };
        locked(&self.status).refused = Some(reason.clone());
        on_event(&WorkerEvent::Refused { reason });
        let begun = Instant::now();
        while begun.elapsed() < pause && !self.stop.is_cancelled() {
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Network, weights and images of the job's run.
    fn bench(&self, message: &JobMessage) -> Result<Arc<Bench>, String> {
        // Whoever comes second waits for the first.
        let mut benches = locked(&self.benches);
        if let Some(place) = benches.iter().position(|(run, _)| *run == message.run) {
            let known = benches.remove(place);
            let bench = Arc::clone(&known.1);
            benches.push(known);
            return Ok(bench);
        }
        let spec = self.fetch(&message.run)?;
        let spec = std::fs::read(&spec).map_err(|error| error.to_string())?;
        let spec: RunSpec = serde_json::from_slice(&spec)
            .map_err(|error| format!("the description of the run: {error}"))?;
        let weights =
            safetensors::load(self.fetch(&message.weights)?).map_err(|error| chain(&error))?;
        while benches.len() >= BENCHES {
            benches.remove(0);
        }
        let mut reasons = Vec::new();
        for data in self.candidates(&spec) {
            match Bench::open(spec.clone(), &data, weights.clone(), &self.abandon) {
                Ok(bench) => {
                    let bench = Arc::new(bench);
                    benches.push((message.run.clone(), Arc::clone(&bench)));
                    return Ok(bench);
                }
                Err(error) => reasons.push(chain(&error)),
            }
        }
        if let Some(images) = &message.images {
            let packed = std::fs::read(self.fetch(images)?).map_err(|error| error.to_string())?;
            match Bench::open_packed(spec, &packed, weights, &self.abandon) {
                Ok(bench) => {
                    let bench = Arc::new(bench);
                    benches.push((message.run.clone(), Arc::clone(&bench)));
                    return Ok(bench);
                }
                Err(error) => reasons.push(chain(&error)),
            }
        }
        reasons.dedup();
        let hint = match &message.images {
            None if self.data.is_empty() => {
                "; --data-dir names a folder with them, and a search with --send-data brings them along"
            }
            _ => "",
        };
        Err(format!("the images of the run: {}{hint}", reasons.join("; ")))
    }

    /// Where the images of a run may be.
    fn candidates(&self, spec: &RunSpec) -> Vec<DataConfig> {
        let Some(Choice::Ours(named)) = &spec.config.data else { return Vec::new() };
        let mut candidates = vec![named.clone()];
        if let DataConfig::Folder { kind, images, .. } = named {
            let here = |path: &PathBuf| DataConfig::Folder {
                path: path.clone(),
                kind: *kind,
                images: images.clone(),
            };
            candidates.extend(self.data.iter().map(here));
        }
        candidates
    }

    /// A file with content from the store. What is missing there is reported to whoever stored it.
    fn fetch(&self, name: &str) -> Result<PathBuf, String> {
        let store = (&self.connection, &self.layout.blobs);
        self.cache.file(&self.engine, store, &|| self.is_over(), name).map_err(|missing| {
            match missing {
                Missing::Failed(error) => chain(&error),
                Missing::Lost(reason) => {
                    let (results, key) = (self.layout.results.clone(), format!("{MISSING}{name}"));
                    let report = async move {
                        let _ = time::timeout(ASK, results.put(key, Vec::new().into())).await;
                    };
                    let _ = self.engine.call(report);
                    reason
                }
            }
        })
    }

    fn answered(&self, id: &str) -> Result<bool, RemoteError> {
        let (connection, results) = (self.connection.clone(), self.layout.results.clone());
        let id = id.to_owned();
        self.ask(async move {
            connection
                .persist("look up a result", None, || results.get(id.clone()))
                .await
                .map(|found| found.is_some())
        })
    }

    fn carry_out(
        &self,
        runner: &mut JobRunner<'_>,
        taken: Taken<'_>,
        on_event: &dyn Fn(&WorkerEvent),
    ) -> Result<(), RemoteError> {
        let Taken { id, message: JobMessage { network, job, .. }, lease, mut shown } = taken;
        on_event(&WorkerEvent::Began { network, job: job.clone() });
        shown.step(Step::Retraining);
        let begun = Instant::now();
        let answer = runner.carry_out(&job);
        let seconds = begun.elapsed().as_secs_f64();
        shown.step(Step::Storing);
        let outcome = match answer {
            Ok(JobAnswer::Long { retrained, weights }) => {
                let weights = weights.map(|weights| self.store_weights(&weights)).transpose()?;
                let answer = JobAnswer::Long { retrained, weights: None };
                Outcome::Answer { answer, weights }
            }
            Ok(answer) => Outcome::Answer { answer, weights: None },
            Err(ReleqError::Cancelled) => {
                lease.end(&self.engine, &self.connection, AckKind::Nak(None));
                if !self.abandon.is_cancelled() {
                    on_event(&WorkerEvent::Unwanted { job });
                }
                return Ok(());
            }
            Err(error) => Outcome::Failed { reason: chain(&error) },
        };
        self.store(&id, seconds, outcome)?;
        lease.end(&self.engine, &self.connection, AckKind::Ack);
        drop(shown);
        {
            let mut status = locked(&self.status);
            status.done += 1;
            status.busy_seconds += seconds;
            status.refused = None;
        }
        self.refusals.store(0, Ordering::Relaxed);
        on_event(&WorkerEvent::Done { job, seconds });
        Ok(())
    }

    fn store_weights(&self, weights: &releq::core::Weights) -> Result<String, RemoteError> {
        let content = Arc::new(weights_file(weights)?);
        let (connection, blobs) = (self.connection.clone(), self.layout.blobs.clone());
        self.ask(async move { blobs::put(&connection, &blobs, content, false).await })
    }

    /// Stores a result, unless there is one: then somebody else was faster, or the server was slow to say that this one is
    /// stored.
    fn store(&self, id: &str, seconds: f64, outcome: Outcome) -> Result<(), RemoteError> {
        let (worker, machine) = {
            let status = locked(&self.status);
            (status.name.clone(), status.machine.clone())
        };
        let (protocol, job) = (PROTOCOL, id.to_owned());
        let result = ResultMessage { protocol, job, worker, machine, seconds, outcome };
        let value = serde_json::to_vec(&result)?;
        let (connection, results) = (self.connection.clone(), self.layout.results.clone());
        let id = id.to_owned();
        self.ask(async move {
            connection
                .persist("store a result", None, || {
                    let (id, value) = (id.clone(), value.clone());
                    let results = &results;
                    async move {
                        match results.create(id, value.into()).await {
                            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(()),
                            other => other.map(drop),
                        }
                    }
                })
                .await
        })
    }
}

/// Weights as the bytes of a safetensors file.
pub(crate) fn weights_file(weights: &releq::core::Weights) -> Result<Vec<u8>, RemoteError> {
    let failed =
        |path: &Path, source| RemoteError::File { what: "write", path: path.to_owned(), source };
    let folder = tempfile::tempdir().map_err(|error| failed(&std::env::temp_dir(), error))?;
    let path = folder.path().join("weights.safetensors");
    safetensors::save(&path, weights)
        .map_err(|error| failed(&path, std::io::Error::other(error)))?;
    std::fs::read(&path).map_err(|error| failed(&path, error))
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
