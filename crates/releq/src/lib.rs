#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod cancel;
mod environment;
mod error;
pub mod evaluate;
mod event;
mod experiment;
mod guard;
pub mod jobs;
mod plain;
mod planning;
mod problem;
mod report;
mod run_folder;
mod search;
mod sensitivity;

pub use cancel::Cancel;
pub use error::ReleqError;
pub use event::{Event, Stage};
pub use experiment::{
    AgentKind, AgentShape, Choice, DataConfig, EvaluatorKind, Experiment, ExperimentConfig,
    HeldOut, NetworkConfig, PlannedPpo, RateProbe, Signal, WeightsConfig,
};
pub use planning::Planning;
pub use problem::{
    ActionSpace, EvaluationMode, Problem, ProblemBuilder, ProblemSummary, SearchLayer,
};
pub use releq_agent as agent;
pub use releq_core as core;
pub use releq_data as data;
pub use releq_format as format;
pub use releq_hw as hw;
pub use releq_quant as quant;
pub use releq_reward as reward;
pub use releq_train as train;
pub use releq_zoo as zoo;
pub use report::{Answer, FinalRow, LayerRow, Reference, Report, RoundedAccuracy, RowCost};
pub use run_folder::{RecordedRetrain, RecordedRetrains, RunAnswer, RunFolder, RunFolderError};
pub use search::{
    BatchRecord, Budget, Scored, Search, SearchOutcome, SearchState, StopReason, pareto_frontier,
    pareto_frontier_by,
};
pub use sensitivity::{LayerSensitivity, Proposed, Sensitivities, Sensitivity};
