//! The side of the search: asks for retrains, and waits for their answers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use async_nats::jetstream::kv::{self, Operation};
use futures_util::StreamExt as _;
use releq::{
    Cancel, ReleqError,
    core::Weights,
    format::safetensors,
    hw::Machine,
    jobs::{Bench, Job, JobAnswer, Task, Workers},
};
use tokio::{sync::Notify, task::AbortHandle, time};

use crate::{
    Access, RemoteError, WorkerConfig,
    blobs::{self, Missing},
    connection::{CONNECT, Connection},
    engine::Engine,
    error::chain,
    layout::{JOBS, Layout, subject},
    message::{
        JobMessage, Needs, Outcome, PROTOCOL, ResultMessage, hash, machine_kind, spec_bytes,
    },
    roster,
    worker::{MISSING, Slots, locked, weights_file},
};

/// So often an answer is looked up that nobody has announced.
const LOOK: Duration = Duration::from_secs(2);
/// So often a job is put into the queue again, in case that it was lost there; where it was not, that is refused.
const AGAIN: Duration = Duration::from_secs(10);
/// After so long without any answer, somebody should know.
const SILENCE: Duration = Duration::from_secs(60);

/// Settings of a search with workers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoteConfig {
    /// Jobs that this process carries out beside the workers, at a time; 0 leaves all to them.
    pub local: usize,
    /// Whether machines of any kind may answer. Answers of different kinds may differ in their last bits, and with them the
    /// search.
    pub any_machine: bool,
    /// Whether the images of the run are stored at the server, for workers that do not have them. That takes as much of its
    /// storage as they take in memory.
    pub send_data: bool,
    /// How long a job stays with a worker that says nothing, where this search is the first at its server.
    pub lease: Duration,
}

impl Default for RemoteConfig {
    /// Workers alone, of this machine's kind, that have the images, with a lease of ten seconds.
    fn default() -> Self {
        Self { local: 0, any_machine: false, send_data: false, lease: Duration::from_secs(10) }
    }
}

/// The workers at a server, as those of an [`Experiment`](releq::Experiment::workers).
pub struct RemoteWorkers {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    config: RemoteConfig,
    prepared: Mutex<Option<(Arc<Bench>, Arc<Needs>)>>,
    local: Mutex<Option<Local>>,
    tasks: [AbortHandle; 2],
    /// How many workers there were, and when somebody looked.
    width: Mutex<Option<(Instant, usize)>>,
}

impl fmt::Debug for RemoteWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteWorkers").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What tasks on the engine's thread use.
struct Shared {
    connection: Connection,
    layout: Layout,
    /// Those who wait for the answer of a job.
    waiting: Mutex<HashMap<String, Vec<Arc<Notify>>>>,
    /// Content that a worker may report missing.
    contents: Mutex<HashMap<String, Arc<Vec<u8>>>>,
    last_answer: Mutex<Instant>,
    /// Wakes whoever watches the results where they may be in a new stream.
    renewed: Notify,
    /// When it was said that nobody answers.
    told: Mutex<Instant>,
    /// How many answers each worker has given, by its name.
    answers: Mutex<BTreeMap<String, usize>>,
    /// Kinds of machines that have answered, other than this one's.
    others: Mutex<BTreeSet<String>>,
}

/// Threads of this process that take jobs as workers do.
struct Local {
    abandon: Cancel,
    telling: AbortHandle,
    slots: Arc<Slots>,
    threads: Vec<JoinHandle<()>>,
    _cache: tempfile::TempDir,
}

impl RemoteWorkers {
    /// Connects, and creates the queue where it is not there yet.
    ///
    /// # Errors
    /// [`RemoteError`] if the server cannot be reached, or lacks JetStream, or does not let this user search.
    pub fn connect(access: &Access, config: RemoteConfig) -> Result<Self, RemoteError> {
        let engine = Arc::new(Engine::start()?);
        let (access, lease) = (access.clone(), config.lease);
        let (connection, layout) = engine.call(async move {
            let connection = Connection::open(&access, "releq search", CONNECT).await?;
            let layout = Layout::create(&connection, lease).await?;
            Ok::<_, RemoteError>((connection, layout))
        })??;
        let shared = Arc::new(Shared {
            connection,
            layout,
            waiting: Mutex::default(),
            contents: Mutex::default(),
            last_answer: Mutex::new(Instant::now()),
            renewed: Notify::new(),
            told: Mutex::new(Instant::now()),
            answers: Mutex::default(),
            others: Mutex::default(),
        });
        let tasks = [
            engine.spawn(Arc::clone(&shared).watch()),
            engine.spawn(Arc::clone(&shared).keep(lease)),
        ];
        Ok(Self {
            engine,
            shared,
            config,
            prepared: Mutex::default(),
            local: Mutex::default(),
            tasks,
            width: Mutex::default(),
        })
    }

    /// The server's version.
    #[must_use]
    pub fn server(&self) -> String {
        self.shared.connection.jetstream.client().server_info().version.clone()
    }

    /// How many retrains every worker has done for this search, by its name; those that the search was given by an earlier
    /// life of its run are among them.
    #[must_use]
    pub fn answers(&self) -> BTreeMap<String, usize> {
        locked(&self.shared.answers).clone()
    }

    /// Puts what a run needs on the server, once.
    fn prepare(
        &self,
        bench: &Arc<Bench>,
        cancel: &Cancel,
    ) -> Result<Option<Arc<Needs>>, RemoteError> {
        let mut prepared = locked(&self.prepared);
        if let Some((of, prepared)) = &*prepared
            && Arc::ptr_eq(of, bench)
        {
            return Ok(Some(Arc::clone(prepared)));
        }
        let send = |content: Vec<u8>| -> Result<Option<String>, RemoteError> {
            let content = Arc::new(content);
            locked(&self.shared.contents).insert(hash(&content), Arc::clone(&content));
            let shared = Arc::clone(&self.shared);
            let stored = self.engine.call_unless(&|| cancel.is_cancelled(), async move {
                blobs::put(&shared.connection, &shared.layout.blobs, content, false).await
            })?;
            stored.transpose()
        };
        let Some(run) = send(spec_bytes(bench.spec())?)? else { return Ok(None) };
        let Some(weights) = send(weights_file(bench.weights())?)? else { return Ok(None) };
        let images = if self.config.send_data {
            let Some(images) = send(bench.packed_images()?)? else { return Ok(None) };
            Some(images)
        } else {
            None
        };
        let network = bench.network().name().to_owned();
        let new = Arc::new(Needs { network, run, weights, images });
        self.work_here(&new.run, bench)?;
        *prepared = Some((Arc::clone(bench), Arc::clone(&new)));
        Ok(Some(new))
    }

    /// Lets threads of this process take jobs too.
    fn work_here(&self, run: &str, bench: &Arc<Bench>) -> Result<(), RemoteError> {
        let Some(threads) = NonZeroUsize::new(self.config.local) else { return Ok(()) };
        let mut local = locked(&self.local);
        if let Some(local) = &*local {
            local.slots.preload(run.to_owned(), Arc::clone(bench));
            return Ok(());
        }
        let failed =
            |source| RemoteError::File { what: "create", path: std::env::temp_dir(), source };
        let cache = tempfile::tempdir().map_err(failed)?;
        let config = WorkerConfig {
            name: WorkerConfig::default_name("search"),
            threads,
            data: Vec::new(),
            cache: PathBuf::from(cache.path()),
        };
        let engine = Arc::clone(&self.engine);
        let Shared { connection, layout, .. } = &*self.shared;
        let abandon = Cancel::new();
        let slots =
            Slots::new(engine, connection.clone(), layout.clone(), &config, (&abandon, &abandon))?;
        slots.preload(run.to_owned(), Arc::clone(bench));
        let slots = Arc::new(slots);
        let telling = slots.tell();
        let threads = (0..threads.get()).map(|_| {
            let (slots, abandon) = (Arc::clone(&slots), abandon.clone());
            thread::spawn(move || {
                let quiet = |event: &_| log::info!("{event}");
                if let Err(error) = slots.work(&quiet)
                    && !abandon.is_cancelled()
                {
                    log::warn!("this process takes no more jobs: {}", chain(&error));
                }
            })
        });
        let threads = threads.collect();
        *local = Some(Local { abandon, telling, slots, threads, _cache: cache });
        Ok(())
    }

    /// The answer with the weights that belong to it.
    fn with_weights(
        &self,
        bench: &Bench,
        answer: JobAnswer,
        weights: Option<String>,
        cancel: &Cancel,
    ) -> Result<Option<JobAnswer>, Missing> {
        let (JobAnswer::Long { retrained, .. }, Some(name)) = (&answer, weights) else {
            return Ok(Some(answer));
        };
        let shared = Arc::clone(&self.shared);
        let got = self.engine.call_unless(&|| cancel.is_cancelled(), async move {
            blobs::get(&shared.connection, &shared.layout.blobs, &name).await
        })?;
        let Some(content) = got.transpose()? else { return Ok(None) };
        let read = || -> Result<Weights, ReleqError> {
            let write = |source| ReleqError::Write { path: std::env::temp_dir(), source };
            let file = tempfile::NamedTempFile::new().map_err(write)?;
            std::fs::write(file.path(), &content).map_err(write)?;
            let weights =
                safetensors::load(file.path()).map_err(|e| ReleqError::Other(Box::new(e)))?;
            weights.check(bench.network())?;
            Ok(weights)
        };
        let weights = read().map_err(|error| Missing::Lost(chain(&error)))?;
        Ok(Some(JobAnswer::Long { retrained: retrained.clone(), weights: Some(weights) }))
    }
}

impl Workers for RemoteWorkers {
    fn width(&self) -> usize {
        let mut width = locked(&self.width);
        if let Some((when, width)) = *width
            && when.elapsed() < LOOK
        {
            return width;
        }
        let bucket = self.shared.layout.workers.clone();
        let listed = self.engine.call(async move {
            time::timeout(LOOK, roster::workers(&bucket)).await.ok().and_then(Result::ok)
        });
        let now = match listed {
            Ok(Some(workers)) => workers.iter().map(|worker| worker.threads).sum(),
            // Those of before, where the server does not say.
            _ => width.map_or(0, |(_, width)| width),
        };
        let now = now.max(self.config.local).max(1);
        *width = Some((Instant::now(), now));
        now
    }

    fn carry_out(
        &self,
        bench: &Arc<Bench>,
        job: &Job,
        cancel: &Cancel,
    ) -> Result<JobAnswer, ReleqError> {
        let over = || cancel.is_cancelled();
        let Some(prepared) = self.prepare(bench, cancel)? else {
            return Err(ReleqError::Cancelled);
        };
        let kind = (!self.config.any_machine).then(|| machine_kind(&Machine::this()));
        let message = JobMessage::new(&prepared, job.clone(), kind);
        let payload = serde_json::to_vec(&message).map_err(RemoteError::from)?;
        let id = hash(&payload);
        // What an earlier life of the run left there as failed may succeed now.
        let mut accept_failure = false;
        loop {
            let shared = Arc::clone(&self.shared);
            let (of, payload) = ((id.clone(), job.task), payload.clone());
            let asked = shared.answer(of, payload, accept_failure);
            let Some(answer) = self.engine.call_unless(&over, asked)? else {
                self.shared.withdraw(&self.engine, &id);
                return Err(ReleqError::Cancelled);
            };
            let ResultMessage { worker, machine, outcome, .. } = answer?;
            self.shared.answered_by(&machine);
            *locked(&self.shared.answers).entry(worker.clone()).or_default() += 1;
            accept_failure = true;
            match outcome {
                Outcome::Failed { reason } => {
                    return Err(RemoteError::Worker { worker, reason }.into());
                }
                Outcome::Answer { answer, weights } => {
                    match self.with_weights(bench, answer, weights.clone(), cancel) {
                        Ok(Some(answer)) => return Ok(answer),
                        Ok(None) => return Err(ReleqError::Cancelled),
                        Err(Missing::Failed(error)) => return Err(error.into()),
                        Err(Missing::Lost(reason)) => {
                            log::warn!("a retrain is done again, its weights are lost: {reason}");
                            let (shared, id) = (Arc::clone(&self.shared), id.clone());
                            let forgotten = self.engine.call_unless(&over, async move {
                                if let Some(weights) = weights {
                                    blobs::remove(&shared.layout.blobs, &weights).await;
                                }
                                shared.forget(&id).await
                            })?;
                            forgotten.transpose()?;
                        }
                    }
                }
            }
        }
    }

    fn other_machines(&self) -> BTreeSet<String> {
        locked(&self.shared.others).clone()
    }

    fn name(&self) -> &str {
        "workers"
    }
}

impl Drop for RemoteWorkers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(local) = locked(&self.local).take() {
            local.abandon.cancel();
            for thread in local.threads {
                let _ = thread.join();
            }
            local.telling.abort();
            local.slots.leave();
        }
    }
}

/// A place among those who wait for an answer; leaves when it is dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    id: &'a str,
    woken: Arc<Notify>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = locked(&self.shared.waiting);
        if let Some(others) = waiting.get_mut(self.id) {
            others.retain(|other| !Arc::ptr_eq(other, &self.woken));
            if others.is_empty() {
                waiting.remove(self.id);
            }
        }
    }
}

impl Shared {
    /// Wakes those who wait for an answer when it comes, for ever.
    async fn watch(self: Arc<Self>) {
        loop {
            match self.layout.results.watch_all().await {
                Ok(results) => {
                    // The client goes on after the last number that it has seen. In a stream that was made anew, it would wait
                    // for as many results as there were before.
                    tokio::select! {
                        () = self.listen(results) => {}
                        () = self.renewed.notified() => continue,
                    }
                }
                Err(error) => log::info!("results: {error}"),
            }
            time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The same as long as one watch lasts.
    async fn listen(self: &Arc<Self>, mut results: kv::Watch) {
        while let Some(entry) = results.next().await {
            match entry {
                Ok(entry) if entry.operation == Operation::Put => {
                    Arc::clone(self).heard(&entry.key).await;
                }
                Ok(_) => {}
                Err(error) => log::info!("results: {error}"),
            }
        }
    }

    async fn heard(self: Arc<Self>, key: &str) {
        if let Some(name) = key.strip_prefix(MISSING) {
            let content = locked(&self.contents).get(name).cloned();
            let Some(content) = content else { return };
            log::warn!("a worker misses object {name}; it is stored again");
            let (shared, key) = (Arc::clone(&self), key.to_owned());
            tokio::spawn(async move {
                let Self { connection, layout, .. } = &*shared;
                match blobs::put(connection, &layout.blobs, content, true).await {
                    Ok(_) => drop(layout.results.purge(key).await),
                    Err(error) => log::warn!("it is not stored: {}", chain(&error)),
                }
            });
            return;
        }
        *locked(&self.last_answer) = Instant::now();
        for waiting in locked(&self.waiting).get(key).into_iter().flatten() {
            waiting.notify_one();
        }
    }

    /// The answer to a job, once it is there.
    async fn answer(
        self: Arc<Self>,
        (id, task): (String, Task),
        payload: Vec<u8>,
        accept_failure: bool,
    ) -> Result<ResultMessage, RemoteError> {
        let woken = Arc::new(Notify::new());
        locked(&self.waiting).entry(id.clone()).or_default().push(Arc::clone(&woken));
        let waiting = Waiting { shared: &self, id: &id, woken };
        let mut published: Option<Instant> = None;
        let mut is_woken = true;
        loop {
            let found = self
                .connection
                .persist("look up a result", None, || self.layout.results.get(id.clone()))
                .await?;
            if let Some(value) = found {
                match check(&value, &id, &task) {
                    Ok(ResultMessage { outcome: Outcome::Failed { .. }, .. })
                        if published.is_none() && !accept_failure =>
                    {
                        self.forget(&id).await?;
                    }
                    Ok(result) => {
                        *locked(&self.last_answer) = Instant::now();
                        // Nobody has announced it: another search may have made the stream anew.
                        if !is_woken {
                            self.renewed.notify_one();
                        }
                        return Ok(result);
                    }
                    Err(reason) => {
                        log::warn!("result {id} is no answer, it is asked for again: {reason}");
                        self.forget(&id).await?;
                        published = None;
                    }
                }
            }
            if published.is_none_or(|when| when.elapsed() >= AGAIN) {
                if !self.publish(&id, &payload).await? && self.is_stale().await {
                    self.remove(&id).await;
                    self.publish(&id, &payload).await?;
                }
                published = Some(Instant::now());
            }
            self.tell_of_silence();
            is_woken = time::timeout(LOOK, waiting.woken.notified()).await.is_ok();
        }
    }

    /// Says once for every kind of machine but this one's that it has a part in the run.
    fn answered_by(&self, machine: &str) {
        if machine != machine_kind(&Machine::this())
            && locked(&self.others).insert(machine.to_owned())
        {
            log::warn!(
                "machines of the kind {machine} answer too; a run by one kind alone may differ in the last bits"
            );
        }
    }

    /// Says once a minute that nobody answers, if that is so.
    fn tell_of_silence(&self) {
        let silence = locked(&self.last_answer).elapsed();
        let mut told = locked(&self.told);
        if silence > SILENCE && told.elapsed() > SILENCE {
            *told = Instant::now();
            let (seconds, jobs) = (silence.as_secs(), locked(&self.waiting).len());
            log::warn!(
                "no worker has answered for {seconds} s, {jobs} jobs wait; `releq workers` lists who is there"
            );
        }
    }

    /// Puts a job into the queue, unless it is there; tells whether it was not.
    async fn publish(&self, id: &str, payload: &[u8]) -> Result<bool, RemoteError> {
        let jetstream = &self.connection.jetstream;
        let put = || {
            let (subject, payload) = (subject(id), payload.to_vec());
            async move {
                let acknowledged = match jetstream.publish(subject, payload.into()).await {
                    Ok(stored) => stored.await,
                    Err(error) => Err(error),
                };
                match acknowledged {
                    Err(error) if chain(&error).contains("maximum messages per subject") => {
                        Ok(false)
                    }
                    other => other.map(|_| true),
                }
            }
        };
        self.connection.persist("queue a job", None, put).await
    }

    /// Removes a result that is none, so that the job can be done again.
    async fn forget(&self, id: &str) -> Result<(), RemoteError> {
        let results = &self.layout.results;
        self.connection.persist("remove a result", None, || results.purge(id.to_owned())).await
    }

    /// Takes a job out of the queue that this search has no use for any more. Another search that waits for the same puts
    /// it there again.
    fn withdraw(self: &Arc<Self>, engine: &Engine, id: &str) {
        if !self.connection.away().is_zero() {
            return;
        }
        let (shared, id) = (Arc::clone(self), id.to_owned());
        let _ = engine.call(async move { shared.remove(&id).await });
    }

    /// Takes a job out of the queue, if it is there and the server is quick.
    async fn remove(&self, id: &str) {
        let subject = subject(id);
        let remove = async {
            let stream = self.connection.jetstream.get_stream_no_info(JOBS).await.ok()?;
            let job = stream.get_last_raw_message_by_subject(&subject).await.ok()?;
            // To purge the subject would be one call, but servers such as Debian's 2.9.10 then never give out the jobs
            // that were queued before it (https://github.com/nats-io/nats.go/issues/1202).
            stream.delete_message(job.sequence).await.ok()
        };
        let _ = time::timeout(LOOK, remove).await;
    }

    /// Whether no job in the queue will be given out or is being done, so that those which are there were done before a
    /// crash of the server, or were forgotten in one.
    async fn is_stale(&self) -> bool {
        let mut jobs = self.layout.jobs.clone();
        match time::timeout(LOOK, jobs.info()).await {
            Ok(Ok(info)) => info.num_pending == 0 && info.num_ack_pending == 0,
            _ => false,
        }
    }

    /// Makes the streams and buckets anew when the server has lost them, as one does that is restarted with an empty store;
    /// for ever. What was in them is put there again by those who wait for it.
    async fn keep(self: Arc<Self>, lease: Duration) {
        let connection = &self.connection;
        loop {
            let _ = time::timeout(AGAIN, connection.reconnected()).await;
            if let Err(RemoteError::NoQueue) = Layout::open(connection).await {
                log::warn!("the server has lost its store; streams and jobs are put there again");
                if let Err(error) = Layout::create(connection, lease).await {
                    log::warn!("they are not: {}", chain(&error));
                }
                self.renewed.notify_one();
            }
        }
    }
}

/// A result that answers a job.
fn check(value: &[u8], id: &str, task: &Task) -> Result<ResultMessage, String> {
    let result: ResultMessage = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    if result.protocol != PROTOCOL || result.job != id {
        return Err("it belongs to another job".to_owned());
    }
    let wanted = matches!(task, Task::Long { weights: true, .. });
    match &result.outcome {
        Outcome::Answer { answer, .. } if !answer.fits(task) => {
            Err("it is no measurement of this kind".to_owned())
        }
        Outcome::Answer { answer: JobAnswer::Long { retrained: Ok(_), .. }, weights: None }
            if wanted =>
        {
            Err("it lacks the weights".to_owned())
        }
        _ => Ok(result),
    }
}
