//! Reads IDX, the file format of MNIST.

use std::{
    io::{self, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

use super::open::open;
use crate::DataError;

/// Most bytes of a file, decompressed: twenty times MNIST.
const LIMIT: u64 = 1 << 30;
/// So many bytes are read whatever the file is like; more only up to a multiple of the file's length.
/// Images do not compress to less, but zeros do.
const UNSUSPICIOUS: u64 = 1 << 26;
const COMPRESSION: u64 = 64;

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
/// When the file cannot be read or is not exactly one image file.
pub fn read_images(path: &Path) -> Result<IdxImages, DataError> {
    let (dims, pixels) = read(path, 0x0000_0803, "bytes in three dimensions: images")?;
    Ok(IdxImages { size: [dims[1], dims[2]], count: dims[0], pixels })
}

/// Reads a label file (`idx1-ubyte`), plain or gzip.
///
/// # Errors
/// When the file cannot be read or is not exactly one label file.
pub fn read_labels(path: &Path) -> Result<Vec<u8>, DataError> {
    Ok(read(path, LABELS, LABELS_MEANING)?.1)
}

const LABELS: u32 = 0x0000_0801;
const LABELS_MEANING: &str = "bytes in one dimension: labels";

/// The first labels of a label file, `count` at most.
pub(crate) fn first_labels(path: &Path, count: u64) -> Result<Vec<u8>, DataError> {
    let mut source = Source::open(path)?;
    source.header(LABELS, LABELS_MEANING)?;
    source.read(count)
}

/// Dimensions and values.
fn read(path: &Path, magic: u32, meaning: &'static str) -> Result<(Vec<u32>, Vec<u8>), DataError> {
    let mut source = Source::open(path)?;
    let dims = source.header(magic, meaning)?;
    let size = dims.iter().try_fold(1u64, |size, &dim| size.checked_mul(u64::from(dim)));
    let limit = source.length.saturating_mul(COMPRESSION).clamp(UNSUSPICIOUS, LIMIT);
    let Some(size) = size.filter(|&size| size <= limit) else {
        return Err(DataError::IdxTooLarge { path: path.to_owned(), dims, limit });
    };
    let expected = source.offset + size;
    // One byte more shows whether the file goes on.
    let mut values = source.read(size + 1)?;
    if source.offset < expected {
        return Err(source.truncated(dims, expected));
    }
    if source.offset > expected {
        return Err(DataError::IdxTrailing { path: path.to_owned(), dims, expected });
    }
    if size == 0 {
        return Err(DataError::Empty { name: path.display().to_string() });
    }
    values.shrink_to_fit();
    Ok((dims, values))
}

/// A file, decompressed if it begins as gzip does.
struct Source<'a> {
    path: &'a Path,
    reader: Box<dyn Read>,
    gzip: bool,
    /// Bytes read so far, after decompression.
    offset: u64,
    /// Bytes of the file as it is.
    length: u64,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self, DataError> {
        let fail = |source| DataError::Read { path: path.to_owned(), source };
        let (file, length) = open(path)?;
        let mut file = BufReader::new(file);
        let mut start = [0; 2];
        let begun = read_start(&mut file, &mut start).map_err(fail)?;
        let again = io::Cursor::new(start).take(begun as u64).chain(file);
        let gzip = start == [0x1f, 0x8b];
        let reader: Box<dyn Read> = match gzip {
            true => Box::new(MultiGzDecoder::new(BufReader::new(again))),
            false => Box::new(again),
        };
        Ok(Self { path, reader, gzip, offset: 0, length })
    }

    /// Up to `count` bytes; fewer at the end of the file.
    fn read(&mut self, count: u64) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        let result = self.reader.by_ref().take(count).read_to_end(&mut bytes);
        self.offset += bytes.len() as u64;
        match result {
            Ok(_) => Ok(bytes),
            Err(source) if self.gzip => Err(self.corrupt(source)),
            Err(source) => Err(DataError::Read { path: self.path.to_owned(), source }),
        }
    }

    fn corrupt(&self, source: io::Error) -> DataError {
        let (path, decompressed) = (self.path.to_owned(), self.offset);
        DataError::Gzip { path, decompressed, source }
    }

    /// Checks the magic number, whose last byte is the number of dimensions, and reads these.
    fn header(&mut self, magic: u32, meaning: &'static str) -> Result<Vec<u32>, DataError> {
        let rank = u64::from(magic & 0xff);
        let header = self.read(4 + 4 * rank)?;
        let (words, _) = header.as_chunks::<4>();
        let mut words = words.iter().map(|&word| u32::from_be_bytes(word));
        let cut = || self.truncated(Vec::new(), 4 + 4 * rank);
        let found = words.next().ok_or_else(cut)?;
        if found != magic {
            let path = self.path.to_owned();
            return Err(DataError::IdxMagic { path, expected: magic, found, meaning });
        }
        let dims: Vec<u32> = words.collect();
        if dims.len() as u64 == rank { Ok(dims) } else { Err(cut()) }
    }

    fn truncated(&self, dims: Vec<u32>, expected: u64) -> DataError {
        DataError::IdxTruncated { path: self.path.to_owned(), dims, expected, found: self.offset }
    }
}

/// The bytes of a file, decompressed if they begin as gzip does; at most one more than [`LIMIT`].
pub(crate) fn decompressed(path: &Path) -> Result<impl Read, DataError> {
    Ok(Source::open(path)?.reader.take(LIMIT + 1))
}

/// Fills `start` as far as the file goes.
fn read_start(file: &mut impl Read, start: &mut [u8]) -> io::Result<usize> {
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
    fn the_first_labels_are_read_without_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut labels = LABELS.to_be_bytes().to_vec();
        labels.extend(5_u32.to_be_bytes());
        labels.extend([3, 1, 4, 1, 5]);
        for bytes in [labels.clone(), gzip(&labels)] {
            let path = write(&folder, &bytes);
            assert_eq!(first_labels(&path, 2).unwrap(), [3, 1]);
            assert_eq!(first_labels(&path, 10).unwrap(), [3, 1, 4, 1, 5]);
            assert_eq!(read_labels(&path).unwrap(), [3, 1, 4, 1, 5]);
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
        check(&[], "is empty; fetch it again");
        check(&gzip(&[]), "ends after 0 bytes");
        check(&[0x1f], "ends after 1 bytes");
        check(&whole[..10], "ends after 10 bytes, expected 16");
        check(&whole[..30], "ends after 30 bytes, expected 40");
        check(&[&whole[..], &[0]].concat(), "continues after byte 40");
        check(&images([0, 2, 4], 0), "no images");
        check(&images([u32::MAX; 3], 0), "are more than the");
        check(&images([70_000, 28, 28], 5), "expected 54880016");
        check(&images([1_000_000, 28, 28], 5), "are more than the 67108864 bytes");
        check(&gzip(&images([1_000_000, 28, 28], 5)), "are more than the 67108864 bytes");
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
