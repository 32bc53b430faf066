//! What stands on the command line, and in the files that it names.
//!
//! A word means the same in every command: what several commands take is a group of options here, or one of the parsers of
//! [`options`].

mod agent;
pub mod checkpoint;
pub mod costs;
pub mod data;
mod fields;
mod files;
pub mod images;
mod model;
mod network;
mod normalization;
pub mod options;
mod problem;
mod search;
pub(crate) mod settings;
mod table;
mod training;
mod unique_json;
mod usage;
mod workers;

pub use agent::AgentArg;
pub use data::DataArgs;
pub(crate) use fields::options_named_in;
pub use files::Files;
pub use images::ImageArgs;
pub use model::{NamedNetwork, NetworkName, NoNetwork};
pub use network::{NetworkArgs, PrecisionArgs, WeightsArgs};
pub use normalization::NormalizationArgs;
pub use problem::{Keep, ProblemArgs};
pub(crate) use search::named;
pub use search::{OutputArgs, SearchArgs};
pub use table::TableArgs;
pub use training::TrainingArgs;
pub use usage::{UsageError, usage};
pub use workers::{ServerArgs, WorkersArgs, tell_shares};
