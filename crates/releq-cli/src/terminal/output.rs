//! What is said on standard output and standard error.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
};

use anyhow::{Context, Result};

/// Writes `text` and a line break to standard output. That the reader, such as `head`, has closed the pipe is no
/// error.
///
/// # Errors
/// If it cannot be written for another reason, such as a full disk.
pub fn print(text: impl Display) -> Result<()> {
    printed(print_to(&mut io::stdout().lock(), text))
}

/// What came of writing to standard output, as [`print`] tells it.
///
/// # Errors
/// As [`print`].
pub(crate) fn printed(written: io::Result<()>) -> Result<()> {
    unless_closed(written).context("cannot write to standard output")
}

/// Writes a remark and a line break to standard error. Whether anybody reads it does not matter to the run.
pub fn note(text: impl Display) {
    let _ = print_to(&mut io::stderr().lock(), text);
}

fn print_to(out: &mut dyn Write, text: impl Display) -> io::Result<()> {
    // In one piece: a number of writes would interleave with those of progress bars.
    out.write_all(format!("{text}\n").as_bytes())?;
    out.flush()
}

fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn only_a_reader_that_left_is_forgiven() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let written = print_to(&mut writer, "nobody reads this");
        assert_eq!(written.as_ref().unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(unless_closed(written).is_ok());
        let full = Err(io::Error::from(ErrorKind::StorageFull));
        assert_eq!(unless_closed(full).unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
