//! The readers of outside input as targets of fuzzers, and valid inputs to begin with.

pub mod readers;
pub mod reseal;
pub mod seeds;
