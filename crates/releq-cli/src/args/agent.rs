//! The option that chooses an agent.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context, Result};
use releq::{
    AgentKind,
    agent::PpoConfig,
    core::{UnknownName, text},
};
use serde::de::IgnoredAny;

use super::options;

/// A named agent, and what it is.
type Preset = (&'static str, fn() -> AgentKind, &'static str);

/// All agents that have a name.
const PRESETS: [Preset; 10] = [
    (
        "ppo-planned",
        AgentKind::default,
        "PPO that learns on a model of the accuracy between measurements",
    ),
    (
        "ppo",
        || AgentKind::Ppo(PpoConfig::default()),
        "PPO with an LSTM, for thousands of measurements",
    ),
    ("ppo-quick", || AgentKind::Ppo(PpoConfig::quick()), "PPO for 100 to 300 measurements"),
    ("ppo-paper", || AgentKind::Ppo(PpoConfig::paper()), "PPO with the paper's settings"),
    (
        "ppo-authors-code",
        || AgentKind::Ppo(PpoConfig::authors_code()),
        "PPO with the settings of the authors' script",
    ),
    ("random", || AgentKind::Random, "random assignments"),
    ("greedy", || AgentKind::Greedy, "layer by layer, the best bitwidth of each"),
    ("local", || AgentKind::Local, "moves of one or two layers from the best uniform assignment"),
    ("evolution", || AgentKind::Evolution, "regularized evolution"),
    ("exhaustive", || AgentKind::Exhaustive, "every assignment, for small problems"),
];

/// An agent on the command line: a name, or a file with settings.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentArg {
    /// A named agent.
    Named(AgentKind),
    /// A JSON or TOML file: hyperparameters of PPO, of which missing ones keep their defaults, or an agent as it
    /// stands in a report.
    File(PathBuf),
}

impl FromStr for AgentArg {
    type Err = UnknownName;
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let path = PathBuf::from(name);
        if path.extension().is_some_and(|extension| extension == "json" || extension == "toml") {
            return Ok(Self::File(path));
        }
        let found = PRESETS.iter().find(|(known, ..)| *known == name);
        let names = PRESETS.iter().map(|(known, ..)| *known);
        let names = names.chain(["a .json or .toml file"]);
        found
            .map(|(_, kind, _)| Self::Named(kind()))
            .ok_or_else(|| UnknownName::new("agent", name, names))
    }
}

impl AgentArg {
    /// The names and what they stand for.
    pub fn presets() -> impl Iterator<Item = (&'static str, &'static str)> {
        PRESETS.iter().map(|&(name, _, description)| (name, description))
    }

    /// The file, if it is one.
    #[must_use]
    pub const fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Named(_) => None,
        }
    }

    /// The agent, read from its file if it is in one.
    ///
    /// # Errors
    /// If the file cannot be read, is no JSON or TOML, or has an unknown key; the message names file and line.
    pub fn load(&self) -> Result<AgentKind> {
        match self {
            Self::Named(kind) => Ok(kind.clone()),
            Self::File(path) => {
                let text = text::read(path)?;
                let toml = path.extension().is_some_and(|extension| extension == "toml");
                if is_whole(&text, toml) {
                    return options::settings(path).context("--agent");
                }
                Ok(AgentKind::Ppo(options::settings(path).context("--agent")?))
            }
        }
    }
}

/// Whether settings are an agent by name, and not the hyperparameters of PPO alone.
fn is_whole(text: &str, toml: bool) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Agent {
        Name(#[allow(dead_code, reason = "only the form counts")] String),
        Settings(#[allow(dead_code, reason = "only the form counts")] Tagged),
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Tagged {
        Ppo(#[allow(dead_code, reason = "only the form counts")] IgnoredAny),
        PpoPlanned(#[allow(dead_code, reason = "only the form counts")] IgnoredAny),
    }
    if toml {
        toml::from_str::<Tagged>(text).is_ok()
    } else {
        serde_json::from_str::<Agent>(text).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use std::fs;

    use super::*;

    #[test]
    fn names_stand_for_agents_and_others_are_refused_with_the_nearest() {
        for (name, _) in AgentArg::presets() {
            let AgentArg::Named(kind) = name.parse().unwrap() else { panic!("{name} is a file") };
            match kind {
                AgentKind::Ppo(_) | AgentKind::PpoPlanned(_) => assert!(name.starts_with("ppo")),
                other => assert_eq!(serde_json::to_string(&other).unwrap(), format!("\"{name}\"")),
            }
        }
        let message = "gredy".parse::<AgentArg>().unwrap_err().to_string();
        assert!(message.contains("did you mean `greedy`?"), "{message}");
        assert!(message.ends_with("or .toml file"), "{message}");
    }

    #[test]
    fn files_hold_hyperparameters_or_a_whole_agent() {
        let folder = tempfile::tempdir().unwrap();
        let load = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().parse::<AgentArg>().unwrap().load()
        };
        let expected = PpoConfig { learning_rate: 0.5, ..PpoConfig::default() };
        for (name, text) in [
            ("a.json", r#"{"learning_rate": 0.5}"#),
            ("a.json", r#"{"ppo": {"learning_rate": 0.5}}"#),
            ("a.toml", "learning_rate = 0.5\n"),
            ("a.toml", "[ppo]\nlearning_rate = 0.5\n"),
        ] {
            assert_eq!(load(name, text).unwrap(), AgentKind::Ppo(expected.clone()), "{text}");
        }
        for (name, text) in [
            ("a.json", r#"{"ppo-planned": {"planning": {"batch": 2}}}"#),
            ("a.toml", "[ppo-planned.planning]\nbatch = 2\n"),
        ] {
            let AgentKind::PpoPlanned(planned) = load(name, text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(planned.planning.batch, 2);
            assert_eq!(planned.ppo, PpoConfig::quick());
        }
        assert_eq!(load("a.json", r#""greedy""#).unwrap(), AgentKind::Greedy);
        for (name, text, expected) in [
            ("a.json", r#"{"lr": 0.5}"#, "unknown field `lr`"),
            ("a.json", r#"{"ppo": {"lr": 0.5}}"#, "unknown field `lr`"),
            ("a.toml", "lr = 0.5\n", "unknown field `lr`"),
            ("a.json", r#""gredy""#, "did you mean `greedy`?"),
            ("a.json", "{", "line 1"),
        ] {
            let message = format!("{:#}", load(name, text).unwrap_err());
            assert!(message.starts_with("--agent: ") && message.contains(name), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }
}
