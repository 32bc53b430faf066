//! How the program starts and ends.

use std::{
    io::{self, Write as _},
    process::{ExitCode, Termination},
};

use anyhow::Result;
use env_logger::fmt::Formatter;
use log::{Level, Record};

use super::output::note;
use crate::args::{UsageError, options_named_in};

/// What the program exits with after a mistake on the command line, as clap does.
const USAGE: u8 = 2;

/// Runs a program. Warnings of the libraries go to standard error, more of them as `RUST_LOG` asks; so does the error
/// that ends it, on one line with its causes, and which option sets a field that it names. A mistake on the command line
/// ends it with 2, any other error with 1.
pub fn exit_code<T: Termination>(program: impl FnOnce() -> Result<T>) -> ExitCode {
    // A second program in the same process goes on with the first one's log.
    let _ = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format(logged)
        .try_init();
    match program() {
        Ok(outcome) => outcome.report(),
        Err(error) if error.chain().any(|cause| cause.is::<UsageError>()) => {
            note(format_args!("error: {error:#}\n\nFor more information, try '--help'."));
            USAGE.into()
        }
        Err(error) => {
            let message = format!("{error:#}");
            note(format_args!("error: {message}{}", options_named_in(&message)));
            ExitCode::FAILURE
        }
    }
}

/// A line of the log. Warnings are for everybody and look like other remarks; whoever asks for more wants to know when and
/// where as well.
fn logged(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let said = record.args();
    match record.level() {
        Level::Error => writeln!(out, "error: {said}"),
        Level::Warn => writeln!(out, "warning: {said}"),
        level => {
            let (time, place) = (out.timestamp(), record.target());
            writeln!(out, "[{time} {level} {place}] {said}")
        }
    }
}
