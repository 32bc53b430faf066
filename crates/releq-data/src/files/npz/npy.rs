//! One array in NumPy's format `.npy`: a line of Python that says type and shape, and the values.
//!
//! # Source
//! `numpy.lib.format`, versions 1 to 3. The crates for it bring a parser generator for that line, ten more crates.

use std::io::{self, Read, Write};

/// Begins every file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest line that says type and shape; NumPy's own limit is 10,000.
const MOST_HEADER: usize = 1 << 16;
/// Most values, 4 GiB in single precision.
const MOST_VALUES: usize = 1 << 30;
/// Values that are read at a time.
const PART: usize = 1 << 16;

/// An array in single precision, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The values, `shape.iter().product()` of them.
    pub values: Vec<f32>,
}

/// What the values of an array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    Bool,
    Whole,
    Float,
}

/// What the line says.
#[derive(Debug)]
pub(crate) struct Header {
    big_endian: bool,
    kind: u8,
    size: usize,
    /// Whether the values come with the first dimension fastest.
    pub(crate) columns_first: bool,
    pub(crate) shape: Vec<usize>,
}

/// Reads an array, to its last byte and no further.
pub(super) fn read(file: &mut dyn Read) -> Result<Array, String> {
    let header = Header::read(file)?;
    if header.len()? > MOST_VALUES {
        return Err(header.too_large());
    }
    // Memory grows with what is there, not with what the line promises.
    let mut values = Vec::new();
    header.values(file, &mut |part| {
        values.extend(part);
        Ok(())
    })?;
    let values = if header.columns_first { row_major(&header.shape, &values) } else { values };
    Ok(Array { shape: header.shape, values })
}

/// Writes an array as NumPy does.
pub(super) fn write(file: &mut dyn Write, array: &Array) -> io::Result<()> {
    let comma = if array.shape.len() == 1 { "," } else { "" };
    let shape: Vec<String> = array.shape.iter().map(usize::to_string).collect();
    let shape = shape.join(", ");
    let line = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}{comma}), }}");
    // The values begin at a multiple of 64 bytes.
    let len = (MAGIC.len() + 4 + line.len() + 1).next_multiple_of(64) - MAGIC.len() - 4;
    let header_len = u16::try_from(len).map_err(io::Error::other)?;
    file.write_all(MAGIC)?;
    file.write_all(&[1, 0])?;
    file.write_all(&header_len.to_le_bytes())?;
    writeln!(file, "{line:<width$}", width = len - 1)?;
    for values in array.values.chunks(1 << 14) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.write_all(&bytes)?;
    }
    Ok(())
}

impl Header {
    pub(super) fn read(file: &mut dyn Read) -> Result<Self, String> {
        let ends = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends before its values".to_owned(),
            _ => error.to_string(),
        };
        let mut start = [0; 8];
        file.read_exact(&mut start).map_err(ends)?;
        let [magic @ .., major, _] = start;
        if magic != *MAGIC {
            return Err("it is no array of NumPy".to_owned());
        }
        let mut len = [0; 4];
        file.read_exact(if major == 1 { &mut len[..2] } else { &mut len }).map_err(ends)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > MOST_HEADER || !(1..=3).contains(&major) {
            return Err(format!(
                "its header, version {major} with {len} bytes, is not one of NumPy"
            ));
        }
        let mut line = vec![0; len];
        file.read_exact(&mut line).map_err(ends)?;
        let line = String::from_utf8(line).map_err(|_| "its header is no text")?;
        Self::parse(&line)
    }

    fn parse(line: &str) -> Result<Self, String> {
        let field = |name: &str| {
            let key = [format!("'{name}':"), format!("\"{name}\":")];
            let rest = key.iter().find_map(|key| line.split_once(key.as_str()));
            rest.map(|(_, rest)| rest.trim_start())
                .ok_or_else(|| format!("its header lacks {name}"))
        };
        let descr = field("descr")?;
        let quote = descr.chars().next().filter(|quote| matches!(quote, '\'' | '"'));
        let code = quote.and_then(|quote| descr[1..].split_once(quote)).map(|(code, _)| code);
        let code = code.ok_or("it is an array of records, not of numbers")?;
        let (order, rest) = match code.as_bytes() {
            [order @ (b'<' | b'>' | b'|' | b'='), rest @ ..] => (*order, rest),
            rest => (b'|', rest),
        };
        let (&[kind], size) = rest
            .split_at_checked(1)
            .and_then(|(kind, size)| {
                let size = std::str::from_utf8(size).ok()?.parse::<usize>().ok()?;
                Some((<&[u8; 1]>::try_from(kind).ok()?, size))
            })
            .ok_or_else(|| format!("its type `{code}` is unknown"))?;
        if !matches!((kind, size), (b'f', 2 | 4 | 8) | (b'i' | b'u', 1 | 2 | 4 | 8) | (b'b', 1)) {
            return Err(format!(
                "its type `{code}` is none of those that are read; save it as float32"
            ));
        }
        let columns_first = match field("fortran_order")? {
            rest if rest.starts_with("False") => false,
            rest if rest.starts_with("True") => true,
            _ => return Err("its header says nothing of the order".to_owned()),
        };
        let shape = field("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (shape, _) = shape.ok_or("its header has no shape")?;
        let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
        let shape = sizes.map(|size| size.trim_end_matches('L').parse::<usize>());
        let shape = shape.collect::<Result<_, _>>().map_err(|_| "its shape is not of numbers")?;
        Ok(Self { big_endian: order == b'>', kind, size, columns_first, shape })
    }

    pub(crate) const fn numbers(&self) -> Numbers {
        match self.kind {
            b'b' => Numbers::Bool,
            b'f' => Numbers::Float,
            _ => Numbers::Whole,
        }
    }

    /// How many values there are.
    fn len(&self) -> Result<usize, String> {
        let len = self.shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
        len.ok_or_else(|| self.too_large())
    }

    fn too_large(&self) -> String {
        format!("its shape {:?} does not fit in memory", self.shape)
    }

    /// Hands all values that follow to `take`, in parts and in single precision.
    pub(super) fn values(
        &self,
        file: &mut dyn Read,
        take: &mut dyn FnMut(&[f32]) -> Result<(), String>,
    ) -> Result<(), String> {
        let len = self.len()?;
        let mut left = len;
        let mut bytes = vec![0; PART.min(len) * self.size];
        let mut part = Vec::with_capacity(PART.min(len));
        while left > 0 {
            let count = left.min(PART);
            let bytes = &mut bytes[..count * self.size];
            file.read_exact(bytes).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    format!("it ends before the {len} values of its shape {:?}", self.shape)
                }
                _ => error.to_string(),
            })?;
            part.clear();
            part.extend(bytes.chunks_exact(self.size).map(|bytes| self.value(bytes)));
            take(&part)?;
            left -= count;
        }
        Ok(())
    }

    /// A value in single precision.
    fn value(&self, bytes: &[u8]) -> f32 {
        let mut wide = [0; 8];
        // Little-endian, with the sign carried on.
        for (place, byte) in wide.iter_mut().enumerate().take(bytes.len()) {
            *byte = if self.big_endian { bytes[bytes.len() - 1 - place] } else { bytes[place] };
        }
        let bits = u64::from_le_bytes(wide);
        match (self.kind, self.size) {
            (b'f', 2) => half::f16::from_bits(bits as u16).to_f32(),
            (b'f', 4) => f32::from_bits(bits as u32),
            (b'f', _) => f64::from_bits(bits) as f32,
            (b'i', 1) => f32::from(bits as i8),
            (b'i', 2) => f32::from(bits as i16),
            (b'i', 4) => bits as i32 as f32,
            (b'i', _) => bits as i64 as f32,
            _ => bits as f32,
        }
    }
}

/// Values that came with the first dimension fastest, as rows.
pub(crate) fn row_major<T: Copy>(shape: &[usize], values: &[T]) -> Vec<T> {
    let place = |index: usize| {
        let (mut rest, mut stride, mut place) = (index, values.len(), 0);
        for &size in shape.iter().rev() {
            stride /= size;
            place += rest % size * stride;
            rest /= size;
        }
        place
    };
    (0..values.len()).map(|index| values[place(index)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(line: &str, values: &[u8]) -> Vec<u8> {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((line.len() as u16).to_le_bytes());
        [&file, line.as_bytes(), values].concat()
    }

    fn line(descr: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
    }

    #[test]
    fn every_type_is_read() {
        for (descr, bytes, expected) in [
            ("<f4", &[0, 0, 0xC0, 0x3F][..], 1.5),
            (">f4", &[0x3F, 0xC0, 0, 0], 1.5),
            ("<f2", &[0, 0x3E], 1.5),
            (">f2", &[0xC0, 0], -2.0),
            ("<f8", &[0, 0, 0, 0, 0, 0, 0xF8, 0x3F], 1.5),
            ("|u1", &[255], 255.0),
            ("|i1", &[255], -1.0),
            ("<i2", &[1, 2], 513.0),
            (">i4", &[0xFF, 0xFF, 0xFF, 0xFE], -2.0),
            ("<i8", &[0xFE, 255, 255, 255, 255, 255, 255, 255], -2.0),
            ("<u2", &[0xFF, 0xFF], 65535.0),
            ("|b1", &[1], 1.0),
        ] {
            let array = read(&mut file(&line(descr, "(1,)"), bytes).as_slice()).unwrap();
            assert_eq!(array, Array { shape: vec![1], values: vec![expected] }, "{descr}");
        }
        let scalar = read(&mut file(&line("|u1", "()"), &[7]).as_slice()).unwrap();
        assert_eq!(scalar, Array { shape: vec![], values: vec![7.0] });
    }

    #[test]
    fn columns_first_become_rows() {
        let line = line("|u1", "(2, 3)").replace("False", "True");
        let array = read(&mut file(&line, &[1, 4, 2, 5, 3, 6]).as_slice()).unwrap();
        assert_eq!(array.values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn what_is_no_array_is_refused_with_its_reason() {
        let fails = |file: &[u8], expected: &str| {
            let reason = read(&mut &*file).unwrap_err();
            assert!(reason.contains(expected), "`{reason}` lacks `{expected}`");
        };
        fails(b"", "ends before");
        fails(b"PK\x03\x04 and more", "no array of NumPy");
        fails(&file(&line("<f4", "(2,)"), &[0; 7]), "ends before the 2 values of its shape [2]");
        fails(&file(&line("<f4", "(9999999999, 9999999999)"), &[]), "does not fit in memory");
        fails(&file(&line("<f4", "(x,)"), &[]), "not of numbers");
        fails(&file(&line("<f4", "(-1,)"), &[]), "not of numbers");
        fails(&file(&line("<f16", "(1,)"), &[0; 16]), "save it as float32");
        fails(&file(&line("<U4", "(1,)"), &[0; 16]), "save it as float32");
        fails(&file("{'descr': [('a', '<f4')], 'shape': (1,)}", &[]), "array of records");
        fails(&file("{}", &[]), "lacks descr");
        fails(b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "is not one of NumPy");
    }
}
