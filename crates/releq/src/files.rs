//! Writes a file whole or not at all.

use std::{io::Write, path::Path};

use crate::ReleqError;

/// Writes `bytes` beside `path` and renames, so that no reader ever sees half a file.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ReleqError> {
    let fail = |source| ReleqError::Write { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// Fails now rather than after minutes of work if `path` cannot be written later.
pub(crate) fn check_writable(path: &Path) -> Result<(), ReleqError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let fail = |source| ReleqError::Write { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(fail(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    tempfile::NamedTempFile::new_in(folder).map(drop).map_err(fail)
}
