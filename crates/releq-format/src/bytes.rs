//! Where the bytes of a tensor are, and how a part of them is read.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use flate2::{Crc, read::DeflateDecoder};

/// Most times its size in the file that an entry may inflate to, unless as much is wanted. Weights reach 10.
const LARGEST_RATIO: u64 = 100;

/// A file that several tensors are read from.
pub(crate) type Shared = Arc<Mutex<File>>;

/// Bytes in a file or in memory, not yet read.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    /// As they are in the file.
    Plain { file: Shared, start: u64, len: u64, crc: Option<u32> },
    /// Compressed to `packed` bytes.
    Deflated { file: Shared, start: u64, packed: u64, len: u64, crc: u32 },
    /// In memory.
    Memory { bytes: Arc<Vec<u8>>, range: Range<usize> },
    /// In memory as text, one character for each byte.
    Latin1 { bytes: Arc<Vec<u8>>, range: Range<usize> },
    /// Nowhere; the reason.
    Missing(String),
}

impl Bytes {
    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Plain { len, .. } | Self::Deflated { len, .. } => *len,
            Self::Memory { range, .. } => range.len() as u64,
            Self::Latin1 { bytes, range } => {
                // A character of two bytes ends with a continuation byte.
                let text = bytes[range.clone()].iter();
                text.filter(|&&byte| byte & 0xC0 != 0x80).count() as u64
            }
            Self::Missing(_) => 0,
        }
    }

    /// Why the first `end` may not be inflated, where no more than `wanted` are of use: an entry that grows so much
    /// is made to take time and memory.
    pub(crate) fn bomb(&self, end: u64, wanted: u64) -> Option<String> {
        let Self::Deflated { packed, .. } = self else { return None };
        (end > packed.saturating_mul(LARGEST_RATIO).max(wanted)).then(|| {
            format!("{packed} bytes inflate to {end}, more than {LARGEST_RATIO} times as many")
        })
    }

    /// Those in `range`, which is within [`len`](Self::len). All of them are compared with their checksum.
    pub(crate) fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let whole = range == (0..self.len());
        let length = range.end - range.start;
        let (read, crc) = match self {
            Self::Plain { file, start, crc, .. } => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(start + range.start))?;
                (take(&mut *file, length)?, *crc)
            }
            Self::Deflated { file, start, packed, crc, .. } => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(*start))?;
                let mut inflated = DeflateDecoder::new((&mut *file).take(*packed));
                io::copy(&mut inflated.by_ref().take(range.start), &mut io::sink())?;
                (take(&mut inflated, length)?, Some(*crc))
            }
            Self::Memory { bytes, range: all } => {
                let from = all.start + range.start as usize;
                (bytes[from..from + length as usize].to_vec(), None)
            }
            Self::Latin1 { bytes, range: all } => {
                let text = std::str::from_utf8(&bytes[all.clone()]).map_err(invalid)?;
                let chars = text.chars().skip(range.start as usize).take(length as usize);
                let bytes = chars.map(u8::try_from).collect::<Result<Vec<u8>, _>>();
                (bytes.map_err(|_| invalid("text that is not Latin-1"))?, None)
            }
            Self::Missing(reason) => return Err(invalid(reason.as_str())),
        };
        // PyTorch can be told to compute no checksums.
        if let (true, Some(expected @ 1..)) = (whole, crc) {
            let mut found = Crc::new();
            found.update(&read);
            if found.sum() != expected {
                return Err(invalid("the checksum differs"));
            }
        }
        Ok(read)
    }
}

/// Exactly `length` bytes, without reserving memory for more than there are.
fn take(input: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    take_into(Vec::new(), input, length)
}

/// The `len` bytes from `start` on, which are there.
pub(crate) fn part(source: &mut (impl Read + Seek), start: u64, len: usize) -> io::Result<Vec<u8>> {
    source.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    // A sparse file may have more than there is memory for.
    bytes.try_reserve_exact(len)?;
    take_into(bytes, source, len as u64)
}

/// Exactly `length` bytes, in a vector that was empty.
fn take_into(mut bytes: Vec<u8>, input: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    input.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends too early")),
    }
}

pub(crate) fn invalid(problem: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, ErrorKind};

    use super::*;

    #[test]
    fn a_part_is_whole_or_an_error() {
        let mut source = Cursor::new([1, 2, 3, 4]);
        assert_eq!(part(&mut source, 1, 2).unwrap(), [2, 3]);
        assert!(part(&mut source, 4, 0).unwrap().is_empty());
        assert_eq!(part(&mut source, 3, 2).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(part(&mut source, 0, usize::MAX).unwrap_err().kind(), ErrorKind::OutOfMemory);
    }
}
