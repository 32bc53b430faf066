//! Why work over the network failed.

use std::path::PathBuf;

use releq::ReleqError;

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// An address that is none, or that has a secret in it.
    #[error("address `{url}`: {reason}")]
    Address {
        /// The address, without what may be a secret.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file that cannot be read or written.
    #[error("cannot {what} {file}", file = path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file with credentials that has none of the known forms.
    #[error(
        "{file}: neither credentials of NATS, nor the seed of an nkey, nor `user:password` in one line",
        file = path.display()
    )]
    Credentials {
        /// The file.
        path: PathBuf,
    },
    /// No connection to the server.
    #[error("cannot connect to {url}: {reason}")]
    Connect {
        /// The server.
        url: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The server forbids something to this user.
    #[error(
        "the server does not permit to {what}: {refusal}; docs/remote.md lists the rights of a search and of a worker"
    )]
    Permission {
        /// What was tried.
        what: String,
        /// What the server says.
        refusal: String,
    },
    /// The server's storage is full.
    #[error(
        "the server cannot {what}, its storage is full: {reason}; raise max_file_store, or delete old streams"
    )]
    Full {
        /// What was tried.
        what: String,
        /// What the server says.
        reason: String,
    },
    /// The server cannot do something.
    #[error("the server cannot {what}: {reason}")]
    Server {
        /// What was tried.
        what: String,
        /// What the server says.
        reason: String,
    },
    /// There is no queue of jobs.
    #[error("no search has used this server yet")]
    NoQueue,
    /// A worker could not carry out a job.
    #[error("worker {worker}: {reason}")]
    Worker {
        /// Its name.
        worker: String,
        /// Why.
        reason: String,
    },
    /// The thread that talks to the server has ended.
    #[error("the connection to the server was closed")]
    Closed,
    /// The run cannot be sent or taken up.
    #[error(transparent)]
    Run(#[from] ReleqError),
    /// A message that cannot be written.
    #[error("a message to the server: {0}")]
    Message(#[from] serde_json::Error),
}

impl From<RemoteError> for ReleqError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Run(error) => error,
            error => Self::Other(Box::new(error)),
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // The client repeats causes in its own texts.
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    text
}
