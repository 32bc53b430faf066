//! Reads arrays of bytes from MATLAB files of version 5, the format of MATLAB 5 to 7.2.
//!
//! Only what data sets contain is read: real arrays of numbers, plain or compressed. This is our own reader
//! because the existing crate (`matfile`) holds a file in memory several times and does not say where it is
//! damaged.

mod parts;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use flate2::read::ZlibDecoder;

use self::parts::{Failure, part, values, words};
use crate::{DataError, files::open::open};

const FORMAT: &str = "MATLAB version 5";
const HEADER: u64 = 128;

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// An array whose values are all whole and from 0 to 255.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ByteArray {
    /// Sizes, the fastest dimension first.
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Vec<u8>,
}

/// A variable to read.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    /// What is wrong with the dimensions, given the bytes that the variable takes in the file. Asked before
    /// memory is reserved for the values.
    pub(crate) check: fn(dims: &[usize], bytes: u64) -> Result<(), String>,
}

/// Reads the variables `wanted`, in this order.
pub(crate) fn read<const N: usize>(
    path: &Path,
    wanted: [Wanted<'_>; N],
) -> Result<[ByteArray; N], DataError> {
    let (file, length) = open(path)?;
    let mut reader = Reader { path, file: BufReader::with_capacity(1 << 18, file), offset: 0 };
    let big_endian = reader.header(length)?;
    let mut found = [const { None }; N];
    while found.iter().any(Option::is_none) {
        if reader.offset >= length {
            let missing: Vec<&str> = (wanted.iter().zip(&found))
                .filter(|(_, array)| array.is_none())
                .map(|(wanted, _)| wanted.name)
                .collect();
            let problem = format!("the file ends and has no variable `{}`", missing.join("`, `"));
            return Err(reader.damaged(problem));
        }
        if let Some((index, array)) = reader.element(length, big_endian, &wanted)? {
            found[index] = Some(array);
        }
    }
    // The loop ends when nothing is missing.
    Ok(found.map(|array| array.unwrap_or(ByteArray { dims: Vec::new(), values: Vec::new() })))
}

struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    /// Of the element that is being read.
    offset: u64,
}

impl Reader<'_> {
    fn damaged(&self, problem: impl Into<String>) -> DataError {
        DataError::Format {
            path: self.path.to_owned(),
            format: FORMAT,
            offset: self.offset,
            problem: problem.into(),
        }
    }

    /// What an error while reading means: a file that ends, compressed data that is damaged, or a disk.
    fn failed(&self, doing: &str, error: &io::Error) -> DataError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(format!("the data ends within {doing}")),
            _ => self.damaged(format!("{doing} cannot be read ({error})")),
        }
    }

    /// Whether numbers have their highest byte first.
    fn header(&mut self, length: u64) -> Result<bool, DataError> {
        let mut header = [0; HEADER as usize];
        if length < HEADER {
            return Err(self.damaged(format!("the file has {length} bytes, less than its header")));
        }
        self.file.read_exact(&mut header).map_err(|error| self.failed("the header", &error))?;
        let order = [header[126], header[127]];
        let big_endian = order == *b"MI";
        let version = match order {
            [b'I', b'M'] => u16::from_le_bytes([header[124], header[125]]),
            _ => u16::from_be_bytes([header[124], header[125]]),
        };
        self.offset = 124;
        match (&order, version) {
            (b"IM" | b"MI", 0x0100) => {}
            (_, 0x0200) => {
                return Err(
                    self.damaged("this is version 7.3, which is HDF5; save it as version 7")
                );
            }
            _ => return Err(self.damaged("the header has no version and byte order")),
        }
        self.offset = HEADER;
        Ok(big_endian)
    }

    /// Reads one variable and moves on; returns it with its place in `wanted` if it is one of them.
    fn element(
        &mut self,
        length: u64,
        big_endian: bool,
        wanted: &[Wanted<'_>],
    ) -> Result<Option<(usize, ByteArray)>, DataError> {
        let mut tag = [0; 8];
        self.file.read_exact(&mut tag).map_err(|error| self.failed("a tag", &error))?;
        let [kind, size] = words(tag, big_endian);
        let end = self.offset + 8 + u64::from(size);
        if end > length {
            let problem = format!(
                "the file ends after {length} bytes, within a variable that goes to byte {end}"
            );
            return Err(self.damaged(problem));
        }
        let body = (&mut self.file).take(size.into());
        let (result, rest) = match kind {
            COMPRESSED => {
                let mut body = ZlibDecoder::new(body);
                let mut result = variable(&mut body, true, size.into(), big_endian, wanted);
                // The checksum comes last and is compared when the end is read.
                if let Ok(Some(_)) = result
                    && let Err(error) = io::copy(&mut (&mut body).take(64), &mut io::sink())
                {
                    result = Err(Failure::Io("a compressed variable".to_owned(), error));
                }
                (result, body.into_inner())
            }
            MATRIX => {
                let mut body = body;
                (variable(&mut body, false, size.into(), big_endian, wanted), body)
            }
            _ => return Err(self.damaged(format!("an element of type {kind}, expected a matrix"))),
        };
        // What was not read is passed over.
        let skipped = io::copy(&mut { rest }, &mut io::sink());
        let result = result.map_err(|failure| match failure {
            Failure::Io(doing, error) => self.failed(&doing, &error),
            Failure::Problem(problem) => self.damaged(problem),
        })?;
        skipped.map_err(|error| self.failed("a variable", &error))?;
        self.offset = end;
        Ok(result)
    }
}

/// Reads a variable, or only as much as shows that it is none of `wanted`.
fn variable(
    input: &mut impl Read,
    compressed: bool,
    size: u64,
    big_endian: bool,
    wanted: &[Wanted<'_>],
) -> Result<Option<(usize, ByteArray)>, Failure> {
    if compressed {
        let mut tag = [0; 8];
        let failed = |error| Failure::Io("a compressed variable".to_owned(), error);
        input.read_exact(&mut tag).map_err(failed)?;
        let [kind, _] = words(tag, big_endian);
        if kind != MATRIX {
            return Err(Failure::Problem(format!("a compressed element of type {kind}")));
        }
    }
    if size == 0 {
        return Ok(None);
    }
    let flags = part(input, big_endian, "the array flags")?;
    let dims = part(input, big_endian, "the dimensions")?;
    let name = part(input, big_endian, "the name")?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let Some(index) = wanted.iter().position(|wanted| wanted.name == name) else {
        return Ok(None);
    };
    let problem = |problem: String| Failure::Problem(format!("`{name}`: {problem}"));
    let flags: [u8; 8] =
        flags.try_into().map_err(|_| problem("the array flags are not eight bytes".to_owned()))?;
    let [flags, _] = words(flags, big_endian);
    // Classes 6 to 15 are arrays of numbers; bit 11 says that they are complex.
    let class = flags & 0xff;
    if !(6..=15).contains(&class) || flags & 0x800 != 0 {
        return Err(problem(format!("not an array of real numbers (class {class})")));
    }
    let dims: Vec<usize> = dims
        .chunks_exact(4)
        .map(|word| words([word[0], word[1], word[2], word[3], 0, 0, 0, 0], big_endian)[0] as usize)
        .collect();
    (wanted[index].check)(&dims, size).map_err(problem)?;
    let count = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let count = count.ok_or_else(|| problem(format!("dimensions {dims:?} are impossible")))?;
    let values = values(input, big_endian, &name, count, &dims)?;
    Ok(Some((index, ByteArray { dims, values })))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    // `X = [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]]` of bytes, `y = [[10], [1]]` and a third
    // variable before them, as SciPy 1.17.1 writes them: plain with `y` of bytes, and compressed with `y` of
    // doubles. The first 116 bytes, text for people, are left out.
    const PLAIN: &str = "00000000000000000001494d0e00000040000000060000000800000006000000000000000500000008000000010000000100\
        000001000000050000006f746865720000000900000008000000000000000000f83f0e000000480000000600000008000000\
        0900000000000000050000000c000000020000000300000002000000000000000100010058000000020000000c0000000006\
        0208040a01070309050b000000000e0000003000000006000000080000000900000000000000050000000800000002000000\
        010000000100010079000000020002000a010000";
    const COMPRESSED: &str = "00000000000000000001494d0f00000029000000789ce36360607000623620e680d220c00ae533226190587e49466a1190e6\
        84ca43c00f7b004f4403e20f00000037000000789ce3636060f000623620e600624e06086005621e2066026266280d028c40\
        1801e583e419d8983858b818d9993959b9415c00324b01300f0000002d000000789ce36360607000623620e680d220c00ae5\
        330131231833325402694e2016608001150708fdc11e003205029a";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks_exact(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let bytes = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap());
        std::iter::repeat_n(b' ', 116).chain(bytes).collect()
    }

    fn written(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join("file.mat");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Variables of any dimensions.
    fn wanted<const N: usize>(names: [&'static str; N]) -> [Wanted<'static>; N] {
        names.map(|name| Wanted { name, check: |_, _| Ok(()) })
    }

    #[test]
    fn what_scipy_writes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for hex in [PLAIN, COMPRESSED] {
            let path = written(&folder, &bytes(hex));
            let [y, x] = read(&path, wanted(["y", "X"])).unwrap();
            assert_eq!((y.dims, y.values), (vec![2, 1], vec![10, 1]));
            // Down the first dimension first.
            assert_eq!(x.dims, [2, 3, 2]);
            assert_eq!(x.values, [0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11]);
        }
    }

    #[test]
    fn the_other_byte_order_is_read() {
        // By hand: one matrix of 1 x 2 bytes, its name packed into the tag, its values doubles.
        let mut file = vec![b' '; 124];
        let mut push = |bytes: &[u8]| file.extend_from_slice(bytes);
        push(&[1, 0]);
        push(b"MI");
        let words: [u32; 12] = [14, 64, 6, 8, 6, 0, 5, 8, 1, 2, 0x0001_0001, u32::from(b'v') << 24];
        words.iter().for_each(|word| push(&word.to_be_bytes()));
        push(&[0, 0, 0, 9, 0, 0, 0, 16]);
        [3.0_f64, 250.0].iter().for_each(|value| push(&value.to_be_bytes()));
        let folder = tempfile::tempdir().unwrap();
        let [v] = read(&written(&folder, &file), wanted(["v"])).unwrap();
        assert_eq!((v.dims, v.values), (vec![1, 2], vec![3, 250]));
    }

    #[test]
    fn every_damage_is_named_with_its_file_and_place() {
        let folder = tempfile::tempdir().unwrap();
        let check = |bytes: &[u8], expected: &str| {
            let message =
                read(&written(&folder, bytes), wanted(["X", "y"])).unwrap_err().to_string();
            assert!(message.contains("file.mat, byte "), "{message}");
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        for hex in [PLAIN, COMPRESSED] {
            let whole = bytes(hex);
            for length in 1..whole.len() {
                check(&whole[..length], "byte");
            }
        }
        let plain = bytes(PLAIN);
        check(b"M", "1 bytes, less than its header");
        let empty = read(&written(&folder, b""), wanted(["X", "y"])).unwrap_err().to_string();
        assert!(empty.contains("file.mat is empty"), "{empty}");
        check(&plain[..plain.len() - 4], "within a variable that goes to byte 336");
        check(&plain[..200], "has no variable `X`, `y`");
        check(&plain[..280], "has no variable `y`");
        let changed = |place: usize, to: &[u8]| {
            let mut bytes = plain.clone();
            bytes[place..place + to.len()].copy_from_slice(to);
            bytes
        };
        check(&changed(124, &[0, 2]), "version 7.3, which is HDF5");
        check(&changed(126, b"xx"), "the header has no version and byte order");
        check(&changed(128, &[7]), "an element of type 7");
        // Of `X`: its class, a dimension, the type of its values.
        check(&changed(216, &[4]), "`X`: not an array of real numbers (class 4)");
        check(&changed(232, &[3]), "`X`: 12 values for dimensions [3, 3, 2]");
        check(&changed(256, &[77]), "values of type 77");
        // The values, which turn out to be none, and the checksum alone.
        let mut compressed = bytes(COMPRESSED);
        let end = compressed.len();
        compressed[end - 10] ^= 0x55;
        check(&compressed, "`y`: value 5.5");
        compressed[end - 10] ^= 0x55;
        compressed[end - 1] ^= 1;
        check(&compressed, "cannot be read");
    }
}
