//! A cache of decoded images on disk.
//!
//! Errors of the cache are never errors of loading: if a cache file cannot be used or written, the
//! images are decoded again.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::Crc;
use md5::{Digest, Md5};
use releq_core::atomic_file;
use serde::{Deserialize, Serialize};

use super::download::hex;
use crate::{BadImage, Label};

/// Begins every cache file; the number changes with the layout.
const MAGIC: &[u8; 16] = b"releq images 01\n";
/// Largest header that is read, in bytes.
const LARGEST_HEADER: u64 = 1 << 26;
/// Most bytes of pixels that go to a cache: twenty times CIFAR-10 would not.
const LARGEST: usize = 1 << 31;

/// Where decoded images are kept, so that reading them again is fast.
///
/// A cache file is used as long as every file of the folder has the same name, size and time of its
/// last change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// Nowhere.
    Off,
    /// In `releq/decoded` in the user's cache folder; nowhere on a system that names none.
    #[default]
    User,
    /// In this folder, which is created when it is not there.
    In(PathBuf),
}

/// The contents of a cache file.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) pixels: Vec<u8>,
    pub(crate) labels: Vec<Label>,
    pub(crate) skipped: Vec<BadImage>,
}

/// Comes before pixels and labels, as JSON.
#[derive(Serialize, Deserialize)]
struct Header {
    /// What was decoded, and how.
    fingerprint: String,
    pixels: usize,
    labels: usize,
    /// Of pixels and labels.
    crc32: u32,
    skipped: Vec<BadImage>,
}

/// The cache file of one folder, read in one way.
#[derive(Debug)]
pub(crate) struct CacheFile {
    path: PathBuf,
    fingerprint: String,
}

impl CacheFile {
    /// The file for `place`, whose content is `fingerprint` now; `None` where nothing is to be kept.
    pub(crate) fn new(cache: &Cache, place: &str, fingerprint: String) -> Option<Self> {
        let folder = match cache {
            Cache::Off => return None,
            Cache::User => dirs::cache_dir()?.join("releq").join("decoded"),
            Cache::In(folder) => folder.clone(),
        };
        let name = hex(Md5::digest(place).as_slice());
        Some(Self { path: folder.join(format!("{name}.images")), fingerprint })
    }

    /// The cached images, if the cache file exists, is intact and describes the same files.
    pub(crate) fn load(&self) -> Option<Decoded> {
        match self.try_load() {
            Ok(decoded) => decoded,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!("{}: {error}; decoding the images again", self.path.display());
                None
            }
        }
    }

    fn try_load(&self) -> io::Result<Option<Decoded>> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let (mut magic, mut header_length) = ([0; 16], [0; 8]);
        file.read_exact(&mut magic)?;
        file.read_exact(&mut header_length)?;
        let header_length = u64::from_le_bytes(header_length);
        if magic != *MAGIC || header_length > LARGEST_HEADER {
            return Err(damaged("not a cache file of this version"));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header)?;
        let header: Header = serde_json::from_slice(&header)?;
        if header.fingerprint != self.fingerprint {
            log::info!("{}: the folder has changed; decoding it again", self.path.display());
            return Ok(None);
        }
        let label_bytes = header.labels as u64 * size_of::<Label>() as u64;
        let expected = (24 + header_length)
            .checked_add(header.pixels as u64)
            .and_then(|bytes| bytes.checked_add(label_bytes));
        if expected != Some(length) {
            return Err(damaged("the cache file is cut or padded"));
        }
        let mut pixels = vec![0; header.pixels];
        file.read_exact(&mut pixels)?;
        let mut labels = vec![0; label_bytes as usize];
        file.read_exact(&mut labels)?;
        let mut crc = Crc::new();
        crc.update(&pixels);
        crc.update(&labels);
        if crc.sum() != header.crc32 {
            return Err(damaged("the cache file is damaged"));
        }
        let labels = labels
            .chunks_exact(size_of::<Label>())
            .map(|bytes| Label::from_le_bytes(std::array::from_fn(|i| bytes[i])))
            .collect();
        Ok(Some(Decoded { pixels, labels, skipped: header.skipped }))
    }

    /// Keeps `decoded`, unless it is too large; a failure is logged and nothing else.
    pub(crate) fn store(&self, pixels: &[u8], labels: &[Label], skipped: &[BadImage]) {
        if pixels.len() > LARGEST {
            return;
        }
        if let Err(error) = self.try_store(pixels, labels, skipped) {
            log::warn!(
                "cannot keep the decoded images in {} ({error}); they will be decoded again",
                self.path.display()
            );
        }
    }

    fn try_store(&self, pixels: &[u8], labels: &[Label], skipped: &[BadImage]) -> io::Result<()> {
        fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
        let label_bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        let mut crc = Crc::new();
        crc.update(pixels);
        crc.update(&label_bytes);
        let header = serde_json::to_vec(&Header {
            fingerprint: self.fingerprint.clone(),
            pixels: pixels.len(),
            labels: labels.len(),
            crc32: crc.sum(),
            skipped: skipped.to_vec(),
        })?;
        // In pieces, for a copy of all pixels would double the memory.
        let header_length = (header.len() as u64).to_le_bytes();
        let parts = [MAGIC, &header_length[..], &header, pixels, &label_bytes];
        atomic_file::write_with(&self.path, |file| {
            parts.into_iter().try_for_each(|part| file.write_all(part))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_unless_it_is_old_or_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::In(folder.path().join("new").join("folder"));
        let open = |fingerprint: &str| CacheFile::new(&cache, "place", fingerprint.into()).unwrap();
        let file = open("now");
        assert_eq!(file.load(), None);
        let skipped = vec![BadImage { path: "a/b.png".into(), reason: "why".into() }];
        let (pixels, labels): (Vec<u8>, Vec<Label>) = ((0..250).collect(), vec![3, 1, 2]);
        file.store(&pixels, &labels, &skipped);
        let decoded = Decoded { pixels, labels, skipped };
        assert_eq!(file.load().as_ref(), Some(&decoded));
        assert_eq!(open("later").load(), None);

        let whole = fs::read(&file.path).unwrap();
        for position in [0, 20, 30, whole.len() - 100, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            fs::write(&file.path, damaged).unwrap();
            assert_eq!(file.load(), None, "byte {position}");
        }
        for length in [0, 10, 23, 60, whole.len() - 1] {
            fs::write(&file.path, &whole[..length]).unwrap();
            assert_eq!(file.load(), None, "cut to {length}");
        }
        fs::write(&file.path, [&whole[..], b"x"].concat()).unwrap();
        assert_eq!(file.load(), None, "padded");
        fs::write(&file.path, &whole).unwrap();
        assert_eq!(file.load(), Some(decoded));
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::write(&taken, "a file where the folder should be").unwrap();
        let file = CacheFile::new(&Cache::In(taken.clone()), "place", "now".into()).unwrap();
        assert!(file.try_store(&[1], &[0], &[]).is_err());
        file.store(&[1], &[0], &[]);
        assert_eq!(file.load(), None);
        assert!(CacheFile::new(&Cache::Off, "place", "now".into()).is_none());
    }
}
