//! What stands on the command line, and in the files that it names.

pub mod checkpoint;
pub mod data;
pub mod options;
mod search;

pub use search::SearchArgs;
