//! Who works at a server.

use std::time::Duration;

use async_nats::jetstream::kv::Store;
use futures_util::StreamExt as _;

use crate::{
    Access, RemoteError, WorkerStatus, connection::Connection, engine::Engine, error::chain,
    layout::Layout,
};

/// Whoever asks who is there does not want to wait for a server that is about to start.
const PATIENCE: Duration = Duration::from_secs(4);

/// The workers of a server, and how much there is to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Roster {
    /// The server's version.
    pub server: String,
    /// Jobs without an answer, those that somebody is at among them.
    pub jobs: u64,
    /// By name.
    pub workers: Vec<WorkerStatus>,
}

/// Asks a server for its workers.
///
/// # Errors
/// [`RemoteError`] if the server does not answer, or no search has ever used it.
pub fn roster(access: &Access) -> Result<Roster, RemoteError> {
    let engine = Engine::start()?;
    let access = access.clone();
    engine.call(async move {
        let connection = Connection::open(&access, "releq workers", PATIENCE).await?;
        let layout = Layout::open(&connection).await?;
        let server = connection.jetstream.client().server_info().version.clone();
        // What the consumer knows, not what the stream holds: after a crash, servers such as Debian's 2.9.10 keep messages
        // that were done.
        let jobs = layout.jobs.cached_info();
        let jobs = jobs.num_pending + jobs.num_ack_pending as u64;
        Ok(Roster { server, jobs, workers: workers(&layout.workers).await? })
    })?
}

/// What all workers say of themselves, by name.
///
/// The server is asked for the keys, which it answers at once. The client's own call for them reads them from the stream, and
/// waits for ever where one that was there when it began has left before it came.
pub(crate) async fn workers(bucket: &Store) -> Result<Vec<WorkerStatus>, RemoteError> {
    let failed = |reason: String| RemoteError::Server { what: "list workers".to_owned(), reason };
    let subjects = bucket.stream.info_with_subjects(format!("{}>", bucket.prefix)).await;
    let mut subjects = subjects.map_err(|error| failed(chain(&error)))?;
    let mut workers = Vec::new();
    while let Some(subject) = subjects.next().await {
        let (subject, _) = subject.map_err(|error| failed(chain(&error)))?;
        let Some(key) = subject.strip_prefix(&bucket.prefix) else { continue };
        let value = bucket.get(key).await.map_err(|error| failed(chain(&error)))?;
        // One that has just left, or that speaks otherwise, is no reason to list none.
        let status = value.and_then(|value| serde_json::from_slice::<WorkerStatus>(&value).ok());
        workers.extend(status);
    }
    workers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(workers)
}
