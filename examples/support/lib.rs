//! Shared by the examples: reading data and checkpoints, running a search and showing what it found.
mod bars;
pub mod checkpoint;
pub mod data;
pub mod interrupt;
pub mod options;
mod outcome;
pub mod output;
mod search;
mod tables;

pub use outcome::exit_code;
pub use search::SearchArgs;
