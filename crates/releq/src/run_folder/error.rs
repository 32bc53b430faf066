//! Why a run folder cannot be used.

use std::{io, path::PathBuf};

/// What helps where a run cannot go on under other settings.
pub(super) const ANEW: &str = "begin a new run in another folder";

/// What helps where a file of a run is not what was written.
pub(super) const RESTORE: &str = "restore it from a copy, or begin a new run in another folder";

/// A run folder that cannot be opened, read or written, or that belongs to another run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunFolderError {
    /// A file or the folder itself cannot be read or written.
    #[error("cannot {what} {file}", file = path.display())]
    Io {
        /// Read, write, lock, ...
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process works on the run.
    #[error("{run} is in use by {holder}; wait for its end, or stop it", run = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other process, as far as it is known.
        holder: String,
    },
    /// The folder contains files, but no run.
    #[error(
        "{folder} is not a run folder: it contains `{found}` but no config.json; name a new folder, or an empty one",
        folder = path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// One of the files.
        found: String,
    },
    /// The folder contains no run.
    #[error("{folder} is not a run folder: there is no config.json in it", folder = path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// The run has no answer, or none yet.
    #[error("{run} has no answer: {reason}", run = path.display())]
    NoAnswer {
        /// The folder.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A file does not contain what a run wrote there.
    #[error("{file}: {reason}; {remedy}", file = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The run was begun with other settings, data or weights, or by another version.
    #[error(
        "{run} was begun with {what} {begun}, and cannot go on with {now}; {remedy}",
        run = path.display()
    )]
    Differs {
        /// The folder.
        path: PathBuf,
        /// The setting, or what else differs.
        what: String,
        /// What the run was begun with.
        begun: String,
        /// What it is now.
        now: String,
        /// What to do.
        remedy: &'static str,
    },
}
