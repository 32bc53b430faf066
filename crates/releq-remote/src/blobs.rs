//! Contents by their hash: in the object store of the server, and in a folder of this machine.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::object_store::{GetErrorKind, Object, ObjectMetadata, ObjectStore};
use tokio::{io::AsyncReadExt as _, time};

use crate::{RemoteError, connection::Connection, engine::Engine, error::chain, message::hash};

/// Bytes of one message of the store, well below the server's limit of a megabyte.
const CHUNK: usize = 512 * 1024;
/// Most bytes of an object: images take up to 2 GiB, and weights are smaller.
const LARGEST: usize = (1 << 31) + (1 << 20);
/// How long a part of an object may take: where all of its parts are lost, the store is silent for ever.
const READ: Duration = Duration::from_secs(10);

/// Why content is not there.
#[derive(Debug)]
pub(crate) enum Missing {
    /// It is not in the store, or not what its name says; whoever has it must store it again.
    Lost(String),
    /// Something else failed.
    Failed(RemoteError),
}

impl From<RemoteError> for Missing {
    fn from(error: RemoteError) -> Self {
        Self::Failed(error)
    }
}

/// Stores content under its hash, unless it is there. `again` stores it anyhow, where it was found damaged.
pub(crate) async fn put(
    connection: &Connection,
    store: &ObjectStore,
    content: Arc<Vec<u8>>,
    again: bool,
) -> Result<String, RemoteError> {
    let name = hash(&content);
    if !again && store.info(&name).await.is_ok_and(|info| !info.deleted) {
        return Ok(name);
    }
    connection
        .persist("store an object", None, || {
            let (content, name) = (Arc::clone(&content), name.clone());
            async move {
                let metadata =
                    ObjectMetadata { name, chunk_size: Some(CHUNK), ..ObjectMetadata::default() };
                store.put(metadata, &mut content.as_slice()).await
            }
        })
        .await?;
    Ok(name)
}

/// Removes content that is not what its name says, so that it can be stored again.
pub(crate) async fn remove(store: &ObjectStore, name: &str) {
    if let Err(error) = store.delete(name).await {
        log::info!("object {name} is not removed: {}", chain(&error));
    }
}

/// The content of this hash, checked. A server that is away is waited for; content that is away is not.
pub(crate) async fn get(
    connection: &Connection,
    store: &ObjectStore,
    name: &str,
) -> Result<Vec<u8>, Missing> {
    loop {
        let opened = || async move {
            match store.get(name).await {
                Ok(object) => Ok(Some(object)),
                Err(error) if error.kind() == GetErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        let Some(object) = connection.persist("give an object", None, opened).await? else {
            return Err(Missing::Lost(format!("object {name}: it is not in the store")));
        };
        let read = read(object, name).await;
        // Its parts are silent because they are gone, or because the server is.
        if let Err(Missing::Lost(_)) = &read
            && !matches!(time::timeout(READ, store.info(name)).await, Ok(Ok(_)))
        {
            continue;
        }
        return read;
    }
}

/// All of an object, checked.
async fn read(mut object: Object, name: &str) -> Result<Vec<u8>, Missing> {
    let lost = |reason: String| Missing::Lost(format!("object {name}: {reason}"));
    let too_large = || lost(format!("it has more than {LARGEST} bytes"));
    if object.info.size > LARGEST {
        return Err(too_large());
    }
    let mut content = Vec::new();
    let mut part = vec![0; CHUNK];
    loop {
        match time::timeout(READ, object.read(&mut part)).await {
            Ok(Ok(0)) => break,
            Ok(Ok(count)) if content.len() + count > LARGEST => return Err(too_large()),
            Ok(Ok(count)) => content.extend_from_slice(&part[..count]),
            Ok(Err(error)) => return Err(lost(error.to_string())),
            Err(_) => return Err(lost("parts of it are missing".to_owned())),
        }
    }
    if hash(&content) == name { Ok(content) } else { Err(lost("it is damaged".to_owned())) }
}

/// Contents that were fetched before. Files that are removed, or damaged, are fetched again.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(crate) fn new(folder: PathBuf) -> Result<Self, RemoteError> {
        fs::create_dir_all(&folder).map_err(|source| RemoteError::File {
            what: "create",
            path: folder.clone(),
            source,
        })?;
        Ok(Self { folder })
    }

    /// A file with the content of this hash; [`RemoteError::Closed`] soon after `over` says that nobody wants it any more.
    pub(crate) fn file(
        &self,
        engine: &Engine,
        (connection, store): (&Connection, &ObjectStore),
        over: &dyn Fn() -> bool,
        name: &str,
    ) -> Result<PathBuf, Missing> {
        // A name from outside becomes one of a file.
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Missing::Lost(format!("`{name}` is no hash")));
        }
        let path = self.folder.join(name);
        if fs::read(&path).is_ok_and(|content| hash(&content) == name) {
            return Ok(path);
        }
        let (connection, store, of) = (connection.clone(), store.clone(), name.to_owned());
        let got = engine.call_unless(over, async move { get(&connection, &store, &of).await })?;
        let content = got.ok_or(RemoteError::Closed)??;
        self.write(&path, &content).map_err(|source| {
            Missing::Failed(RemoteError::File { what: "write", path: path.clone(), source })
        })?;
        Ok(path)
    }

    /// Whole or not at all, also where several processes share the folder.
    fn write(&self, path: &Path, content: &[u8]) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(content)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}
