//! Finds the bitwidth of every layer of a neural network by reinforcement learning.
//!
//! ReLeQ (Elthakeb et al., 2018, arXiv 1811.01704) lets an agent walk over the layers of a trained
//! network and choose how many bits each layer's weights get. The network is quantized and retrained
//! briefly, and the agent is rewarded for accuracy first and for low cost second.
//!
//! - [`Search`] is the loop: layers, a budget, a reward, any [`agent`].
//! - [`evaluate`] answers how good an assignment is: by retraining, from a table, through a cache.
//! - [`Experiment`] is the whole path: pretrain, search, compare, retrain for long, report.
//!
//! The other crates of the workspace are re-exported: [`core`], [`quant`], [`agent`], [`reward`],
//! [`hw`], [`zoo`].

mod environment;
mod error;
pub mod evaluate;
mod experiment;
mod files;
mod report;
mod search;

pub use environment::{ActionSpace, EvaluationMode, Scored, SearchLayer};
pub use error::ReleqError;
pub use experiment::{Experiment, ExperimentConfig, Progress, Stage};
pub use releq_agent as agent;
pub use releq_core as core;
pub use releq_hw as hw;
pub use releq_quant as quant;
pub use releq_reward as reward;
pub use releq_zoo as zoo;
pub use report::{FinalRow, LayerRow, Report};
pub use search::{
    BatchRecord, Budget, Search, SearchBuilder, SearchOutcome, SearchProgress, StopReason,
    pareto_frontier,
};
