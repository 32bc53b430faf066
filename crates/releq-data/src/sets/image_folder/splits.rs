//! Image folders with a part to train on and one to test on.

use std::path::{Path, PathBuf};

use super::LoadedImages;
use super::{
    ImageFolder, ImageFolderConfig,
    listing::{class_names, has_images_alone, is_unlabelled},
};
use crate::{DataError, DataKind, ImageSet, Splits, sets::exists};

/// Names of the folder of test images, in order of preference.
const TEST_FOLDERS: [&str; 4] = ["test", "val", "valid", "validation"];

/// The folder of test images in `dir`, if there is one: the first of `test`, `val`, `valid` and `validation`.
///
/// A folder whose images have no classes, such as Tiny ImageNet's `test/`, is taken only if there is no other.
#[must_use]
pub fn test_folder(dir: &Path) -> Option<PathBuf> {
    let folders = TEST_FOLDERS.iter().map(|name| dir.join(name));
    let mut folders: Vec<PathBuf> = folders.filter(|folder| folder.is_dir()).collect();
    folders.sort_by_key(|folder| is_unlabelled(folder));
    folders.into_iter().next()
}

/// The folders of training and test images in `dir`: `train`, and the [`test_folder`].
///
/// # Errors
/// When `dir` or one of the two does not exist.
pub fn splits(dir: &Path) -> Result<[PathBuf; 2], DataError> {
    exists(dir)?;
    let train = dir.join("train");
    let test = test_folder(dir);
    let mut missing = Vec::new();
    if !train.is_dir() {
        missing.push("train/".to_owned());
    }
    match test {
        Some(test) if missing.is_empty() => return Ok([train, test]),
        Some(_) => {}
        None => missing.push(format!("{}/", TEST_FOLDERS.join("/ or "))),
    }
    let kind = DataKind::ImageFolder;
    Err(DataError::NotFound { kind, folder: dir.to_owned(), missing })
}

/// Checks that the folders of training and test images in `dir` have the same classes, for one to call who reads only
/// one of the two: classes are numbered in the order of their names, so a test folder that lacks one would have
/// other numbers than the training folder for all that follow. Where one of the two does not exist, there is nothing
/// to compare.
///
/// # Errors
/// [`DataError::ClassMismatch`], and when a folder cannot be read or has no classes.
pub fn check_classes(dir: &Path, config: &ImageFolderConfig) -> Result<(), DataError> {
    match splits(dir) {
        Ok([train, test]) => compare_classes(&train, &test, config),
        Err(_) => Ok(()),
    }
}

/// Names of the classes in `dir`, which are those of the images to train on; none where it has images alone.
pub(crate) fn classes_of(dir: &Path) -> Result<Vec<String>, DataError> {
    match has_images_alone(dir) {
        true => Ok(Vec::new()),
        false => class_names(&splits(dir)?[0]),
    }
}

fn compare_classes(
    train_folder: &Path,
    test_folder: &Path,
    config: &ImageFolderConfig,
) -> Result<(), DataError> {
    // A list gives every class its number, whichever of them have images.
    if config.class_list.is_some() {
        return Ok(());
    }
    let (train, test) = (class_names(train_folder)?, class_names(test_folder)?);
    if train == test {
        return Ok(());
    }
    let only = |a: &[String], b: &[String]| {
        a.iter().filter(|name| !b.contains(name)).cloned().collect::<Vec<_>>()
    };
    let (missing, unexpected) = (only(&train, &test), only(&test, &train));
    let (train, test) = (train_folder.to_owned(), test_folder.to_owned());
    Err(DataError::ClassMismatch { train, test, missing, unexpected })
}

/// Opens `dir/train` and `dir/test`, which may also be called `val`, `valid` or `validation`. The source says
/// how many files were left out.
///
/// # Errors
/// As [`ImageFolder::open`], and when the two have different classes or sizes.
pub fn open(dir: &Path, config: &ImageFolderConfig) -> Result<Splits<ImageFolder>, DataError> {
    let [train_folder, test_folder] = splits(dir)?;
    // Before the images: an empty folder in one of the two is then not taken for another class.
    compare_classes(&train_folder, &test_folder, config)?;
    let train = ImageFolder::open(train_folder, config)?;
    let test = ImageFolder::open(test_folder, config)?;
    if train.shape != test.shape {
        let size = |folder: &ImageFolder| [folder.shape[1], folder.shape[2]];
        return Err(DataError::MixedSizes {
            found: size(&test),
            path: test.first,
            expected: size(&train),
            first: train.first,
        });
    }
    let mut source = format!("images from {}", dir.display());
    let left_out = train.left_out().clone() + test.left_out();
    if !left_out.is_empty() {
        source.push_str(&format!(", without {left_out}"));
    }
    if let Some(joined) = train.joined_classes().or(test.joined_classes()) {
        source.push_str(&format!(", where {joined}"));
    }
    Ok(Splits { train, test, source })
}

/// Loads `dir/train` and `dir/test`, which may also be called `val`, `valid` or `validation`. Of a folder that holds
/// images and no folders, every fifth is a test image, chosen at random but always the same; they have no labels. The
/// source says how many images were skipped.
///
/// # Errors
/// As [`open`] and [`ImageFolder::load`].
pub fn load(dir: &Path, config: &ImageFolderConfig) -> Result<Splits, DataError> {
    if has_images_alone(dir) {
        return load_alone(dir, config);
    }
    let Splits { train, test, mut source } = open(dir, config)?;
    let (train, test) = (train.load()?, test.load()?);
    let skipped = train.skipped.len() + test.skipped.len();
    if skipped > 0 {
        source.push_str(&format!(", without {skipped} that do not decode"));
    }
    Ok(Splits { train: train.images, test: test.images, source })
}

/// Loads images that are all in one folder.
fn load_alone(dir: &Path, config: &ImageFolderConfig) -> Result<Splits, DataError> {
    let folder = ImageFolder::open(dir, config)?;
    let mut source = format!("images without labels from {}", dir.display());
    if !folder.left_out().is_empty() {
        source.push_str(&format!(", without {}", folder.left_out()));
    }
    let LoadedImages { images, skipped } = folder.load()?;
    if !skipped.is_empty() {
        source.push_str(&format!(", without {} that do not decode", skipped.len()));
    }
    let (train, test) = test_fifth(images)?;
    source.push_str(FIFTH);
    Ok(Splits { train, test, source })
}

/// What a source is said to be where [`test_fifth`] splits it.
pub(crate) const FIFTH: &str = ", every fifth for the test";

/// Images that nobody has split: the rest, and every fifth for the test.
///
/// # Errors
/// [`DataError::Holdout`] for a single image.
pub(crate) fn test_fifth(images: ImageSet) -> Result<(ImageSet, ImageSet), DataError> {
    let test = images.len().div_ceil(5);
    images.split(test, 0)
}

/// Whether a folder is an image folder: one with a part to train on and one to test on, or one that holds images alone.
pub(crate) fn is_image_folder(dir: &Path) -> Result<(), DataError> {
    if has_images_alone(dir) { Ok(()) } else { splits(dir).map(|_| ()) }
}
