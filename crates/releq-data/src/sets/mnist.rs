//! Finds and reads MNIST and Fashion-MNIST, which come in files of the same names.

use std::path::{Path, PathBuf};

use super::{
    exists,
    published::{Checksum, Published, RemoteFile},
};
use crate::{DataError, DataKind, ImageSet, Label, Splits, files::idx};

/// Where MNIST is published. The checksums are of the decompressed files.
pub(crate) const MNIST: Published = Published {
    mirrors: &[
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ],
    files: &[
        RemoteFile { name: TRAIN[0], md5: Checksum::Content("6bbc9ace898e44ae57da46a324031adb") },
        RemoteFile { name: TRAIN[1], md5: Checksum::Content("a25bea736e30d166cdddb491f175f624") },
        RemoteFile { name: TEST[0], md5: Checksum::Content("2646ac647ad5339dbf082846283269ea") },
        RemoteFile { name: TEST[1], md5: Checksum::Content("27ae3e4e09519cfbb04c329615203637") },
    ],
};

/// Where Fashion-MNIST is published (Xiao, Rasul and Vollgraf, 2017), with the checksums of its authors.
pub(crate) const FASHION_MNIST: Published = Published {
    mirrors: &["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"],
    files: &[
        RemoteFile { name: TRAIN[0], md5: Checksum::File("8d4fb7e6c68d591d4c3dfef9ec88bf0d") },
        RemoteFile { name: TRAIN[1], md5: Checksum::File("25c81989df183df01b3e8a0aad5dffbe") },
        RemoteFile { name: TEST[0], md5: Checksum::File("bef4ecab320f06d8554ea6380940ec79") },
        RemoteFile { name: TEST[1], md5: Checksum::File("bb300cfdad3c16e7a12a480ee83cd310") },
    ],
};

/// Images and labels.
const TRAIN: [&str; 2] = ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"];
const TEST: [&str; 2] = ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"];

/// The first test labels of each.
const FIRST_LABELS: [(DataKind, [u8; 10]); 2] = [
    (DataKind::Mnist, [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),
    (DataKind::FashionMnist, [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]),
];

/// The file in `folder` under any of its usual names: with and without `.gz`, and with the dot that some tools
/// use instead of the first hyphen before `idx`.
pub(crate) fn locate(folder: &Path, file: &RemoteFile) -> Option<PathBuf> {
    locate_name(folder, file.name)
}

fn locate_name(folder: &Path, name: &str) -> Option<PathBuf> {
    let plain = name.trim_end_matches(".gz");
    let dotted = plain.replacen("-idx", ".idx", 1);
    [plain, &dotted]
        .iter()
        .flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))])
        .find(|path| path.is_file())
}

/// The folder in `dir` that has all four files of `kind`.
///
/// Files with other labels than those of the two data sets are taken for the requested kind.
pub(crate) fn folder_in(dir: &Path, kind: DataKind) -> Result<PathBuf, DataError> {
    let [short, long] = match kind {
        DataKind::FashionMnist => ["fashion-mnist", "FashionMNIST"],
        _ => ["mnist", "MNIST"],
    };
    let missing = |folder: &Path| -> Vec<String> {
        let names = [TRAIN, TEST].concat().into_iter();
        let missing = names.filter(|name| locate_name(folder, name).is_none());
        missing.map(|name| name.trim_end_matches(".gz").to_owned()).collect()
    };
    let candidates = [dir.to_owned(), dir.join(short), dir.join(long).join("raw")];
    if let Some(folder) = candidates.iter().find(|folder| missing(folder).is_empty()) {
        return Ok(folder.clone());
    }
    // What is missing in the folder that lacks the least.
    let nearest =
        candidates.iter().min_by_key(|folder| missing(folder).len()).unwrap_or(&candidates[0]);
    Err(DataError::NotFound { kind, folder: nearest.clone(), missing: missing(nearest) })
}

/// Which of the two data sets `folder` contains, judging by the test labels.
pub(crate) fn recognized(folder: &Path) -> Option<DataKind> {
    let labels = idx::first_labels(&locate_name(folder, TEST[1])?, 10).ok()?;
    recognize(&labels)
}

fn recognize(labels: &[u8]) -> Option<DataKind> {
    FIRST_LABELS.iter().find(|(_, first)| labels.starts_with(first)).map(|&(kind, _)| kind)
}

/// Reads MNIST from `dir`, `dir/mnist` or `dir/MNIST/raw`.
///
/// # Errors
/// When one of the four files is missing, damaged, or not MNIST.
pub fn load(dir: &Path) -> Result<Splits, DataError> {
    load_kind(dir, DataKind::Mnist)
}

/// Reads Fashion-MNIST from `dir`, `dir/fashion-mnist` or `dir/FashionMNIST/raw`.
///
/// # Errors
/// When one of the four files is missing, damaged, or not Fashion-MNIST.
pub fn load_fashion(dir: &Path) -> Result<Splits, DataError> {
    load_kind(dir, DataKind::FashionMnist)
}

fn load_kind(dir: &Path, kind: DataKind) -> Result<Splits, DataError> {
    exists(dir)?;
    let folder = folder_in(dir, kind)?;
    let (test_labels, train) = (TEST[1], read(&folder, kind, "train", TRAIN)?);
    let test = read(&folder, kind, "test", TEST)?;
    let first: Vec<u8> =
        test.labels().iter().take(10).filter_map(|&label| u8::try_from(label).ok()).collect();
    if let Some(found) = recognize(&first).filter(|&found| found != kind) {
        let path = locate_name(&folder, test_labels).unwrap_or(folder);
        return Err(DataError::OtherData { path, expected: kind, found });
    }
    Ok(Splits { train, test, source: format!("{kind} from {}", folder.display()) })
}

fn read(
    folder: &Path,
    kind: DataKind,
    part: &str,
    [images, labels]: [&str; 2],
) -> Result<ImageSet, DataError> {
    let path = |name: &str| {
        let (folder, missing) = (folder.to_owned(), vec![name.to_owned()]);
        locate_name(&folder, name).ok_or(DataError::NotFound { kind, folder, missing })
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
        let (name, found) = (labels_path.display().to_string(), Label::from(labels[index]));
        return Err(DataError::LabelOutOfRange { name, index, found, classes: 10 });
    }
    let labels = labels.into_iter().map(Label::from).collect();
    ImageSet::new(format!("{kind} {part}"), [1, 28, 28], 10, images.pixels, labels)
}
