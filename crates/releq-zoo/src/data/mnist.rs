//! Finds, downloads and reads MNIST.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use md5::{Digest, Md5};

use super::{
    DataError, DataSet, ImageSet,
    idx::{self, decompressed},
};

/// One of the four files: its name, and the MD5 of its decompressed bytes.
struct File {
    name: &'static str,
    md5: &'static str,
}

const TRAIN_IMAGES: File =
    File { name: "train-images-idx3-ubyte", md5: "6bbc9ace898e44ae57da46a324031adb" };
const TRAIN_LABELS: File =
    File { name: "train-labels-idx1-ubyte", md5: "a25bea736e30d166cdddb491f175f624" };
const TEST_IMAGES: File =
    File { name: "t10k-images-idx3-ubyte", md5: "2646ac647ad5339dbf082846283269ea" };
const TEST_LABELS: File =
    File { name: "t10k-labels-idx1-ubyte", md5: "27ae3e4e09519cfbb04c329615203637" };
const FILES: [File; 4] = [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS];

/// The file in `folder`, under any of the names it goes by.
fn locate(folder: &Path, file: &File) -> Option<PathBuf> {
    let dotted = file.name.replacen("-idx", ".idx", 1);
    [file.name, &dotted]
        .iter()
        .flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))])
        .find(|path| path.is_file())
}

/// The folder among `dir`, `dir/mnist` and `dir/MNIST/raw` that has all four files.
fn folder_in(dir: &Path) -> Result<PathBuf, DataError> {
    let missing = |folder: &Path| -> Vec<&'static str> {
        FILES.iter().filter(|file| locate(folder, file).is_none()).map(|file| file.name).collect()
    };
    let candidates = [dir.to_owned(), dir.join("mnist"), dir.join("MNIST").join("raw")];
    if let Some(folder) = candidates.iter().find(|folder| missing(folder).is_empty()) {
        return Ok(folder.clone());
    }
    // Name what is missing where most of it is.
    let nearest =
        candidates.iter().min_by_key(|folder| missing(folder).len()).unwrap_or(&candidates[0]);
    Err(DataError::NotFound { folder: nearest.clone(), missing: missing(nearest) })
}

/// Reads MNIST from `dir`, from its `mnist/` or from its `MNIST/raw/`.
///
/// # Errors
/// When one of the four files is missing, or is not what it should be.
pub fn load(dir: &Path) -> Result<DataSet, DataError> {
    let folder = folder_in(dir)?;
    Ok(DataSet {
        train: read(&folder, "MNIST train", &TRAIN_IMAGES, &TRAIN_LABELS)?,
        test: read(&folder, "MNIST test", &TEST_IMAGES, &TEST_LABELS)?,
        source: format!("MNIST from {}", folder.display()),
    })
}

fn read(folder: &Path, name: &str, images: &File, labels: &File) -> Result<ImageSet, DataError> {
    let path = |file: &File| {
        locate(folder, file).ok_or_else(|| DataError::NotFound {
            folder: folder.to_owned(),
            missing: vec![file.name],
        })
    };
    let (images_path, labels_path) = (path(images)?, path(labels)?);
    let images = idx::read_images(&images_path)?;
    let labels = idx::read_labels(&labels_path)?;
    if images.size != [28, 28] {
        let (expected, found) = ([28, 28], images.size);
        return Err(DataError::ImageSize { path: images_path, expected, found });
    }
    if images.count as usize != labels.len() {
        return Err(DataError::CountMismatch {
            images_path,
            images: images.count,
            labels_path,
            labels: u32::try_from(labels.len()).unwrap_or(u32::MAX),
        });
    }
    if let Some(index) = labels.iter().position(|&label| label > 9) {
        let name = labels_path.display().to_string();
        return Err(DataError::LabelOutOfRange { name, index, found: labels[index], classes: 10 });
    }
    ImageSet::new(name, [1, 28, 28], 10, images.pixels, labels)
}

/// The folder that holds MNIST: `data_dir`, else what the environment variable `RELEQ_DATA_DIR` names,
/// else the user's cache folder; `None` where neither of the last two has it.
///
/// # Errors
/// When `data_dir` is given and the files are not there.
pub fn find(data_dir: Option<&Path>) -> Result<Option<PathBuf>, DataError> {
    if let Some(dir) = data_dir {
        return folder_in(dir).map(Some);
    }
    let named = std::env::var_os("RELEQ_DATA_DIR").map(PathBuf::from);
    Ok(named.into_iter().chain(cache_folder()).find_map(|dir| folder_in(&dir).ok()))
}

/// Where downloads go by default.
fn cache_folder() -> Option<PathBuf> {
    Some(dirs::cache_dir()?.join("releq").join("mnist"))
}

/// Public copies of the four files.
const MIRRORS: [&str; 2] = [
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
];

/// How to download MNIST.
#[derive(Debug, Clone)]
pub struct Download {
    /// Addresses of folders that hold the four files, tried in this order.
    pub base_urls: Vec<String>,
    /// The folder that the files go to; created when it is not there.
    pub folder: PathBuf,
    /// Attempts per file and address.
    pub attempts: u32,
}

impl Download {
    /// A download from public mirrors into `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let base_urls = MIRRORS.iter().map(|&url| url.to_owned()).collect();
        Self { base_urls, folder: folder.into(), attempts: 3 }
    }

    /// A download from public mirrors into the user's cache folder, where [`find`] looks.
    ///
    /// # Errors
    /// When the system names no cache folder.
    pub fn to_cache() -> Result<Self, DataError> {
        cache_folder().map(Self::new).ok_or(DataError::NoCacheFolder)
    }
}

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress {
    /// Name of the file.
    pub file: &'static str,
    /// Position of the file among all, from 0.
    pub file_index: usize,
    /// Number of files.
    pub files: usize,
    /// Bytes of this file that are here.
    pub received: u64,
    /// Bytes this file has, when the server says so.
    pub total: Option<u64>,
}

/// Downloads the files that are not there yet, checks them, and returns their folder.
///
/// A file grows under the name `.part` and is renamed once its checksum is right; a `.part` that is
/// there is gone on with where the server allows it.
///
/// # Errors
/// When a file cannot be fetched whole and right, or the folder cannot be written.
pub fn download(
    download: &Download,
    on_progress: &mut dyn FnMut(DownloadProgress),
) -> Result<PathBuf, DataError> {
    let folder = &download.folder;
    fs::create_dir_all(folder)
        .map_err(|source| DataError::Write { path: folder.clone(), source })?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        .build()
        .into();
    for (file_index, file) in FILES.iter().enumerate() {
        if locate(folder, file).is_some() {
            continue;
        }
        let mut last = None;
        let mut attempts = 0;
        'file: for base in &download.base_urls {
            let url = format!("{}/{}.gz", base.trim_end_matches('/'), file.name);
            for _ in 0..download.attempts.max(1) {
                attempts += 1;
                let mut report = |received, total| {
                    on_progress(DownloadProgress {
                        file: file.name,
                        file_index,
                        files: FILES.len(),
                        received,
                        total,
                    });
                };
                match fetch(&agent, &url, folder, file, &mut report) {
                    Ok(()) => {
                        last = None;
                        break 'file;
                    }
                    // No other address mends this.
                    Err(error @ DataError::Write { .. }) => return Err(error),
                    Err(error) => {
                        log::warn!("{error}");
                        let gone = matches!(error, DataError::HttpStatus { .. });
                        last = Some(error);
                        if gone {
                            break;
                        }
                    }
                }
            }
        }
        match last {
            Some(DataError::Transfer { url, source, .. }) => {
                return Err(DataError::Transfer { url, attempts, folder: folder.clone(), source });
            }
            Some(error) => return Err(error),
            None if locate(folder, file).is_none() => return Err(DataError::NoAddress),
            None => {}
        }
    }
    Ok(folder.clone())
}

/// Fetches one file, going on with a part that is there; leaves the part for the next attempt if the
/// connection breaks, and removes it if its checksum is wrong.
fn fetch(
    agent: &ureq::Agent,
    url: &str,
    folder: &Path,
    file: &File,
    report: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), DataError> {
    let part = folder.join(format!("{}.gz.part", file.name));
    let write_error = |source| DataError::Write { path: part.clone(), source };
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| DataError::Transfer {
        url: url.to_owned(),
        attempts: 1,
        folder: folder.to_owned(),
        source,
    };
    let have = fs::metadata(&part).map_or(0, |metadata| metadata.len());
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|error| broken(error.into()))?;
    let status = response.status().as_u16();
    let (mut received, mut out) = match status {
        206 => (have, fs::OpenOptions::new().append(true).open(&part)),
        200 => (0, fs::File::create(&part)),
        // The part is as long as the file, or longer: start anew.
        416 => {
            fs::remove_file(&part).map_err(write_error)?;
            return Err(broken("the part on disk did not fit, starting anew".into()));
        }
        _ => return Err(DataError::HttpStatus { url: url.to_owned(), status }),
    };
    let length = response.body().content_length();
    let total = length.map(|length| received + length);
    let out = out.as_mut().map_err(|error| write_error(std::io::Error::from(error.kind())))?;
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = body.read(&mut buffer).map_err(|error| broken(error.into()))?;
        if count == 0 {
            break;
        }
        out.write_all(&buffer[..count]).map_err(write_error)?;
        received += count as u64;
        report(received, total);
    }
    if total.is_some_and(|total| received < total) {
        return Err(broken(format!("the connection ended after {received} bytes").into()));
    }
    out.sync_all().map_err(write_error)?;
    let found = match decompressed(&part) {
        Ok(bytes) => format!("{:x}", HexDigest(Md5::digest(&bytes).as_slice())),
        Err(_) => "none, for it is no whole gzip file".to_owned(),
    };
    if found != file.md5 {
        fs::remove_file(&part).map_err(write_error)?;
        let (url, expected) = (url.to_owned(), file.md5.to_owned());
        return Err(DataError::Checksum { url, expected, found });
    }
    fs::rename(&part, folder.join(format!("{}.gz", file.name))).map_err(write_error)
}

/// Bytes as lower-case hexadecimal digits.
struct HexDigest<'a>(&'a [u8]);

impl std::fmt::LowerHex for HexDigest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
