#![doc = include_str!("../README.md")]

mod environment;
mod error;
pub mod evaluate;
mod experiment;
mod files;
mod finals;
mod report;
mod search;

pub use environment::{ActionSpace, EvaluationMode, Scored, SearchLayer};
pub use error::ReleqError;
pub use experiment::{Experiment, ExperimentConfig, HeldOut, Progress, Stage};
pub use releq_agent as agent;
pub use releq_core as core;
pub use releq_data as data;
pub use releq_format as format;
pub use releq_hw as hw;
pub use releq_quant as quant;
pub use releq_reward as reward;
pub use releq_train as train;
pub use releq_zoo as zoo;
pub use report::{FinalRow, LayerRow, Report};
pub use search::{
    BatchRecord, Budget, Search, SearchBuilder, SearchOutcome, SearchProgress, StopReason,
    pareto_frontier,
};
