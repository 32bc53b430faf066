//! Agents in files.

use std::{fs, path::Path};

use releq_core::{StandIn, atomic_file, sealed};
use serde_json::Value;

use crate::{Agent, AgentError, AgentSnapshot, Ppo};

impl Ppo {
    /// Writes the [`snapshot`](Agent::snapshot) as JSON with a checksum. The file is written whole or not at all; of a
    /// symbolic link, the file that it refers to.
    ///
    /// # Errors
    /// [`AgentError::Io`], naming the file, and the errors of [`snapshot`](Agent::snapshot).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), AgentError> {
        let path = path.as_ref();
        let fail = |source| AgentError::Io { path: path.to_owned(), source };
        let mut snapshot =
            serde_json::to_value(self.snapshot()?).map_err(|error| fail(error.into()))?;
        if let Value::Object(object) = &mut snapshot {
            sealed::seal(object);
        }
        atomic_file::write(path, snapshot.to_string().as_bytes()).map_err(fail)
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
        if let Some(what) = StandIn::of(&bytes) {
            return Err(fail(format!("it {what}")));
        }
        let value = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
        let value = sealed::open(value).map_err(|error| fail(error.to_string()))?;
        let snapshot: AgentSnapshot =
            serde_json::from_value(value).map_err(|error| fail(error.to_string()))?;
        Self::from_snapshot(&snapshot).map_err(|error| fail(error.to_string()))
    }
}
