//! What the program shows, and how it ends.

pub(crate) mod bars;
pub mod interrupt;
mod outcome;
pub mod output;
pub(crate) mod report;
pub mod tables;

pub use outcome::exit_code;
