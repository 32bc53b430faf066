//! The parts of a variable: a tag, bytes, padding.

use std::io::{self, Read};

/// Largest part that is read before the values: flags, dimensions, name.
const LARGEST_PART: u64 = 1 << 10;
/// Bytes that are converted at a time.
const CHUNK: usize = 1 << 16;

/// Why a variable cannot be read: while doing what, or what is wrong with it.
pub(super) enum Failure {
    Io(String, io::Error),
    Problem(String),
}

pub(super) fn words(bytes: [u8; 8], big_endian: bool) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = bytes;
    [[a, b, c, d], [e, f, g, h]]
        .map(|word| if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
}

/// The tag of a part of a variable.
struct Tag {
    kind: u32,
    size: u64,
    /// The bytes themselves, if they are packed into the tag.
    packed: Option<[u8; 4]>,
}

fn tag(input: &mut impl Read, big_endian: bool, doing: &str) -> Result<Tag, Failure> {
    let mut tag = [0; 8];
    input.read_exact(&mut tag).map_err(|error| Failure::Io(doing.to_owned(), error))?;
    let [first, size] = words(tag, big_endian);
    // Up to four bytes are packed into the tag, their number into the upper half of the type.
    if first >> 16 == 0 {
        return Ok(Tag { kind: first, size: size.into(), packed: None });
    }
    let (kind, size) = (first & 0xffff, first >> 16);
    if size > 4 {
        return Err(Failure::Problem(format!("{doing} packs {size} bytes into four")));
    }
    Ok(Tag { kind, size: size.into(), packed: Some([tag[4], tag[5], tag[6], tag[7]]) })
}

/// Passes over the padding behind a part.
fn padding(input: &mut impl Read, tag: &Tag, doing: &str) -> Result<(), Failure> {
    let padding = if tag.packed.is_some() { 0 } else { (8 - tag.size as usize % 8) % 8 };
    let result = input.read_exact(&mut [0; 8][..padding]);
    result.map_err(|error| Failure::Io(doing.to_owned(), error))
}

/// Reads a small part.
pub(super) fn part(
    input: &mut impl Read,
    big_endian: bool,
    doing: &str,
) -> Result<Vec<u8>, Failure> {
    let tag = tag(input, big_endian, doing)?;
    if tag.size > LARGEST_PART {
        let size = tag.size;
        let problem = format!("{doing} has {size} bytes, expected at most {LARGEST_PART}");
        return Err(Failure::Problem(problem));
    }
    let mut bytes = vec![0; tag.size as usize];
    match tag.packed {
        Some(packed) => bytes.copy_from_slice(&packed[..tag.size as usize]),
        None => {
            let result = input.read_exact(&mut bytes);
            result.map_err(|error| Failure::Io(doing.to_owned(), error))?;
        }
    }
    padding(input, &tag, doing)?;
    Ok(bytes)
}

/// Reads `count` numbers as bytes.
pub(super) fn values(
    input: &mut impl Read,
    big_endian: bool,
    name: &str,
    count: usize,
    dims: &[usize],
) -> Result<Vec<u8>, Failure> {
    let doing = format!("the values of `{name}`");
    let problem = |problem: String| Failure::Problem(format!("`{name}`: {problem}"));
    let tag = tag(input, big_endian, &doing)?;
    let width = match tag.kind {
        1 | 2 => 1,
        3 | 4 => 2,
        5..=7 => 4,
        9 | 12 | 13 => 8,
        kind => return Err(problem(format!("values of type {kind}, expected numbers"))),
    };
    if tag.size != (count as u64).saturating_mul(width as u64) {
        let found = tag.size / width as u64;
        return Err(problem(format!("{found} values for dimensions {dims:?}")));
    }
    let mut values = Vec::with_capacity(count);
    let packed = tag.packed.unwrap_or_default();
    let mut chunk = vec![0; CHUNK];
    while values.len() < count {
        let chunk = &mut chunk[..CHUNK.min((count - values.len()) * width)];
        match tag.packed {
            Some(_) => chunk.copy_from_slice(&packed[..chunk.len()]),
            None => {
                let result = input.read_exact(chunk);
                result.map_err(|error| Failure::Io(doing.clone(), error))?;
            }
        }
        for number in chunk.chunks_exact(width) {
            values.push(byte(number, tag.kind, big_endian).map_err(problem)?);
        }
    }
    padding(input, &tag, &doing)?;
    Ok(values)
}

/// The byte that has the value of `number`.
fn byte(number: &[u8], kind: u32, big_endian: bool) -> Result<u8, String> {
    if let (&[byte], 2) = (number, kind) {
        return Ok(byte);
    }
    let mut le = [0; 8];
    le[..number.len()].copy_from_slice(number);
    if big_endian {
        le[..number.len()].reverse();
    }
    let [a, b, c, d, ..] = le;
    let value = match kind {
        1 => f64::from(i8::from_le_bytes([a])),
        3 => f64::from(i16::from_le_bytes([a, b])),
        5 => f64::from(i32::from_le_bytes([a, b, c, d])),
        7 => f64::from(f32::from_le_bytes([a, b, c, d])),
        9 => f64::from_le_bytes(le),
        12 => i64::from_le_bytes(le) as f64,
        _ => u64::from_le_bytes(le) as f64,
    };
    let byte = value as u8;
    if f64::from(byte) == value {
        Ok(byte)
    } else {
        Err(format!("value {value:?} is not a whole number from 0 to 255"))
    }
}
