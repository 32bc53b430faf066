//! Reads IDX, the file format of MNIST.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use crate::DataError;

/// Largest file that is read, decompressed: twenty times MNIST. A header cannot ask for more.
const LIMIT: u64 = 1 << 30;

/// Images of one size, one byte per pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct IdxImages {
    /// Rows and columns.
    pub size: [u32; 2],
    /// Number of images.
    pub count: u32,
    /// `[count, rows, columns]`, the last dimension fastest.
    pub pixels: Vec<u8>,
}

impl std::fmt::Debug for IdxImages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdxImages")
            .field("size", &self.size)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Reads an image file (`idx3-ubyte`), plain or gzip.
///
/// # Errors
/// When the file cannot be read or is not a whole image file and nothing more.
pub fn read_images(path: &Path) -> Result<IdxImages, DataError> {
    let (dims, pixels) = read(path, 0x0000_0803, "bytes in three dimensions: images")?;
    Ok(IdxImages { size: [dims[1], dims[2]], count: dims[0], pixels })
}

/// Reads a label file (`idx1-ubyte`), plain or gzip.
///
/// # Errors
/// When the file cannot be read or is not a whole label file and nothing more.
pub fn read_labels(path: &Path) -> Result<Vec<u8>, DataError> {
    Ok(read(path, 0x0000_0801, "bytes in one dimension: labels")?.1)
}

/// Dimensions and values. Nothing is allocated on the word of the header.
fn read(path: &Path, magic: u32, meaning: &'static str) -> Result<(Vec<u32>, Vec<u8>), DataError> {
    let bytes = decompressed(path)?;
    let found = bytes.len() as u64;
    let rank = (magic & 0xff) as usize;
    let header = 4 + 4 * rank;
    let word = |index: usize| -> Option<u32> {
        let word = bytes.get(4 * index..4 * index + 4)?;
        Some(u32::from_be_bytes(word.try_into().ok()?))
    };
    let truncated = |dims: Vec<u32>, expected: u64| DataError::IdxTruncated {
        path: path.to_owned(),
        dims,
        expected,
        found,
    };
    let got = word(0).ok_or_else(|| truncated(Vec::new(), header as u64))?;
    if got != magic {
        let path = path.to_owned();
        return Err(DataError::IdxMagic { path, expected: magic, found: got, meaning });
    }
    let dims: Vec<u32> = (1..=rank)
        .map(word)
        .collect::<Option<_>>()
        .ok_or_else(|| truncated(Vec::new(), header as u64))?;
    let size = dims.iter().try_fold(1u64, |size, &dim| size.checked_mul(u64::from(dim)));
    let Some(size) = size.filter(|&size| size <= LIMIT - header as u64) else {
        return Err(DataError::IdxTooLarge { path: path.to_owned(), dims, limit: LIMIT });
    };
    let expected = header as u64 + size;
    if found < expected {
        return Err(truncated(dims, expected));
    }
    if found > expected {
        return Err(DataError::IdxTrailing { path: path.to_owned(), dims, expected });
    }
    if size == 0 {
        return Err(DataError::Empty { name: path.display().to_string() });
    }
    let mut bytes = bytes;
    bytes.drain(..header);
    Ok((dims, bytes))
}

/// The bytes of a file, decompressed if they begin as gzip does; at most one more than [`LIMIT`].
pub(crate) fn decompressed(path: &Path) -> Result<Vec<u8>, DataError> {
    let fail = |source| DataError::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(fail)?);
    let mut start = [0; 2];
    let begun = read_start(&mut file, &mut start).map_err(fail)?;
    let again = start[..begun].chain(file);
    let mut bytes = Vec::new();
    if start == [0x1f, 0x8b] {
        MultiGzDecoder::new(BufReader::new(again))
            .take(LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| DataError::Gzip {
                path: path.to_owned(),
                decompressed: bytes.len() as u64,
                source,
            })?;
    } else {
        let mut again = again.take(LIMIT + 1);
        again.read_to_end(&mut bytes).map_err(fail)?;
    }
    Ok(bytes)
}

/// Fills `start` as far as the file goes.
fn read_start(file: &mut impl Read, start: &mut [u8]) -> std::io::Result<usize> {
    let mut begun = 0;
    while begun < start.len() {
        match file.read(&mut start[begun..])? {
            0 => break,
            count => begun += count,
        }
    }
    Ok(begun)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::PathBuf};

    use flate2::{Compression, write::GzEncoder};
    use tempfile::TempDir;

    use super::*;

    fn images(dims: [u32; 3], pixels: usize) -> Vec<u8> {
        let mut bytes = 0x0803u32.to_be_bytes().to_vec();
        dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
        bytes.extend((0..pixels).map(|pixel| pixel as u8));
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn write(folder: &TempDir, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn plain_and_gzip_read_alike() {
        let folder = tempfile::tempdir().unwrap();
        let whole = images([3, 2, 4], 24);
        for bytes in [whole.clone(), gzip(&whole)] {
            let read = read_images(&write(&folder, &bytes)).unwrap();
            assert_eq!((read.count, read.size), (3, [2, 4]));
            assert_eq!(read.pixels, (0..24).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn every_damage_is_named_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let check = |bytes: &[u8], expected: &str| {
            let error = read_images(&write(&folder, bytes)).unwrap_err().to_string();
            assert!(error.contains("file") && error.contains(expected), "{error}");
        };
        let whole = images([3, 2, 4], 24);
        let packed = gzip(&whole);
        check(&[], "ends after 0 bytes");
        check(&[0x1f], "ends after 1 bytes");
        check(&whole[..10], "ends after 10 bytes, expected 16");
        check(&whole[..30], "ends after 30 bytes, expected 40");
        check(&[&whole[..], &[0]].concat(), "goes on after byte 40");
        check(&images([0, 2, 4], 0), "no images");
        check(&images([u32::MAX; 3], 0), "more than the");
        check(&images([70_000, 28, 28], 5), "expected 54880016");
        let mut labels = whole.clone();
        labels[3] = 1;
        check(&labels, "magic number is 0x00000801, expected 0x00000803");
        check(&packed[..packed.len() - 9], "corrupt gzip");
        let mut flipped = packed.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0xff;
        check(&flipped, "corrupt gzip");
        assert!(matches!(read_images(folder.path()), Err(DataError::Read { .. })));
        assert!(matches!(read_labels(&folder.path().join("no")), Err(DataError::Read { .. })));
    }
}
