//! What can go wrong with data.

use std::io;
use std::path::PathBuf;

/// Why a data set could not be found, fetched, read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("cannot read {}; check that it exists and is readable", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder could not be created or written.
    #[error(
        "cannot write {}; check the permissions and the free space, or choose another folder",
        path.display()
    )]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The compressed data is damaged.
    #[error("{}: corrupt gzip data after {decompressed} good bytes; fetch the file again", path.display())]
    Gzip {
        /// The file.
        path: PathBuf,
        /// Bytes that could be decompressed before the damage.
        decompressed: u64,
        /// What the decompressor said.
        source: io::Error,
    },
    /// An IDX file begins with the wrong four bytes.
    #[error(
        "{}, bytes 0-3: magic number is {found:#010x}, expected {expected:#010x} ({meaning}); \
         is this another file under that name?",
        path.display()
    )]
    IdxMagic {
        /// The file.
        path: PathBuf,
        /// The magic number that this kind of file has.
        expected: u32,
        /// The magic number in the file.
        found: u32,
        /// The kind of file expected, in words.
        meaning: &'static str,
    },
    /// An IDX file ends before the data its header promises.
    #[error(
        "{}: file ends after {found} bytes, expected {expected} (header: dimensions {dims:?}); \
         it is truncated, fetch it again",
        path.display()
    )]
    IdxTruncated {
        /// The file.
        path: PathBuf,
        /// Dimensions in the header; empty when the header itself is cut.
        dims: Vec<u32>,
        /// Bytes the whole file should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// An IDX file goes on after the data its header promises.
    #[error(
        "{}: data goes on after byte {expected}, where it should end (header: dimensions {dims:?}); \
         the file is damaged, fetch it again",
        path.display()
    )]
    IdxTrailing {
        /// The file.
        path: PathBuf,
        /// Dimensions in the header.
        dims: Vec<u32>,
        /// Bytes the whole file should have.
        expected: u64,
    },
    /// An IDX header asks for more data than is plausible.
    #[error("{}: header gives dimensions {dims:?}, more than the {limit} bytes allowed", path.display())]
    IdxTooLarge {
        /// The file.
        path: PathBuf,
        /// Dimensions in the header.
        dims: Vec<u32>,
        /// Bytes allowed.
        limit: u64,
    },
    /// The images have another size than this data set has.
    #[error(
        "{}: images are {}x{} pixels, expected {}x{}",
        path.display(), found[0], found[1], expected[0], expected[1]
    )]
    ImageSize {
        /// The file.
        path: PathBuf,
        /// Rows and columns expected.
        expected: [u32; 2],
        /// Rows and columns in the file.
        found: [u32; 2],
    },
    /// The image file and the label file have different counts.
    #[error(
        "{} has {images} images but {} has {labels} labels; the two files do not belong together",
        images_path.display(), labels_path.display()
    )]
    CountMismatch {
        /// The image file.
        images_path: PathBuf,
        /// Images in it.
        images: u32,
        /// The label file.
        labels_path: PathBuf,
        /// Labels in it.
        labels: u32,
    },
    /// A label names no class.
    #[error("{name}: label of image {index} is {found}, expected 0 to {}", classes.saturating_sub(1))]
    LabelOutOfRange {
        /// The image set or the label file.
        name: String,
        /// Position of the label, from 0.
        index: usize,
        /// The label.
        found: u8,
        /// Number of classes.
        classes: usize,
    },
    /// There are not as many pixels as labels and shape ask for.
    #[error(
        "{name}: {found} pixel bytes for {labels} labels of shape {shape:?}, expected {expected}"
    )]
    PixelCount {
        /// The image set.
        name: String,
        /// Number of labels.
        labels: usize,
        /// Channels, height, width.
        shape: [usize; 3],
        /// Bytes expected.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A dimension is zero, or the image is too large to count its pixels.
    #[error("{name}: image shape {shape:?} is not possible; every dimension must be at least 1")]
    InvalidShape {
        /// The image set.
        name: String,
        /// Channels, height, width.
        shape: [usize; 3],
    },
    /// The number of classes does not fit a label byte.
    #[error("{name}: {found} classes, expected 1 to 256")]
    InvalidClasses {
        /// The image set.
        name: String,
        /// Number of classes given.
        found: usize,
    },
    /// There is not one image.
    #[error("{name}: no images; a data set needs at least one")]
    Empty {
        /// The image set or the file.
        name: String,
    },
    /// More images, or fewer, were to be held out than the set can give.
    #[error(
        "{name}: cannot hold out {holdout} of {len} images, expected {}",
        if *len < 2 { "a set of at least 2 images".to_owned() } else { format!("1 to {}", len - 1) }
    )]
    Holdout {
        /// The image set.
        name: String,
        /// Images to hold out.
        holdout: usize,
        /// Images in the set.
        len: usize,
    },
    /// A parameter of the generator is out of range.
    #[error("digits: `{field}` is {found}, expected {expected}")]
    Parameter {
        /// The field of [`DigitsConfig`](super::digits::DigitsConfig).
        field: &'static str,
        /// The value given.
        found: String,
        /// The values allowed, in words.
        expected: &'static str,
    },
    /// A folder does not hold the data set's files.
    #[error(
        "no MNIST in {}: missing {}; name a folder that has the four files (plain or .gz), \
         itself or in `mnist/` or `MNIST/raw/`",
        folder.display(), missing.join(", ")
    )]
    NotFound {
        /// The folder.
        folder: PathBuf,
        /// The files that are not there.
        missing: Vec<&'static str>,
    },
    /// The system names no cache folder for this user.
    #[error("this system names no cache folder for the user; name a folder for the download")]
    NoCacheFolder,
    /// No address was given to download from.
    #[error("no address to download from; give at least one")]
    NoAddress,
    /// A download failed at every address.
    #[error(
        "cannot download {url} ({attempts} attempts); check the network and any proxy, \
         or place the file in {} by hand",
        folder.display()
    )]
    Transfer {
        /// The address tried last.
        url: String,
        /// Attempts made, over all addresses.
        attempts: u32,
        /// The folder that the file should go to.
        folder: PathBuf,
        /// Why the last attempt failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A server answered with something other than the file.
    #[error("cannot download {url}: the server answered with status {status}, expected 200 or 206")]
    HttpStatus {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// A downloaded file is not the one published.
    #[error(
        "{url}: the decompressed file has md5 {found}, expected {expected}; \
         it was damaged on the way or replaced, and was not kept"
    )]
    Checksum {
        /// The address.
        url: String,
        /// The published checksum.
        expected: String,
        /// The checksum of what came.
        found: String,
    },
}
