//! The agents that a configuration can name.

use std::fmt;

use releq_agent::{
    Agent, Evolution, Exhaustive, GreedySearch, LocalSearch, PpoConfig, RandomSearch, StepActions,
};
use releq_core::UnknownName;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};

use super::pieces::TOGETHER;
use crate::{Planning, Problem, ReleqError};

/// The agents of `releq-agent`, by name and settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AgentKind {
    /// [`Ppo`](releq_agent::Ppo), which learns from measurements alone.
    Ppo(PpoConfig),
    /// [`Ppo`](releq_agent::Ppo) in a search that [plans](Planning).
    PpoPlanned(PlannedPpo),
    /// [`RandomSearch`](releq_agent::RandomSearch), eight episodes at a time.
    Random,
    /// [`GreedySearch`](releq_agent::GreedySearch).
    Greedy,
    /// [`LocalSearch`](releq_agent::LocalSearch), one episode at a time.
    Local,
    /// [`Evolution`](releq_agent::Evolution), one episode at a time.
    Evolution,
    /// [`Exhaustive`](releq_agent::Exhaustive), eight episodes at a time.
    Exhaustive,
}

const PPO: &str = "ppo";
const PPO_PLANNED: &str = "ppo-planned";

/// The agents without settings, by name.
const PLAIN: [(&str, AgentKind); 5] = [
    ("random", AgentKind::Random),
    ("greedy", AgentKind::Greedy),
    ("local", AgentKind::Local),
    ("evolution", AgentKind::Evolution),
    ("exhaustive", AgentKind::Exhaustive),
];

impl Default for AgentKind {
    fn default() -> Self {
        Self::PpoPlanned(PlannedPpo::default())
    }
}

/// PPO in a search that plans.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct PlannedPpo {
    /// The agent.
    pub ppo: PpoConfig,
    /// How it learns between measurements.
    pub planning: Planning,
}

releq_core::named_fields!(PlannedPpo);

impl Default for PlannedPpo {
    /// [`PpoConfig::quick`], since what the agent learns from changes with every measurement.
    fn default() -> Self {
        Self { ppo: PpoConfig::quick(), planning: Planning::default() }
    }
}

// By hand, since the derived one knows no nearest name.
impl<'de> Deserialize<'de> for AgentKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AgentVisitor)
    }
}

struct AgentVisitor;

impl AgentVisitor {
    fn plain<E: Error>(name: &str) -> Result<AgentKind, E> {
        let mut known = PLAIN.into_iter();
        known.find(|(known, _)| *known == name).map(|(_, kind)| kind).ok_or_else(|| {
            let all = [PPO, PPO_PLANNED].into_iter().chain(PLAIN.map(|(known, _)| known));
            E::custom(UnknownName::new("agent", name, all))
        })
    }
}

impl<'de> Visitor<'de> for AgentVisitor {
    type Value = AgentKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an agent, or {name: settings}")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<AgentKind, E> {
        match name {
            PPO => Ok(AgentKind::Ppo(PpoConfig::default())),
            PPO_PLANNED => Ok(AgentKind::default()),
            name => Self::plain(name),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AgentKind, A::Error> {
        let Some(name) = map.next_key::<String>()? else {
            return Err(Error::invalid_length(0, &self));
        };
        let kind = match name.as_str() {
            PPO => AgentKind::Ppo(map.next_value()?),
            PPO_PLANNED => AgentKind::PpoPlanned(map.next_value()?),
            name => {
                let kind = Self::plain(name)?;
                map.next_value::<()>()?;
                kind
            }
        };
        match map.next_key::<String>()? {
            Some(more) => Err(Error::unknown_field(&more, &[])),
            None => Ok(kind),
        }
    }
}

/// What an agent is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentShape {
    /// Numbers in an observation.
    pub observation_len: usize,
    /// Actions to choose from, and which of them amount to the same at a step.
    pub actions: StepActions,
    /// Steps of an episode.
    pub episode_len: usize,
    /// Seed of the run.
    pub seed: u64,
}

impl AgentShape {
    /// For a search of `problem` under this seed.
    #[must_use]
    pub fn new(problem: &Problem, seed: u64) -> Self {
        Self {
            observation_len: problem.observation_len(),
            actions: problem.step_actions(),
            episode_len: problem.episode_len(),
            seed,
        }
    }
}

impl AgentKind {
    /// How the search plans for this agent, if it does.
    #[must_use]
    pub const fn planning(&self) -> Option<Planning> {
        match self {
            Self::PpoPlanned(planned) => Some(planned.planning),
            _ => None,
        }
    }

    /// Checks the hyperparameters.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn check(&self) -> Result<(), ReleqError> {
        match self {
            Self::Ppo(ppo) => Ok(ppo.check()?),
            Self::PpoPlanned(planned) => {
                planned.planning.check()?;
                Ok(planned.ppo.check()?)
            }
            _ => Ok(()),
        }
    }

    /// The agent itself.
    ///
    /// # Errors
    /// [`ReleqError::Agent`] or [`ReleqError::Setting`], naming the first hyperparameter that is out of its range.
    pub fn build(&self, shape: &AgentShape) -> Result<Box<dyn Agent>, ReleqError> {
        self.check()?;
        let &AgentShape { observation_len, ref actions, episode_len, seed } = shape;
        let init = |ppo: &PpoConfig| ppo.clone().init(observation_len, actions.count(), seed);
        let among = || actions.clone();
        Ok(match self {
            Self::Ppo(ppo) => Box::new(init(ppo)?),
            Self::PpoPlanned(planned) => Box::new(init(&planned.ppo)?),
            Self::Local => Box::new(LocalSearch::with_actions(among(), episode_len, seed, 1)),
            Self::Evolution => Box::new(Evolution::with_actions(among(), episode_len, seed, 1)),
            Self::Random => Box::new(RandomSearch::with_actions(among(), seed, TOGETHER)),
            Self::Greedy => Box::new(GreedySearch::with_actions(among(), episode_len)),
            Self::Exhaustive => Box::new(Exhaustive::with_actions(among(), episode_len, TOGETHER)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_is_read_as_it_is_written() {
        let ppo = [AgentKind::Ppo(PpoConfig::paper()), AgentKind::default()];
        for kind in PLAIN.map(|(_, kind)| kind).into_iter().chain(ppo) {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<AgentKind>(&text).unwrap(), kind, "{text}");
        }
        let named = serde_json::from_str::<AgentKind>(r#""ppo""#).unwrap();
        assert_eq!(named, AgentKind::Ppo(PpoConfig::default()));
        for text in [r#""randon""#, r#"{"randon": null}"#] {
            let error = serde_json::from_str::<AgentKind>(text).unwrap_err().to_string();
            assert!(error.contains("did you mean `random`?"), "{error}");
        }
        let two = r#"{"ppo": {}, "random": null}"#;
        assert!(serde_json::from_str::<AgentKind>(two).unwrap_err().to_string().contains("random"));
    }
}
