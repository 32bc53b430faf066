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

/// Begins every cache file; the number changes with the layout and with how images are decoded.
const MAGIC: &[u8; 16] = b"releq images 02\n";
/// Largest header that is read, in bytes.
const LARGEST_HEADER: u64 = 1 << 26;
/// Most bytes of pixels that are cached; CIFAR-10 has a tenth.
const LARGEST: usize = 1 << 31;

/// Where decoded images are cached.
///
/// A cache file is used as long as every file of the folder has the same name, size and times of last
/// change: of its contents, and on Unix also that of its entry in the file system, which no program can set, and the number
/// of the entry. If it is damaged or does not fit the folder, the images are decoded again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// No cache.
    Off,
    /// `releq/decoded` in the user's cache folder; no cache where the system has no such folder.
    #[default]
    User,
    /// This folder, which is created if necessary.
    In(PathBuf),
}

/// The contents of a cache file.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) pixels: Vec<u8>,
    pub(crate) labels: Vec<Label>,
    pub(crate) skipped: Vec<BadImage>,
}

/// What the images of a cache file must be.
pub(crate) struct Expected<I> {
    /// Bytes of one image.
    pub(crate) image_bytes: usize,
    /// Path and class of every image, in order.
    pub(crate) images: I,
}

/// Comes before pixels and labels, as JSON. It needs no checksum of its own: all of it but the reasons in `skipped`
/// is compared with the folder.
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
    /// The file for `place`, whose contents have this `fingerprint`; `None` if nothing is to be cached.
    pub(crate) fn new(cache: &Cache, place: &str, fingerprint: String) -> Option<Self> {
        let folder = match cache {
            Cache::Off => return None,
            Cache::User => dirs::cache_dir()?.join("releq").join("decoded"),
            Cache::In(folder) => folder.clone(),
        };
        let name = hex(Md5::digest(place).as_slice());
        Some(Self { path: folder.join(format!("{name}.images")), fingerprint })
    }

    /// The cached images, if the cache file exists, is intact and contains what is expected.
    pub(crate) fn load<I>(&self, expected: Expected<I>) -> Option<Decoded>
    where
        I: Iterator<Item = (PathBuf, Label)>,
    {
        match self.try_load(expected) {
            Ok(decoded) => decoded,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!("{}: {error}; decoding the images again", self.path.display());
                None
            }
        }
    }

    fn try_load<I>(&self, expected: Expected<I>) -> io::Result<Option<Decoded>>
    where
        I: Iterator<Item = (PathBuf, Label)>,
    {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let (mut magic, mut header_length) = ([0; 16], [0; 8]);
        file.read_exact(&mut magic)?;
        file.read_exact(&mut header_length)?;
        let header_length = u64::from_le_bytes(header_length);
        if magic != *MAGIC {
            return Err(damaged("not a cache file of this version"));
        }
        if header_length > LARGEST_HEADER.min(length) {
            return Err(damaged("the cache file is damaged"));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header)?;
        let header: Header = serde_json::from_slice(&header)?;
        if header.fingerprint != self.fingerprint {
            log::info!("{}: the folder has changed; decoding it again", self.path.display());
            return Ok(None);
        }
        // Nothing is believed that follows from the folder: the file may be foreign, or have holes.
        let mut skipped = header.skipped.iter().map(|bad| &bad.path).peekable();
        let labels: Vec<Label> = (expected.images)
            .filter(|(path, _)| skipped.next_if(|skipped| *skipped == path).is_none())
            .map(|(_, label)| label)
            .collect();
        let label_bytes = labels.len() * size_of::<Label>();
        let pixels = labels.len().checked_mul(expected.image_bytes);
        if skipped.next().is_some()
            || labels.is_empty()
            || header.labels != labels.len()
            || Some(header.pixels) != pixels
            || (24 + header_length)
                .checked_add((header.pixels + label_bytes) as u64)
                .is_none_or(|bytes| bytes != length)
        {
            return Err(damaged("the cache file is of other images, or cut short"));
        }
        let mut pixels = vec![0; header.pixels];
        file.read_exact(&mut pixels)?;
        let mut stored = vec![0; label_bytes];
        file.read_exact(&mut stored)?;
        let mut crc = Crc::new();
        crc.update(&pixels);
        crc.update(&stored);
        if crc.sum() != header.crc32 {
            return Err(damaged("the cache file is damaged"));
        }
        if !stored.iter().copied().eq(labels.iter().flat_map(|label| label.to_le_bytes())) {
            return Err(damaged("the cache file has the labels of other images"));
        }
        Ok(Some(Decoded { pixels, labels, skipped: header.skipped }))
    }

    /// Writes the cache file, unless it would be too large; a failure is only logged.
    pub(crate) fn store(&self, pixels: &[u8], labels: &[Label], skipped: &[BadImage]) {
        if pixels.len() > LARGEST {
            return;
        }
        if let Err(error) = self.try_store(pixels, labels, skipped) {
            log::warn!(
                "cannot cache the decoded images in {} ({error}); they will be decoded again",
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
        let images = || {
            ["a/a.png", "a/b.png", "b/a.png", "b/b.png"]
                .map(PathBuf::from)
                .into_iter()
                .zip([0, 0, 1, 1])
        };
        let load = |file: &CacheFile| file.load(Expected { image_bytes: 83, images: images() });
        assert_eq!(load(&file), None);
        let skipped = vec![BadImage { path: "a/b.png".into(), reason: "why".into() }];
        let (pixels, labels): (Vec<u8>, Vec<Label>) = ((0..249).collect(), vec![0, 1, 1]);
        file.store(&pixels, &labels, &skipped);
        let decoded = Decoded { pixels, labels, skipped };
        assert_eq!(load(&file).as_ref(), Some(&decoded));
        assert_eq!(load(&open("later")), None);

        let whole = fs::read(&file.path).unwrap();
        let reason = whole.windows(3).position(|bytes| bytes == b"why").unwrap();
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 1 << (position % 8);
            fs::write(&file.path, damaged).unwrap();
            let loaded = load(&file);
            // Why an image was skipped changes no answer.
            if !(reason..reason + 3).contains(&position) {
                assert_eq!(loaded, None, "byte {position}");
            }
        }
        for length in [0, 10, 23, 60, whole.len() - 1] {
            fs::write(&file.path, &whole[..length]).unwrap();
            assert_eq!(load(&file), None, "cut to {length}");
        }
        fs::write(&file.path, [&whole[..], b"x"].concat()).unwrap();
        assert_eq!(load(&file), None, "padded");
        fs::write(&file.path, &whole).unwrap();
        assert_eq!(load(&file), Some(decoded));

        // Intact, but of other images: other labels, a label out of range, sizes that do not fit.
        let store = |pixels: &[u8], labels: &[Label], skipped: &[BadImage]| {
            file.store(pixels, labels, skipped);
            load(&file)
        };
        let Decoded { pixels, labels, skipped } = load(&file).unwrap();
        assert_eq!(store(&pixels, &[0, 0, 1], &skipped), None);
        assert_eq!(store(&pixels, &[0, 1, 9999], &skipped), None);
        assert_eq!(store(&pixels[1..], &labels, &skipped), None);
        assert_eq!(store(&pixels, &labels, &[]), None);
        let other = vec![BadImage { path: "a/c.png".into(), reason: "why".into() }];
        assert_eq!(store(&pixels, &labels, &other), None);
        let all = images().map(|(path, _)| BadImage { path, reason: "why".into() });
        assert_eq!(store(&[], &[], &all.collect::<Vec<_>>()), None);
        assert!(store(&pixels, &labels, &skipped).is_some());
    }

    #[test]
    fn a_header_cannot_ask_for_more_memory_than_the_images_take() {
        let folder = tempfile::tempdir().unwrap();
        let file = CacheFile::new(&Cache::In(folder.path().into()), "place", "now".into()).unwrap();
        let labels = 1_usize << 40;
        let header = serde_json::to_vec(&Header {
            fingerprint: "now".into(),
            pixels: labels,
            labels,
            crc32: 0,
            skipped: Vec::new(),
        });
        let header = header.unwrap();
        let start = [MAGIC, &(header.len() as u64).to_le_bytes()[..], &header].concat();
        fs::write(&file.path, &start).unwrap();
        // A hole takes no space on the disk, but the length is what the header says.
        let sparse = File::options().write(true).open(&file.path).unwrap();
        if let Err(error) = sparse.set_len(start.len() as u64 + 3 * labels as u64) {
            eprintln!("skipped: no such large files here: {error}");
        }
        let images = std::iter::once(("a/a.png".into(), 0));
        assert_eq!(file.load(Expected { image_bytes: 1, images }), None);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::write(&taken, "a file where the folder should be").unwrap();
        let file = CacheFile::new(&Cache::In(taken.clone()), "place", "now".into()).unwrap();
        assert!(file.try_store(&[1], &[0], &[]).is_err());
        file.store(&[1], &[0], &[]);
        let images = std::iter::once(("a".into(), 0));
        assert_eq!(file.load(Expected { image_bytes: 1, images }), None);
        assert!(CacheFile::new(&Cache::Off, "place", "now".into()).is_none());
    }
}
