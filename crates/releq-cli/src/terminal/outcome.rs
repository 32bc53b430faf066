//! How an example starts and ends.

use std::process::{ExitCode, Termination};

use anyhow::Result;

use super::output::note;

/// Runs an example. Warnings of the libraries go to standard error, more of them as `RUST_LOG` asks; so does
/// the error that ends it, on one line with its causes.
pub fn exit_code<T: Termination>(example: impl FnOnce() -> Result<T>) -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match example() {
        Ok(outcome) => outcome.report(),
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
