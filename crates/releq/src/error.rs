//! What can go wrong in a search.

use std::path::PathBuf;

use releq_core::{BitwidthAssignment, BitwidthError, CostError};

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleqError {
    /// A setting of the search that cannot work.
    #[error("`{setting}`: {reason}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A table of measured accuracies that cannot be read.
    #[error("{file}{place}: {reason}", file = path.display(), place = place(*line))]
    Table {
        /// The file.
        path: PathBuf,
        /// Line in the file, from 1; 0 is the file as a whole.
        line: u64,
        /// What is wrong there.
        reason: String,
    },
    /// An assignment that the table does not hold.
    #[error(
        "the table has no entry for {0}; answer misses with the nearest entry, or search only its bitwidths"
    )]
    TableMiss(BitwidthAssignment),
    /// A file that cannot be written.
    #[error("cannot write {file}", file = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The agent failed.
    #[error(transparent)]
    Agent(#[from] releq_agent::AgentError),
    /// Training failed for another reason than a diverging loss.
    #[error(transparent)]
    Train(#[from] releq_train::TrainError),
    /// A data set cannot be used.
    #[error(transparent)]
    Data(#[from] releq_data::DataError),
    /// A cost model does not cover the network.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// A bitwidth that cannot be.
    #[error(transparent)]
    Bitwidth(#[from] BitwidthError),
    /// Stopped by the caller.
    #[error("stopped before there was a result")]
    Cancelled,
}

fn place(line: u64) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}
