//! Writes a file whole or not at all.

use std::{io::Write, path::Path};

use atomic_write_file::AtomicWriteFile;

use crate::ReleqError;

/// Writes `bytes` beside `path` and renames, so that no reader ever sees half a file.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ReleqError> {
    let fail = |source| ReleqError::Write { path: path.to_owned(), source };
    let mut file = AtomicWriteFile::open(path).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.commit()).map_err(fail)
}

/// Fails now rather than after minutes of work if `path` cannot be written later.
pub(crate) fn check_writable(path: &Path) -> Result<(), ReleqError> {
    let fail = |source| ReleqError::Write { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(fail(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    AtomicWriteFile::open(path).and_then(AtomicWriteFile::discard).map_err(fail)
}
