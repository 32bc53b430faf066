//! The program as its users run it. One target, since linking Burn takes longer than the tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

mod experiments;
mod exports;
mod files;
mod help;
#[cfg(unix)]
mod interrupted_training;
mod kills;
mod mistakes;
mod models;
mod results;
mod searches;
mod support;
#[cfg(unix)]
mod workers;
