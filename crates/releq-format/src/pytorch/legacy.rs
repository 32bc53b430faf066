//! The stream of pickles that PyTorch wrote before version 1.6, and single pickles.
//!
//! Five pickles: a magic number, a version, the machine, the weights, the keys of the storages. Behind
//! them, for each key, the number of elements in eight bytes, and the elements, lowest byte first.

use std::{
    collections::HashMap,
    io::{self, BufRead, Read},
    ops::Range,
};

use releq_pickle::{Instruction, Instructions, PickleError};

use super::{
    rebuild::storage_of,
    value::{Id, Value, Values},
};
use crate::bytes::{Bytes, Shared};

/// The number that opens the stream, as protocols 2 and later write it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether a file that begins with `header` is such a stream.
pub(super) fn is_stream(header: &[u8]) -> bool {
    header.windows(MAGIC.len()).any(|bytes| bytes == MAGIC)
}

/// Where the pickle that `input` begins with is in it, from `start` on.
pub(super) fn extent(input: &mut impl BufRead, start: u64) -> Result<Range<u64>, PickleError> {
    let mut instructions = Instructions::new(input);
    while instructions.read()?.instruction != Instruction::Stop {}
    Ok(start..start + instructions.offset())
}

/// Bytes of an element of each storage that the weights refer to, by key.
pub(super) fn element_sizes(values: &Values) -> HashMap<String, u64> {
    let ids = (0..values.values.len() as Id).filter(|&id| {
        // Other references are to parts of whole models.
        matches!(values.get(id), Value::Persistent(_))
    });
    let size = |id| {
        let storage = storage_of(values, id)?;
        Some((storage.key.to_owned(), storage.dtype.map_or(1, |dtype| dtype.size())))
    };
    ids.filter_map(size).collect()
}

/// The storages behind the pickles; `input` is at their beginning, byte `start` of the file.
pub(super) fn storages(
    input: &mut (impl Read + io::Seek),
    file: &Shared,
    mut start: u64,
    keys: &Values,
    sizes: &HashMap<String, u64>,
) -> io::Result<HashMap<String, Bytes>> {
    let length = input.seek(io::SeekFrom::End(0))?;
    let mut storages = HashMap::new();
    for &key in keys.items(keys.root) {
        let key = keys.text(key).unwrap_or_default();
        let mut count = [0; 8];
        input.seek(io::SeekFrom::Start(start))?;
        input.read_exact(&mut count)?;
        start += 8;
        let size = sizes.get(key).copied().unwrap_or(1);
        let bytes = u64::from_le_bytes(count).checked_mul(size);
        let Some(len) = bytes.filter(|bytes| *bytes <= length - start) else {
            let problem = "the file ends within the values";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        };
        let plain = Bytes::Plain { file: file.clone(), start, len, crc: None };
        storages.insert(key.to_owned(), plain);
        start += len;
    }
    Ok(storages)
}
