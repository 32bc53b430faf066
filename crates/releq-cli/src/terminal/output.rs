//! What is said on standard output and standard error.

use std::{
    borrow::Cow,
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
    out.write_all(format!("{}\n", harmless(&text.to_string())).as_bytes())?;
    out.flush()
}

/// The text with control characters spelled out, but for line breaks, tabs and the colors of tables: names come from
/// files, and those of a terminal's own language could move its cursor, retitle its window or hide what is said.
fn harmless(text: &str) -> Cow<'_, str> {
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if text.chars().all(plain) {
        return text.into();
    }
    let mut spelled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = color(rest).unwrap_or(c.len_utf8());
        if taken > c.len_utf8() || plain(c) {
            spelled.push_str(&rest[..taken]);
        } else {
            spelled.extend(c.escape_default());
        }
        rest = &rest[taken..];
    }
    spelled.into()
}

/// Length of the sequence at the start of `text` that selects colors, if there is one.
fn color(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\x1b[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers[end..].starts_with('m').then_some("\x1b[".len() + end + 1)
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
    fn names_cannot_command_the_terminal() {
        let said = |text: &str| {
            let mut out = Vec::new();
            print_to(&mut out, text).unwrap();
            String::from_utf8(out).unwrap()
        };
        for unchanged in ["two\nlines\tand a tab", "\x1b[1;31mred\x1b[0m", "größer → ∞"] {
            assert_eq!(said(unchanged), format!("{unchanged}\n"));
        }
        assert_eq!(said("layer\x1b]0;title\x07"), "layer\\u{1b}]0;title\\u{7}\n");
        assert_eq!(said("a\rb\x1b[2Jc\x1b[31"), "a\\rb\\u{1b}[2Jc\\u{1b}[31\n");
        assert_eq!(said("\u{9b}31m\0"), "\\u{9b}31m\\u{0}\n");
    }

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
