//! Agents in files.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use atomic_write_file::AtomicWriteFile;

use crate::{Agent, AgentError, AgentSnapshot, Ppo};

impl Ppo {
    /// Writes the [`snapshot`](Agent::snapshot) as JSON. The file is written whole or not at all; of a symbolic link,
    /// the file that it refers to.
    ///
    /// # Errors
    /// [`AgentError::Io`], naming the file, and the errors of [`snapshot`](Agent::snapshot).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), AgentError> {
        let path = path.as_ref();
        let fail = |source| AgentError::Io { path: path.to_owned(), source };
        let bytes = serde_json::to_vec(&self.snapshot()?).map_err(|error| fail(error.into()))?;
        let mut file = regular_file(path).and_then(AtomicWriteFile::open).map_err(fail)?;
        file.write_all(&bytes).and_then(|()| file.commit()).map_err(fail)
    }

    /// Reads a file written by [`save`](Self::save). The agent continues exactly where the saved one
    /// stopped.
    ///
    /// # Errors
    /// [`AgentError::Io`] if the file cannot be read; [`AgentError::Checkpoint`] if it is damaged, was
    /// written by another version, or is not an agent.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, AgentError> {
        let path = path.as_ref();
        let bytes =
            fs::read(path).map_err(|source| AgentError::Io { path: path.to_owned(), source })?;
        let fail = |reason: String| AgentError::Checkpoint { path: path.to_owned(), reason };
        let snapshot: AgentSnapshot =
            serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
        Self::from_snapshot(&snapshot).map_err(|error| fail(error.to_string()))
    }
}

/// The file that `path` refers to, which may not exist yet. A folder, a device or a pipe is an error, since a file
/// would take its place.
fn regular_file(path: &Path) -> io::Result<PathBuf> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => fs::canonicalize(path),
        Ok(_) => {
            let reason = "not a regular file; give the name of a file";
            Err(io::Error::new(ErrorKind::InvalidInput, reason))
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
            Ok(path.to_owned())
        }
        Err(error) => Err(error),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    use super::*;
    use crate::PpoConfig;

    #[test]
    fn links_stay_links_and_devices_devices() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, dangling] =
            ["file", "link", "dangling"].map(|name| folder.path().join(name));
        let agent = PpoConfig::default().init(4, 4, 9).unwrap();
        fs::write(&file, b"old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        agent.save(&link).unwrap();
        assert!(link.is_symlink() && Ppo::load(&file).is_ok());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);

        symlink("missing", &dangling).unwrap();
        for path in [&dangling, folder.path(), Path::new("/dev/null")] {
            let message = agent.save(path).unwrap_err().to_string();
            assert!(message.contains(&path.display().to_string()), "{message}");
        }
        assert!(dangling.is_symlink());
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
