#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod actor_critic;
mod adam;
mod agent;
#[cfg(any(test, feature = "testing"))]
mod check;
mod checkpoint;
mod config;
mod dense;
mod environment;
mod error;
mod evolution;
mod exhaustive;
mod gae;
mod greedy;
mod imitation;
mod listed;
mod local;
mod loss;
mod lstm;
mod network;
mod parameter;
mod ppo;
mod random;
mod rollout;
mod sequences;
mod snapshot;
mod step_actions;
#[cfg(test)]
mod tests;
mod turns;

pub use agent::{Agent, Demonstration, Mode, UpdateStats};
#[cfg(any(test, feature = "testing"))]
pub use check::{EpisodeShape, check_agent};
pub use config::{PpoConfig, Trunk, ValueTarget};
pub use environment::{Environment, Transition, play};
pub use error::AgentError;
pub use evolution::Evolution;
pub use exhaustive::Exhaustive;
pub use gae::gae;
pub use greedy::GreedySearch;
pub use listed::Listed;
pub use local::LocalSearch;
pub use ppo::Ppo;
pub use random::RandomSearch;
pub use snapshot::AgentSnapshot;
pub use step_actions::StepActions;
pub use turns::Turns;
