//! Shared by the examples: reading data and checkpoints, running a search and showing what it found.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "examples talk to their user")]

mod bars;
pub mod checkpoint;
pub mod data;
pub mod interrupt;
mod outcome;
mod search;
mod tables;

pub use outcome::exit_code;
pub use search::SearchArgs;
