//! The lines of text in which protocol 0 has strings.

/// The text that the line of an instruction `UNICODE` is: Latin-1, with `\u` and `\U` before the four or eight hexadecimal
/// digits of other characters. `None` if such digits are none of a character.
///
/// ```
/// # use releq_pickle::unicode_line;
/// assert_eq!(unicode_line(b"caf\xe9 \\u000a").as_deref(), Some("café \n"));
/// ```
#[must_use]
pub fn unicode_line(line: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = match (byte, after) {
            (b'\\', [b'u', ..]) => 4,
            (b'\\', [b'U', ..]) => 8,
            // A backslash before another is none before what follows that.
            (b'\\', [b'\\', after @ ..]) => {
                text.push_str("\\\\");
                rest = after;
                continue;
            }
            _ => {
                text.push(char::from(byte));
                continue;
            }
        };
        let (code, after) = after[1..].split_at_checked(digits)?;
        text.push(char::from_u32(hexadecimal(code)?)?);
        rest = after;
    }
    Some(text)
}

/// The bytes that the line of an instruction `STRING` is: in quotes, with the escapes of Python's literals. `None` if it is
/// not in quotes, or ends within an escape.
///
/// ```
/// # use releq_pickle::string_line;
/// assert_eq!(string_line(br"'\x00\n\\'").as_deref(), Some(&b"\x00\n\\"[..]));
/// ```
#[must_use]
pub fn string_line(line: &[u8]) -> Option<Vec<u8>> {
    // Written as text, lines end otherwise on Windows.
    let [first @ (b'\'' | b'"'), rest @ .., last] = line.strip_suffix(b"\r").unwrap_or(line) else {
        return None;
    };
    if first != last {
        return None;
    }
    let mut bytes = Vec::with_capacity(rest.len());
    let mut rest = rest;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&letter, after) = rest.split_first()?;
        rest = after;
        match letter {
            b'\\' | b'\'' | b'"' => bytes.push(letter),
            b'a' => bytes.push(7),
            b'b' => bytes.push(8),
            b't' => bytes.push(b'\t'),
            b'n' => bytes.push(b'\n'),
            b'v' => bytes.push(11),
            b'f' => bytes.push(12),
            b'r' => bytes.push(b'\r'),
            b'x' => {
                let (code, after) = rest.split_at_checked(2)?;
                bytes.push(hexadecimal(code)? as u8);
                rest = after;
            }
            b'0'..=b'7' => {
                let is_octal = |digit: &&u8| (b'0'..=b'7').contains(*digit);
                let more = rest.iter().take(2).take_while(is_octal).count();
                let digits = rest[..more].iter().map(|digit| u32::from(digit - b'0'));
                bytes.push(
                    digits.fold(u32::from(letter - b'0'), |code, digit| 8 * code + digit) as u8
                );
                rest = &rest[more..];
            }
            _ => bytes.extend([b'\\', letter]),
        }
    }
    Some(bytes)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_python_escaped() {
        for (line, expected) in [
            (&b""[..], Some("")),
            (b"a\xc8\xff", Some("a\u{c8}\u{ff}")),
            (br"\u0000\u000d\u005c", Some("\0\r\\")),
            (br"\U0001f600", Some("\u{1f600}")),
            // Python takes a backslash with what follows it.
            (br"\\u0041\n", Some(r"\\u0041\n")),
            (b"\\", Some("\\")),
            (br"\u00", None),
            (br"\u00g0", None),
            (br"\u+041", None),
            (br"\ud800", None),
            (br"\Uffffffff", None),
        ] {
            assert_eq!(unicode_line(line).as_deref(), expected, "{line:?}");
        }
    }

    #[test]
    fn strings_are_what_python_escaped() {
        for (line, expected) in [
            (&b"''"[..], Some(&b""[..])),
            (b"'a\xff'\r", Some(b"a\xff")),
            (br#""it's""#, Some(b"it's")),
            (br"'\x00\xfe\'\\\t\n\r'", Some(b"\x00\xfe'\\\t\n\r")),
            (br"'\0\1018\377'", Some(b"\x00A8\xff")),
            (br"'\a\b\v\f\q'", Some(b"\x07\x08\x0b\x0c\\q")),
            (b"", None),
            (b"'", None),
            (b"plain", None),
            (b"'mixed\"", None),
            (br"'\'", None),
            (br"'\x0'", None),
            (br"'\xzz'", None),
        ] {
            assert_eq!(string_line(line).as_deref(), expected, "{line:?}");
        }
    }
}
