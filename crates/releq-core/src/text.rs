//! Text from outside: files in the usual encodings, and numbers as people and spreadsheets write them.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use crate::StandIn;

/// Longest file that is read as text: more than any table or any settings take.
const MOST_BYTES: u64 = 1 << 28;

/// Why a text file cannot be used, and where in it the reason is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{place}: {reason}", file = path.display(), place = place(*line))]
pub struct TextError {
    /// The file.
    pub path: PathBuf,
    /// Line in the file, from 1; 0 is the file as a whole.
    pub line: u64,
    /// What is wrong there.
    pub reason: String,
}

impl TextError {
    /// `reason`, at a line of a file.
    pub fn new(path: impl Into<PathBuf>, line: u64, reason: impl Into<String>) -> Self {
        Self { path: path.into(), line, reason: reason.into() }
    }
}

fn place(line: u64) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}

/// Reads a file of text: UTF-8 with or without a byte order mark, or UTF-16 with one, which PowerShell 5 writes
/// for `> file`. The mark is left out of the text.
///
/// # Errors
/// [`TextError`] if the file cannot be read, is larger than 256 MiB, or has another encoding, which the message
/// names where it can be told.
///
/// # Examples
/// ```
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("settings.json");
/// std::fs::write(&path, b"\xff\xfe{\0}\0")?; // UTF-16, little-endian
/// assert_eq!(releq_core::text::read(&path)?, "{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read(path: impl AsRef<Path>) -> Result<String, TextError> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| TextError::new(path, 0, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MOST_BYTES {
        let reason = format!("is larger than {} MiB, so it is not read as text", MOST_BYTES >> 20);
        return Err(TextError::new(path, 0, reason));
    }
    // Text may well be empty.
    if let Some(what) = StandIn::of(&bytes).filter(|what| *what != StandIn::Nothing) {
        return Err(TextError::new(path, 0, what.to_string()));
    }
    decode(bytes).map_err(|(line, reason)| TextError::new(path, line, reason))
}

fn decode(mut bytes: Vec<u8>) -> Result<String, (u64, String)> {
    match bytes.as_slice() {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            return Err((0, "is encoded as UTF-32; save it as UTF-8".to_owned()));
        }
        [0xff, 0xfe, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, ..] => drop(bytes.drain(..3)),
        _ => {}
    }
    if bytes.contains(&0) {
        let reason = "contains zero bytes: it is not text, or UTF-16 without a byte order mark; \
                      save it as UTF-8";
        return Err((0, reason.to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (valid, rest) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let byte = rest.first().copied().unwrap_or_default();
        let reason = format!(
            "byte {byte:#04x} is not UTF-8; the encoding may be Windows-1252 or Latin-1: save the \
             file as UTF-8"
        );
        (line, reason)
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, (u64, String)> {
    let (pairs, rest) = bytes.as_chunks();
    let text = char::decode_utf16(pairs.iter().map(|&pair| unit(pair))).collect();
    match text {
        Ok(text) if rest.is_empty() => Ok(text),
        _ => Err((0, "is damaged: it begins as UTF-16 but is not; save it as UTF-8".to_owned())),
    }
}

/// The finite number that `text` is, with a decimal point or a decimal comma.
///
/// ```
/// # use releq_core::text::decimal;
/// assert_eq!((decimal("92.5"), decimal("92,5")), (Some(92.5), Some(92.5)));
/// assert_eq!((decimal("1,234.5"), decimal("NaN")), (None, None));
/// ```
#[must_use]
pub fn decimal(text: &str) -> Option<f64> {
    let text = text.trim();
    let number = match text.matches(',').count() {
        1 if !text.contains('.') => text.replace(',', ".").parse(),
        _ => text.parse(),
    };
    number.ok().filter(|number: &f64| number.is_finite())
}

/// The whole number that `text` is, also in the form `3.0`, in which pandas writes a column with gaps.
///
/// Three zeros after the point are nothing, since `3.000` may be three or three thousand.
///
/// ```
/// # use releq_core::text::whole;
/// assert_eq!((whole("3"), whole("3.0"), whole("3,0")), (Some(3), Some(3), Some(3)));
/// assert_eq!((whole("3.5"), whole("3,000"), whole("-3")), (None, None, None));
/// ```
#[must_use]
pub fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = match text.split_once(['.', ',']) {
        None => text,
        Some((digits, zeros)) => {
            let nothing = !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0');
            (nothing && zeros.len() != 3).then_some(digits)?
        }
    };
    digits.parse().ok()
}

/// The numbers in a file of text, separated by white space, commas or semicolons, also within the brackets of a
/// list.
///
/// A comma without a space after it separates numbers where it cannot be anything else, as in `0.1,0.2`; if no comma
/// of the file is such a one, `0,1` may be a tenth and `1,234.5` more than a thousand, and both are refused.
///
/// # Errors
/// [`TextError`], naming the line, for a word that is no finite 32-bit number, for commas that may be decimal ones or
/// separate thousands, and for a file without numbers; also as [`read`].
pub fn read_numbers(path: impl AsRef<Path>) -> Result<Vec<f32>, TextError> {
    let path = path.as_ref();
    numbers(&read(path)?).map_err(|(line, reason)| TextError::new(path, line, reason))
}

fn numbers(text: &str) -> Result<Vec<f32>, (u64, String)> {
    let mut numbers = Vec::new();
    // The first word whose commas are unclear, and whether any comma is clear.
    let mut unclear = None;
    let mut is_separator = false;
    for (line, words) in (1..).zip(text.lines()) {
        let words = words.split(|letter: char| letter.is_whitespace() || ";[]".contains(letter));
        for word in words {
            let parts: Vec<&str> = word.split(',').filter(|part| !part.is_empty()).collect();
            for part in &parts {
                match part.parse::<f32>() {
                    Ok(value) if value.is_finite() => numbers.push(value),
                    Ok(_) => return Err((line, format!("`{part}` is not a finite 32-bit number"))),
                    Err(_) => return Err((line, format!("`{part}` is not a number"))),
                }
            }
            for pair in parts.windows(2) {
                match is_one_number(pair[0], pair[1]) {
                    true => drop(unclear.get_or_insert((line, word))),
                    false => is_separator = true,
                }
            }
        }
    }
    if let (Some((line, word)), false) = (unclear, is_separator) {
        let reason = format!(
            "`{word}` may be one number, with a comma for the decimals or the thousands, or several: write \
             numbers with a decimal point and without separators, and spaces between them"
        );
        return Err((line, reason));
    }
    if numbers.is_empty() { Err((0, "contains no numbers".to_owned())) } else { Ok(numbers) }
}

/// Whether `before,after` can be read as one number: with a decimal comma, or in groups of three digits.
fn is_one_number(before: &str, after: &str) -> bool {
    let is_whole = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let before = before.strip_prefix(['-', '+']).unwrap_or(before);
    let mut groups = before.split('.');
    let first = groups.next().unwrap_or_default();
    let starts_group = is_whole(first) && first.len() <= 3 && !first.starts_with('0');
    let is_grouped = starts_group && groups.all(|group| is_whole(group) && group.len() == 3);
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &after[digits..];
    let is_decimal = digits > 0 && (rest.is_empty() || rest.starts_with(['e', 'E']));
    let is_thousands = digits == 3 && (rest.is_empty() || rest.starts_with('.'));
    (is_whole(before) || is_grouped) && is_decimal
        || starts_group && first == before && is_thousands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_encodings_are_read() {
        let text = "bits\r\n2-2 \u{e9} \u{1f600}\n";
        let units = || text.encode_utf16();
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [0xff, 0xfe].into_iter().chain(units().flat_map(u16::to_le_bytes)).collect(),
            [0xfe, 0xff].into_iter().chain(units().flat_map(u16::to_be_bytes)).collect(),
        ] {
            assert_eq!(decode(bytes).as_deref(), Ok(text));
        }
        assert_eq!(decode(Vec::new()).as_deref(), Ok(""));
        assert_eq!(decode(vec![0xff, 0xfe]).as_deref(), Ok(""));
    }

    #[test]
    fn other_encodings_are_named() {
        let check = |bytes: &[u8], line: u64, expected: &str| {
            let (place, reason) = decode(bytes.to_vec()).unwrap_err();
            assert_eq!(place, line, "{reason}");
            assert!(reason.contains(expected), "`{reason}` lacks `{expected}`");
        };
        check(b"\xff\xfe\0\0b\0\0\0", 0, "UTF-32");
        check(b"\0\0\xfe\xff\0\0\0b", 0, "UTF-32");
        check(b"b\0i\0t\0s\0", 0, "UTF-16 without a byte order mark");
        check(b"bits\ncaf\xe9\n", 2, "byte 0xe9 is not UTF-8");
        check(b"\xff\xfeb\0i", 0, "begins as UTF-16");
        check(b"\xff\xfe\x00\xd8b\0", 0, "begins as UTF-16");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("missing"), folder.path().to_owned()] {
            let message = read(&path).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{}: cannot be read: ", path.display())));
        }
        let path = folder.path().join("sparse");
        File::create(&path).unwrap().set_len(MOST_BYTES + 1).unwrap();
        assert!(read(&path).unwrap_err().reason.contains("larger than 256 MiB"));
        std::fs::write(&path, b"2-2\n2\xe9\n").unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("sparse, line 2: byte 0xe9"), "{message}");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
            .unwrap();
        assert!(read(&path).unwrap_err().reason.contains("git lfs pull"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(read(&path).unwrap(), "");
    }

    #[test]
    fn only_unambiguous_numbers_are_numbers() {
        for (text, expected) in [
            (" 3 ", Some(3)),
            ("3.0", Some(3)),
            ("3.0000", Some(3)),
            ("3,00", Some(3)),
            ("", None),
            (".0", None),
            ("3.", None),
            ("3.000", None),
            ("3.01", None),
            ("1,024", None),
            ("1.0.0", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
        for (text, expected) in [
            (" 92,0 ", Some(92.0)),
            ("9.2e1", Some(92.0)),
            ("-0,5", Some(-0.5)),
            ("1,2,3", None),
            ("inf", None),
            ("1e999", None),
            ("92 %", None),
        ] {
            assert_eq!(decimal(text), expected, "{text}");
        }
    }

    #[test]
    fn lists_of_numbers_in_any_usual_form() {
        let three = || Ok(vec![0.1, 0.2, -0.3]);
        for text in [
            "0.1 0.2\n-0.3\n",
            "0.1, 0.2, -0.3",
            "0.1,0.2,-0.3",
            "0.1;0.2;\n-0.3;",
            "[0.1, 0.2, -0.3]",
            "[[0.1, 0.2], [-0.3]]\n",
            "0.1,0.2\n-0.3",
        ] {
            assert_eq!(numbers(text), three(), "{text}");
        }
        assert_eq!(numbers("0, 1, 2"), Ok(vec![0.0, 1.0, 2.0]));
        // One comma that can only separate tells what the others are.
        assert_eq!(numbers("0.5,0,1,-2"), Ok(vec![0.5, 0.0, 1.0, -2.0]));
        assert_eq!(numbers("0,1\n0,-1"), Ok(vec![0.0, 1.0, 0.0, -1.0]));
        assert_eq!(numbers("0,0.25"), Ok(vec![0.0, 0.25]));
        for (text, line, expected) in [
            ("0,1 0,2", 1, "`0,1` may be one number"),
            ("1\n[0,1]", 2, "`0,1` may be"),
            ("0,1 0.5", 1, "`0,1` may be one number"),
            ("0.5\n1,234.5", 2, "`1,234.5` may be one number"),
            ("1,234", 1, "`1,234` may be"),
            ("-1.234,5", 1, "`-1.234,5` may be"),
            ("1,234,567.5", 1, "`1,234,567.5` may be"),
            ("2,5e-3", 1, "`2,5e-3` may be"),
            ("0,1;0,2", 1, "`0,1` may be"),
            ("0.1 x,2", 1, "`x` is not a number"),
            ("0.1\n1e40", 2, "`1e40` is not a finite"),
            ("0.1 NaN", 1, "`NaN` is not a finite"),
            (" \n", 0, "no numbers"),
        ] {
            let (place, reason) = numbers(text).unwrap_err();
            assert!(place == line && reason.contains(expected), "{text}: {reason}");
        }
    }
}
