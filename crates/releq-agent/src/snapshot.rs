//! An agent's state as plain data.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::AgentError;

/// The state of an agent between two batches, as plain data that any serde format can hold.
///
/// Numbers survive JSON bit for bit, provided that `serde_json` is built with its feature
/// `float_roundtrip`, as it is by this crate.
///
/// # Examples
///
/// ```
/// use releq_agent::{Agent, AgentSnapshot, Mode, RandomSearch};
///
/// let mut agent = RandomSearch::new(5, 1, 4);
/// let text = serde_json::to_string(&agent.snapshot()?)?;
/// agent.begin(4, Mode::Explore);
/// let expected = agent.act(&vec![vec![0.0]; 4])?;
///
/// let snapshot: AgentSnapshot = serde_json::from_str(&text)?;
/// let mut resumed = RandomSearch::new(5, 2, 4);
/// resumed.restore(&snapshot)?;
/// resumed.begin(4, Mode::Explore);
/// assert_eq!(resumed.act(&vec![vec![0.0]; 4])?, expected);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSnapshot {
    /// Name of the agent.
    pub agent: String,
    /// Version of the agent's fields, raised whenever their meaning changes.
    pub version: u32,
    /// The agent's own fields.
    pub state: Map<String, Value>,
}

impl AgentSnapshot {
    /// A snapshot without fields; [`set`](Self::set) adds them.
    #[must_use]
    pub fn new(agent: impl Into<String>, version: u32) -> Self {
        Self { agent: agent.into(), version, state: Map::new() }
    }

    /// Adds one field.
    ///
    /// JSON has no NaN and no infinity: check floats first, for they would be stored as `null`.
    ///
    /// # Errors
    /// [`AgentError::Snapshot`], naming the field, if `value` cannot be represented.
    pub fn set(
        &mut self,
        field: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), AgentError> {
        let value = serde_json::to_value(value).map_err(|error| self.error(field, error))?;
        self.state.insert(field.to_owned(), value);
        Ok(())
    }

    /// The fields, if this is a snapshot of `agent` in this `version` with these `fields` and no
    /// others.
    ///
    /// # Errors
    /// [`AgentError::Snapshot`], naming what differs.
    pub fn expect(&self, agent: &str, version: u32, fields: &[&str]) -> Result<(), AgentError> {
        let fail = |field: &str, reason: String| {
            Err(AgentError::Snapshot { agent: agent.to_owned(), field: field.to_owned(), reason })
        };
        if self.agent != agent {
            return fail("agent", format!("taken from agent `{}`", self.agent));
        }
        if self.version != version {
            return fail("version", format!("{}, expected {version}", self.version));
        }
        if let Some(field) = fields.iter().find(|field| !self.state.contains_key(**field)) {
            return fail(field, "missing".into());
        }
        match self.state.keys().find(|key| !fields.contains(&key.as_str())) {
            Some(field) => fail(field, "unknown field".into()),
            None => Ok(()),
        }
    }

    /// Reads one field.
    ///
    /// # Errors
    /// [`AgentError::Snapshot`], naming the field, if it is missing or not a `T`.
    pub fn get<T: DeserializeOwned>(&self, field: &str) -> Result<T, AgentError> {
        let value = self.state.get(field).ok_or_else(|| self.error(field, "missing"))?;
        T::deserialize(value).map_err(|error| self.error(field, error))
    }

    /// Refuses a field that is not `expected`, a setting of the agent.
    ///
    /// # Errors
    /// [`AgentError::Snapshot`], naming the field and both values.
    pub fn expect_setting(&self, field: &str, expected: usize) -> Result<(), AgentError> {
        let got: usize = self.get(field)?;
        if got == expected {
            return Ok(());
        }
        Err(self.error(field, format!("{got}, but this agent has {expected}")))
    }

    /// An error about one field of this snapshot.
    #[must_use]
    pub fn error(&self, field: impl Into<String>, reason: impl ToString) -> AgentError {
        AgentError::Snapshot {
            agent: self.agent.clone(),
            field: field.into(),
            reason: reason.to_string(),
        }
    }

    /// Reads an index below `limit`.
    pub(crate) fn get_below(&self, field: &str, limit: usize) -> Result<usize, AgentError> {
        let value: usize = self.get(field)?;
        if value < limit {
            return Ok(value);
        }
        Err(self.error(field, format!("{value} is not below {limit}")))
    }

    /// Reads `steps` actions, each below `action_count`.
    pub(crate) fn get_actions(
        &self,
        field: &str,
        steps: usize,
        action_count: usize,
    ) -> Result<Vec<usize>, AgentError> {
        let actions: Vec<usize> = self.get(field)?;
        if actions.len() != steps {
            return Err(self.error(field, format!("{} actions, expected {steps}", actions.len())));
        }
        match actions.iter().find(|action| **action >= action_count) {
            Some(action) => Err(self.error(field, format!("{action} is not below {action_count}"))),
            None => Ok(actions),
        }
    }

    /// Refuses NaN and infinity, which JSON cannot represent.
    pub(crate) fn check_finite(
        &self,
        field: &str,
        values: impl IntoIterator<Item = f64>,
    ) -> Result<(), AgentError> {
        match values.into_iter().find(|value| !value.is_finite()) {
            Some(value) => Err(self.error(field, format!("{value} is not finite"))),
            None => Ok(()),
        }
    }
}
