//! The error type of this crate.

use std::io;
use std::path::PathBuf;

use releq_core::StandIn;

use crate::{BadImage, DataKind, Label, sets::image_folder::EXTENSIONS};

/// Why a data set could not be found, downloaded, read or generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A table or a list is not as it should be.
    #[error(transparent)]
    Text(#[from] releq_core::text::TextError),
    /// A file or folder could not be read.
    #[error("cannot read {}; check that it exists and is readable", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
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
        /// The system's error.
        source: io::Error,
    },
    /// A file has something else in place of its content.
    #[error("{} {what}", path.display())]
    StandIn {
        /// The file.
        path: PathBuf,
        /// What it has.
        what: StandIn,
    },
    /// An array of NumPy that is not there, or not read.
    #[error("{}: array `{name}`: {reason}", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// Name of the array.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The compressed data is damaged.
    #[error("{}: corrupt gzip data after {decompressed} decompressed bytes; fetch the file again", path.display())]
    Gzip {
        /// The file.
        path: PathBuf,
        /// Bytes decompressed before the damage.
        decompressed: u64,
        /// The decompressor's error.
        source: io::Error,
    },
    /// An IDX file begins with the wrong magic number.
    #[error(
        "{}, bytes 0-3: magic number is {found:#010x}, expected {expected:#010x} ({meaning}); \
         this is a different file under that name",
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
        "{}: file ends after {found} bytes, expected {expected} (dimensions in the header: {dims:?}); \
         it is truncated, fetch it again",
        path.display()
    )]
    IdxTruncated {
        /// The file.
        path: PathBuf,
        /// Dimensions in the header; empty if the header itself is truncated.
        dims: Vec<u32>,
        /// Bytes that the complete file has.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// An IDX file continues after the data its header promises.
    #[error(
        "{}: data continues after byte {expected}, where it should end (dimensions in the header: {dims:?}); \
         the file is damaged, fetch it again",
        path.display()
    )]
    IdxTrailing {
        /// The file.
        path: PathBuf,
        /// Dimensions in the header.
        dims: Vec<u32>,
        /// Bytes that the complete file has.
        expected: u64,
    },
    /// An IDX header promises more data than is plausible for the file.
    #[error(
        "{}: dimensions {dims:?} in the header are more than the {limit} bytes allowed; \
         the file is damaged, fetch it again",
        path.display()
    )]
    IdxTooLarge {
        /// The file.
        path: PathBuf,
        /// Dimensions in the header.
        dims: Vec<u32>,
        /// Bytes allowed.
        limit: u64,
    },
    /// The images do not have the size of this data set.
    #[error(
        "{}: images are {}x{} pixels, expected {}x{}; read other images as an image folder",
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
    /// A label is not below the number of classes.
    #[error("{name}: label of image {index} is {found}, expected 0 to {}", classes.saturating_sub(1))]
    LabelOutOfRange {
        /// The image set or the label file.
        name: String,
        /// Position of the label, from 0.
        index: usize,
        /// The label.
        found: Label,
        /// Number of classes.
        classes: usize,
    },
    /// There is not one label for each image.
    #[error("{name}: there are {expected} images, but {found} labels")]
    LabelCount {
        /// The data set.
        name: String,
        /// Number of images.
        expected: usize,
        /// Number of labels.
        found: usize,
    },
    /// An image has no label, although its data set has classes.
    #[error("{name}: image {index} has no label")]
    MissingLabel {
        /// The data set.
        name: String,
        /// Position of the image, from 0.
        index: usize,
    },
    /// Labels are required, but the data set has none.
    #[error("{name}: images have no labels; training and accuracy need labelled images")]
    Unlabelled {
        /// The data set.
        name: String,
    },
    /// A subset was to contain an image that does not exist.
    #[error("{name}: no image {index}, expected an index below {len}")]
    IndexOutOfRange {
        /// The data set.
        name: String,
        /// The index, from 0.
        index: usize,
        /// Number of images.
        len: usize,
    },
    /// The number of pixels does not match labels and shape.
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
    /// A dimension is zero, or the number of pixels overflows.
    #[error("{name}: image shape {shape:?} is invalid; every dimension must be at least 1")]
    InvalidShape {
        /// The image set.
        name: String,
        /// Channels, height, width.
        shape: [usize; 3],
    },
    /// The number of classes is zero or exceeds the range of a label.
    #[error("{name}: {found} classes, expected 1 to 65536")]
    InvalidClasses {
        /// The image set.
        name: String,
        /// Number of classes given.
        found: usize,
    },
    /// There are no images.
    #[error("{name}: no images; a data set needs at least one")]
    Empty {
        /// The image set or the file.
        name: String,
    },
    /// Holding out so many images would leave one of the two parts empty.
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
    /// A parameter is out of range.
    #[error("{of}: `{field}` is {found}, expected {expected}")]
    Parameter {
        /// What it is a parameter of.
        of: &'static str,
        /// The field, for example of [`DigitsConfig`](crate::digits::DigitsConfig).
        field: &'static str,
        /// The value given.
        found: String,
        /// The values allowed, in words.
        expected: &'static str,
    },
    /// A normalization has another number of channels than the images.
    #[error("{name}: images have {channels} channels, but the normalization has {found}")]
    NormalizationChannels {
        /// The data set.
        name: String,
        /// Channels of the images.
        channels: usize,
        /// Channels of the normalization.
        found: usize,
    },
    /// The folder to read does not exist.
    #[error("{} does not exist; check the path to the data", folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder does not contain the files of the data set.
    #[error(
        "no {kind} in {}: missing {}; expected a folder with {}",
        folder.display(), missing.join(", "), kind.layout()
    )]
    NotFound {
        /// The data set looked for.
        kind: DataKind,
        /// The folder.
        folder: PathBuf,
        /// The files that are not there.
        missing: Vec<String>,
    },
    /// A folder does not contain any known data set.
    #[error(
        "no data set in {}; expected one of: {}",
        folder.display(),
        DataKind::ALL.map(|kind| format!("{kind} ({})", kind.layout())).join("; ")
    )]
    NothingFound {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder contains several data sets.
    #[error(
        "{} contains several data sets: {}; choose one, or give the folder of one",
        folder.display(),
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// The data sets there.
        found: Vec<DataKind>,
    },
    /// There is no data set of this name.
    #[error("unknown data set `{name}`, expected one of {}", DataKind::ALL.map(DataKind::slug).join(", "))]
    UnknownKind {
        /// The name.
        name: String,
    },
    /// There is nothing to download for this kind of data.
    #[error("{kind} cannot be downloaded; put the files into a folder by hand")]
    NotDownloadable {
        /// The kind of data.
        kind: DataKind,
    },
    /// A file is damaged or in another format.
    #[error("{}, byte {offset}: {problem}; the file is damaged or not a {format} file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// Position in the data, after decompression.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// A pickle asks for a function or a class that plain data does not need. Nothing was called.
    #[error(
        "{}, byte {offset}: the pickle asks to run `{callable}`, which plain data does not need; \
         nothing was run, but the file should not be trusted",
        path.display()
    )]
    PickleCode {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What it asks to run.
        callable: String,
    },
    /// A file does not contain as many images as labels.
    #[error("{}: {images} images but {labels} labels; fetch the file again", path.display())]
    ImageCount {
        /// The file.
        path: PathBuf,
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },
    /// An archive cannot be read to its end.
    #[error("{}: cannot read the archive; fetch the file again", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Files that go by the same names are of another data set.
    #[error("{}: these are the labels of {found}, not of {expected}", path.display())]
    OtherData {
        /// The label file.
        path: PathBuf,
        /// The data set asked for.
        expected: DataKind,
        /// The data set there.
        found: DataKind,
    },
    /// Images of a folder do not decode.
    #[error(
        "{}: {} of {total} images do not decode: {}; remove them, or choose to skip such images (`bad_images`)",
        folder.display(), bad.len(), listed(bad)
    )]
    BadImages {
        /// The folder.
        folder: PathBuf,
        /// Images looked at.
        total: usize,
        /// Those that do not decode, in the order of the folder.
        bad: Vec<BadImage>,
    },
    /// An image that is needed does not decode.
    #[error("{image}; replace the file, or remove it and read the folder again")]
    BadImage {
        /// The image and the reason.
        image: BadImage,
    },
    /// One image of a folder has another size than the first.
    #[error(
        "{}: {}x{} pixels, but {} has {}x{}; choose a size to scale all images to",
        path.display(), found[1], found[0], first.display(), expected[1], expected[0]
    )]
    MixedSizes {
        /// The image.
        path: PathBuf,
        /// Its height and width.
        found: [usize; 2],
        /// The first image.
        first: PathBuf,
        /// Its height and width.
        expected: [usize; 2],
    },
    /// A folder has no folder per class.
    #[error(
        "{}: no classes; an image folder has one folder of images per class, \
         as in {}/CLASS/image.jpg",
        folder.display(), folder.display()
    )]
    NoClasses {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder of a class has no image.
    #[error("{}: no image of this class; expected {} files", folder.display(), EXTENSIONS.join(", "))]
    EmptyClass {
        /// The folder.
        folder: PathBuf,
    },
    /// Two folders are named alike but for the Unicode form of their names.
    #[error(
        "{}: two folders are named `{name}`, in different Unicode forms; merge them",
        folder.display()
    )]
    SameClass {
        /// The folder that contains them.
        folder: PathBuf,
        /// Their name, in composed form (NFC).
        name: String,
    },
    /// Training and test folder have different classes.
    #[error(
        "{} has other classes than {}: missing {}, unexpected {}; labels are the places of the classes in the \
         order of their names, so both folders need the same",
        test.display(), train.display(), or_none(missing), or_none(unexpected)
    )]
    ClassMismatch {
        /// The training folder.
        train: PathBuf,
        /// The test folder.
        test: PathBuf,
        /// Classes that only the training folder has.
        missing: Vec<String>,
        /// Classes that only the test folder has.
        unexpected: Vec<String>,
    },
    /// The decoded images would not fit the memory allowed.
    #[error(
        "{}: {images} images of shape {shape:?} need {bytes} bytes, more than the {limit} allowed; \
         allow more (`max_bytes`), choose a smaller size, take fewer images, or read them from disk as they are needed",
        folder.display()
    )]
    TooLarge {
        /// The folder.
        folder: PathBuf,
        /// Number of images.
        images: usize,
        /// Channels, height, width.
        shape: [usize; 3],
        /// Bytes they need.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A folder changed while it was read.
    #[error("{} changed while it was read; read it again once nothing writes to it", folder.display())]
    Changed {
        /// The folder.
        folder: PathBuf,
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
        "{url}: the download has MD5 {found}, expected {expected}; \
         it was damaged in transit or replaced, and has been deleted"
    )]
    Checksum {
        /// The address.
        url: String,
        /// The published checksum.
        expected: String,
        /// The checksum of the download.
        found: String,
    },
    /// A [`Dataset`](crate::Dataset) outside this crate could not read its images.
    #[error("cannot read images of {name}")]
    Other {
        /// The data set.
        name: String,
        /// Its own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DataError {
    /// Wraps the error of a data set of your own, called `name`.
    pub fn other(
        name: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Other { name: name.into(), source: source.into() }
    }
}

/// The first bad images, one after the other.
fn listed(bad: &[BadImage]) -> String {
    const SHOWN: usize = 5;
    let mut text = bad.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if bad.len() > SHOWN {
        text.push_str(&format!(" and {} more", bad.len() - SHOWN));
    }
    text
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
