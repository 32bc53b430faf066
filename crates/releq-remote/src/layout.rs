//! What is on the server: one queue of jobs and three buckets.
//!
//! | stream | holds | written by |
//! |---|---|---|
//! | `RELEQ_JOBS` | jobs that have no answer yet, one subject each | searches |
//! | `KV_RELEQ_RESULTS` | answers by the hash of their job, written once | workers |
//! | `OBJ_RELEQ_BLOBS` | descriptions of runs and weights, by the hash of their content | both |
//! | `KV_RELEQ_WORKERS` | what every worker does, forgotten after half a minute | workers |

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, PullConsumer, pull},
    kv, object_store,
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
};

use crate::{RemoteError, connection::Connection};

pub(crate) const JOBS: &str = "RELEQ_JOBS";
/// The one durable consumer of jobs.
pub(crate) const CONSUMER: &str = "workers";
const RESULTS: &str = "RELEQ_RESULTS";
const BLOBS: &str = "RELEQ_BLOBS";
const WORKERS: &str = "RELEQ_WORKERS";

/// Nobody asks for answers and weights of runs that old; a run that does computes them again.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// A worker that was silent for so long is gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);
/// How often a call is made before a server is said to be unable to.
const PATIENCE: u32 = 4;

/// The subject of a job.
pub(crate) fn subject(id: &str) -> String {
    format!("releq.jobs.{id}")
}

/// The streams and buckets of a server.
#[derive(Clone)]
pub(crate) struct Layout {
    pub(crate) jobs: PullConsumer,
    pub(crate) results: kv::Store,
    pub(crate) blobs: object_store::ObjectStore,
    pub(crate) workers: kv::Store,
}

impl Layout {
    /// Creates what is not there yet, as searches do. `lease` is how long a job stays with a worker that says nothing; where
    /// the queue is there already, it keeps the lease that it has.
    pub(crate) async fn create(
        connection: &Connection,
        lease: Duration,
    ) -> Result<Self, RemoteError> {
        let jetstream = &connection.jetstream;
        let jobs = stream::Config {
            name: JOBS.to_owned(),
            subjects: vec![subject("*")],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            // A job that is there already is refused, not replaced.
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            duplicate_window: Duration::from_secs(1),
            num_replicas: 1,
            ..stream::Config::default()
        };
        let results = bucket(RESULTS, KEEP);
        let workers = bucket(WORKERS, SILENCE);
        for config in [jobs, results, workers] {
            let what = format!("create the stream {}", config.name);
            connection
                .persist(&what, Some(PATIENCE), || jetstream.create_stream(config.clone()))
                .await?;
        }
        let blobs = || object_store::Config {
            bucket: BLOBS.to_owned(),
            max_age: KEEP,
            storage: StorageType::File,
            num_replicas: 1,
            ..object_store::Config::default()
        };
        let what = format!("create the object store {BLOBS}");
        connection
            .persist(&what, Some(PATIENCE), || jetstream.create_object_store(blobs()))
            .await?;
        // To create a consumer that is there with another lease would change it for everybody.
        let there = jetstream.get_consumer_from_stream::<pull::Config, _, _>(CONSUMER, JOBS).await;
        if there.is_err() {
            let config = || pull::Config {
                durable_name: Some(CONSUMER.to_owned()),
                ack_policy: AckPolicy::Explicit,
                ack_wait: lease,
                max_ack_pending: 100_000,
                ..pull::Config::default()
            };
            connection
                .persist("create the queue's consumer", Some(PATIENCE), || {
                    jetstream.create_consumer_on_stream(config(), JOBS)
                })
                .await?;
        }
        Self::open(connection).await
    }

    /// What searches have created.
    pub(crate) async fn open(connection: &Connection) -> Result<Self, RemoteError> {
        let jetstream = &connection.jetstream;
        let patience = Some(PATIENCE);
        Ok(Self {
            jobs: connection
                .persist("give the queue of jobs", patience, || {
                    jetstream.get_consumer_from_stream(CONSUMER, JOBS)
                })
                .await?,
            results: connection
                .persist("give the results", patience, || jetstream.get_key_value(RESULTS))
                .await?,
            blobs: connection
                .persist("give the object store", patience, || jetstream.get_object_store(BLOBS))
                .await?,
            workers: connection
                .persist("give the list of workers", patience, || jetstream.get_key_value(WORKERS))
                .await?,
        })
    }

    /// How long a job stays with a worker that says nothing.
    pub(crate) fn lease(&self) -> Duration {
        self.jobs.cached_info().config.ack_wait
    }
}

/// The stream behind a bucket: the client's own call for it fails on servers before 2.10.
fn bucket(name: &str, max_age: Duration) -> stream::Config {
    stream::Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        max_age,
        storage: StorageType::File,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        discard: DiscardPolicy::New,
        num_replicas: 1,
        ..stream::Config::default()
    }
}
