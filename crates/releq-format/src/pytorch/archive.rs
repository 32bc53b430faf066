//! The directory of a zip archive, in the parts of the format that PyTorch and re-zipped files use.
//!
//! Ours, because the crate `zip` takes the wrong header for the first where that one happens to be as
//! long as the records at the end of the directory.

use std::{
    collections::HashMap,
    io::{self, Read, Seek, SeekFrom},
    sync::PoisonError,
};

use crate::bytes::{Bytes, Shared};

/// The end record without its comment, and the longest comment.
const END: u64 = 22;
const LONGEST_COMMENT: u64 = 0xFFFF;
/// The ZIP64 end record as it is always written, and its locator.
const END64: u64 = 56;
const LOCATOR: u64 = 20;
/// What stands for a value of more than 32 bits.
const EXCEEDED: u64 = 0xFFFF_FFFF;
/// A header in the directory, and one before the bytes of an entry, each without its names.
const CENTRAL: usize = 46;
const LOCAL: u64 = 30;

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the archive {0}")]
    Damaged(&'static str),
    #[error("the header of entry {index} of the archive {problem}")]
    Entry { index: usize, problem: &'static str },
    /// Whole, but written in a way that is not read.
    #[error("{0}")]
    Unsupported(String),
}

/// An archive's entries by name.
#[derive(Debug)]
pub(super) struct Archive {
    file: Shared,
    length: u64,
    entries: HashMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    encrypted: bool,
    method: u16,
    crc: u32,
    packed: u64,
    len: u64,
    header: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(chunk(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(chunk(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(chunk(bytes, at))
}

/// The bytes from `at`; zeros where there are not as many.
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
}

/// Where the directory is.
struct Directory {
    start: u64,
    len: u64,
    entries: u64,
}

impl Archive {
    /// Reads the directory. Memory is in proportion to it, and it is part of the file.
    pub(super) fn open(file: Shared) -> Result<Self, ArchiveError> {
        let mut archive = Self { file, length: 0, entries: HashMap::new() };
        let file =
            archive.file.lock().unwrap_or_else(PoisonError::into_inner).seek(SeekFrom::End(0));
        archive.length = file?;
        let directory = archive.directory()?;
        let end = directory.start.checked_add(directory.len);
        if end.is_none_or(|end| end > archive.length) {
            return Err(ArchiveError::Damaged("has its directory beyond the end of the file"));
        }
        let bytes = archive.read(directory.start, directory.len)?;
        let mut rest = &bytes[..];
        for index in 0.. {
            if rest.is_empty() {
                if index as u64 != directory.entries {
                    return Err(ArchiveError::Damaged(
                        "has another number of entries than it says",
                    ));
                }
                break;
            }
            let (name, entry, length) =
                entry(rest).map_err(|problem| ArchiveError::Entry { index, problem })?;
            if archive.entries.insert(name, entry).is_some() {
                return Err(ArchiveError::Entry { index, problem: "repeats the name of another" });
            }
            rest = &rest[length..];
        }
        Ok(archive)
    }

    /// Names of all entries, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where the bytes of an entry are; `None` if there is no such entry.
    pub(super) fn entry(&self, name: &str) -> Option<Result<Bytes, ArchiveError>> {
        self.entries.get(name).map(|entry| self.bytes(name, *entry))
    }

    fn bytes(&self, name: &str, entry: Entry) -> Result<Bytes, ArchiveError> {
        if entry.encrypted {
            return Err(ArchiveError::Unsupported(format!("entry `{name}` is encrypted")));
        }
        let beyond = ArchiveError::Damaged("has an entry beyond the end of the file");
        if entry.header.checked_add(LOCAL).is_none_or(|end| end > self.length) {
            return Err(beyond);
        }
        let header = self.read(entry.header, LOCAL)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(ArchiveError::Damaged("has an entry without a header"));
        }
        let names = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let start = entry.header + LOCAL + names;
        if start.checked_add(entry.packed).is_none_or(|end| end > self.length) {
            return Err(beyond);
        }
        let file = self.file.clone();
        let Entry { crc, packed, len, .. } = entry;
        match entry.method {
            0 if packed == len => Ok(Bytes::Plain { file, start, len, crc: Some(crc) }),
            0 => Err(ArchiveError::Damaged("has an entry of two sizes")),
            8 => Ok(Bytes::Deflated { file, start, packed, len, crc }),
            method => Err(ArchiveError::Unsupported(format!(
                "entry `{name}` is compressed by method {method}; only deflate is read"
            ))),
        }
    }

    /// Finds the directory from the records at the end of the file.
    fn directory(&self) -> Result<Directory, ArchiveError> {
        let length = self.length.min(END + LONGEST_COMMENT);
        let tail = self.read(self.length - length, length)?;
        let is_end = |at: usize| {
            let end = &tail[at..];
            end.starts_with(b"PK\x05\x06")
                && END as usize + usize::from(u16_at(end, 20)) == end.len()
        };
        let at = (0..(tail.len() + 1).saturating_sub(END as usize)).rev().find(|&at| is_end(at));
        let at = at.ok_or(ArchiveError::Damaged("has no end record; the file is cut short"))?;
        let end = &tail[at..];
        let mut directory = Directory {
            start: u32_at(end, 16).into(),
            len: u32_at(end, 12).into(),
            entries: u16_at(end, 10).into(),
        };
        let exceeded = [directory.start, directory.len].contains(&EXCEEDED)
            || directory.entries == u64::from(u16::MAX);
        let place = self.length - length + at as u64;
        if let (true, Some(locator)) = (exceeded, place.checked_sub(LOCATOR)) {
            let locator = self.read(locator, LOCATOR)?;
            if locator.starts_with(b"PK\x06\x07") {
                let start = u64_at(&locator, 8);
                if start.checked_add(END64).is_none_or(|end| end > place) {
                    return Err(ArchiveError::Damaged("has no ZIP64 end record where it says"));
                }
                let end = self.read(start, END64)?;
                if !end.starts_with(b"PK\x06\x06") {
                    return Err(ArchiveError::Damaged("has no ZIP64 end record where it says"));
                }
                directory = Directory {
                    start: u64_at(&end, 48),
                    len: u64_at(&end, 40),
                    entries: u64_at(&end, 32),
                };
            }
        }
        Ok(directory)
    }

    /// Bytes that are known to be in the file.
    fn read(&self, start: u64, length: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&mut *file).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(ArchiveError::Damaged("is cut short"))
        }
    }
}

/// The entry that `directory` begins with, and the length of its header.
fn entry(directory: &[u8]) -> Result<(String, Entry, usize), &'static str> {
    if directory.len() < CENTRAL {
        return Err("is cut short");
    }
    if !directory.starts_with(b"PK\x01\x02") {
        return Err("does not begin like one");
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(directory, at)));
    let length = CENTRAL + name + extra + comment;
    let header = directory.get(..length).ok_or("is cut short")?;
    let mut entry = Entry {
        encrypted: u16_at(header, 8) & 1 != 0,
        method: u16_at(header, 10),
        crc: u32_at(header, 16),
        packed: u32_at(header, 20).into(),
        len: u32_at(header, 24).into(),
        header: u32_at(header, 42).into(),
    };
    let mut extra = &header[CENTRAL + name..CENTRAL + name + extra];
    while extra.len() >= 4 {
        let (kind, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + length).ok_or("has an extra field that is cut short")?;
        if kind == 1 {
            // Those of the values that the header has no room for, in this order.
            let mut values = field.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes));
            for value in [&mut entry.len, &mut entry.packed, &mut entry.header] {
                if *value == EXCEEDED {
                    *value = values.next().ok_or("lacks a ZIP64 value")?;
                }
            }
        }
        extra = &extra[4 + length..];
    }
    let name = String::from_utf8_lossy(&header[CENTRAL..CENTRAL + name]).into_owned();
    Ok((name, entry, length))
}
