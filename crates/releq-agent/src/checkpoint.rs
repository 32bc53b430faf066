//! Saving an agent whole, and going on from there as if it had never stopped.

use std::{fs, io::Write, path::Path};

use atomic_write_file::AtomicWriteFile;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{AgentError, Ppo, network::ActorCritic, ppo::PpoState};

/// Raised whenever what is saved changes.
const FORMAT: &str = "releq-agent ppo 1";

#[derive(Serialize, Deserialize)]
struct Saved {
    format: String,
    #[serde(flatten)]
    agent: serde_json::Value,
}

impl Ppo {
    /// Writes weights, moments of the optimizer, random state and configuration as JSON, whole or not
    /// at all. A batch of episodes that is not finished is not saved.
    ///
    /// # Errors
    /// [`AgentError::Io`], naming the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), AgentError> {
        let path = path.as_ref();
        let fail = |source| AgentError::Io { path: path.to_owned(), source };
        let agent = serde_json::to_value(self.state())
            .map_err(|error| fail(std::io::Error::other(error)))?;
        let saved = Saved { format: FORMAT.to_owned(), agent };
        let mut file = AtomicWriteFile::open(path).map_err(fail)?;
        let bytes = serde_json::to_vec(&saved).map_err(|error| fail(error.into()))?;
        file.write_all(&bytes).and_then(|()| file.commit()).map_err(fail)
    }

    /// Reads what [`save`](Self::save) wrote; goes on exactly where the saved agent would have.
    ///
    /// # Errors
    /// [`AgentError::Io`] if the file cannot be read, [`AgentError::Checkpoint`] if it is damaged, of
    /// another version, or no agent at all.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, AgentError> {
        let path = path.as_ref();
        let bytes =
            fs::read(path).map_err(|source| AgentError::Io { path: path.to_owned(), source })?;
        let fail = |reason: String| AgentError::Checkpoint { path: path.to_owned(), reason };
        let saved: Saved =
            serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
        if saved.format != FORMAT {
            return Err(fail(format!("format `{}`, expected `{FORMAT}`", saved.format)));
        }
        let state: PpoState =
            serde_json::from_value(saved.agent).map_err(|error| fail(error.to_string()))?;
        state.config.check()?;
        if state.observation_len == 0 || state.action_count == 0 {
            return Err(fail("no observations or no actions".into()));
        }
        let like = ActorCritic::new(
            state.config.trunk,
            state.config.temperature,
            state.observation_len,
            state.action_count,
            &mut ChaCha8Rng::seed_from_u64(0),
        );
        if !state.network.fits(&like) {
            return Err(fail("its weights do not fit its configuration".into()));
        }
        Ok(Self::from_state(state))
    }
}
