//! Finds a data set by name, or detects which one a folder contains.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{arrays, cifar10, image_folder, mnist, svhn};
use crate::{DataError, ImageFolderConfig, Splits, files::download::cache_folder};

/// The data sets that can be read from files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DataKind {
    /// Handwritten digits, 28 x 28 (LeCun, Cortes and Burges, 1998).
    Mnist,
    /// Pieces of clothing, in the format of MNIST (Xiao, Rasul and Vollgraf, 2017).
    FashionMnist,
    /// Ten classes of animals and vehicles, 32 x 32 in colour (Krizhevsky, 2009).
    Cifar10,
    /// House numbers, cropped to one digit of 32 x 32 in colour (Netzer et al., 2011).
    Svhn,
    /// Image files, one folder per class.
    ImageFolder,
    /// Image files that a table lists.
    ImageList,
    /// Arrays of NumPy.
    Arrays,
}

impl DataKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Mnist,
        Self::FashionMnist,
        Self::Cifar10,
        Self::Svhn,
        Self::ImageFolder,
        Self::ImageList,
        Self::Arrays,
    ];

    /// Whether this is one data set, known by its name, and not a form that images of any kind may have.
    #[must_use]
    pub const fn is_published(self) -> bool {
        matches!(self, Self::Mnist | Self::FashionMnist | Self::Cifar10 | Self::Svhn)
    }

    /// Whether the images are files of their own, which are read as an [`ImageFolderConfig`] says.
    #[must_use]
    pub const fn is_image_files(self) -> bool {
        matches!(self, Self::ImageFolder | Self::ImageList)
    }

    /// The name for command lines and folders, as it is parsed.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar10",
            Self::Svhn => "svhn",
            Self::ImageFolder => "image-folder",
            Self::ImageList => "image-list",
            Self::Arrays => "arrays",
        }
    }

    /// A description of the files of this data set.
    pub(crate) const fn layout(self) -> &'static str {
        match self {
            Self::Mnist => {
                "the four `-ubyte` files, plain or gzip, directly or in `mnist/` or `MNIST/raw/`"
            }
            Self::FashionMnist => {
                "the four `-ubyte` files, plain or gzip, directly or in `fashion-mnist/` or \
                 `FashionMNIST/raw/`"
            }
            Self::Cifar10 => {
                "the six batches, binary or Python, directly or in `cifar-10-batches-bin/`, \
                 `cifar-10-batches-py/` or `cifar10/`, or one of the two archives that hold them"
            }
            Self::Svhn => "`train_32x32.mat` and `test_32x32.mat`, directly or in `svhn/`",
            Self::ImageList => "a table in `.csv` with columns `path`, `label` and `split`",
            Self::Arrays => {
                "a file `.npz` with arrays `x` and `y`, or `x_train`, `y_train`, `x_test` and `y_test`"
            }
            Self::ImageFolder => {
                "`train/CLASS/` and `test/CLASS/` or `val/CLASS/` with image files; or image files alone, which have no \
                 labels"
            }
        }
    }

    /// Whether `path` is a file of this kind, which is one file by its extension.
    fn is_file(self, path: &Path) -> bool {
        let extension = match self {
            Self::ImageList => "csv",
            Self::Arrays => "npz",
            _ => return false,
        };
        has_extension(path, extension) && path.is_file()
    }

    /// Number of files or folders that it consists of.
    const fn parts(self) -> usize {
        match self {
            Self::Mnist | Self::FashionMnist => 4,
            Self::Cifar10 => 6,
            Self::Svhn | Self::ImageFolder => 2,
            Self::ImageList | Self::Arrays => 1,
        }
    }

    /// The folder that contains this data set: `dir` or one in it.
    fn folder_in(self, dir: &Path) -> Result<PathBuf, DataError> {
        match self {
            Self::Mnist | Self::FashionMnist => mnist::folder_in(dir, self),
            Self::Cifar10 => cifar10::find(dir).map(|_| dir.to_owned()),
            Self::Svhn => svhn::folder_in(dir),
            Self::ImageList | Self::Arrays if self.is_file(dir) => Ok(dir.to_owned()),
            Self::ImageList | Self::Arrays => {
                let missing = vec![self.layout().to_owned()];
                Err(DataError::NotFound { kind: self, folder: dir.to_owned(), missing })
            }
            Self::ImageFolder => image_folder::is_image_folder(dir).map(|()| dir.to_owned()),
        }
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mnist => "MNIST",
            Self::FashionMnist => "Fashion-MNIST",
            Self::Cifar10 => "CIFAR-10",
            Self::Svhn => "SVHN",
            Self::ImageFolder => "image folder",
            Self::ImageList => "image list",
            Self::Arrays => "arrays",
        })
    }
}

impl FromStr for DataKind {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        let found = Self::ALL.into_iter().find(|kind| kind.slug() == name);
        found.ok_or_else(|| DataError::UnknownKind { name: name.to_owned() })
    }
}

/// Reads the data set in `dir`: the given `kind`, or else the one that is detected.
///
/// `images` applies to image folders and lists only.
///
/// # Errors
/// When `dir` does not exist or does not contain the data set, `kind` is not given and there are several, or a
/// file is damaged.
///
/// # Examples
///
/// ```no_run
/// use std::path::Path;
///
/// use releq_data::{self as data, ImageFolderConfig, ImageSize};
///
/// // Whatever is in `cats-and-dogs/train/CLASS` and `cats-and-dogs/test/CLASS`, as 32 x 32.
/// let config = ImageFolderConfig { size: ImageSize::square(32), ..Default::default() };
/// let data = data::open(Path::new("cats-and-dogs"), None, &config)?;
/// println!("{}: {} and {} images", data.source, data.train.len(), data.test.len());
/// # Ok::<(), data::DataError>(())
/// ```
pub fn open(
    dir: &Path,
    kind: Option<DataKind>,
    images: &ImageFolderConfig,
) -> Result<Splits, DataError> {
    let kind = kind.map_or_else(|| detect(dir), Ok)?;
    match kind {
        DataKind::Mnist => mnist::load(dir),
        DataKind::FashionMnist => mnist::load_fashion(dir),
        DataKind::Cifar10 => cifar10::load(dir),
        DataKind::Svhn => svhn::load(dir),
        DataKind::ImageFolder => image_folder::load(dir, images),
        DataKind::ImageList => image_folder::load_list(dir, images),
        DataKind::Arrays => arrays::load(dir, images.max_bytes),
    }
}

/// Whether a name ends so, in upper or lower case.
fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Checks that there is something at `path`, so that a wrong path is not taken for missing files.
pub(crate) fn exists(path: &Path) -> Result<(), DataError> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(DataError::NoFolder { folder: path.to_owned() })
        }
        Err(source) => Err(DataError::Read { path: path.to_owned(), source }),
    }
}

/// Detects which data set is in `dir`.
///
/// # Errors
/// When `dir` does not exist, or contains no data set or several.
pub fn detect(dir: &Path) -> Result<DataKind, DataError> {
    exists(dir)?;
    // A single file is an archive, but not every file is one.
    let is_archive = || has_extension(dir, "gz") || has_extension(dir, "tgz");
    let is_one = |kind: &DataKind| kind.is_file(dir);
    if let Some(kind) = DataKind::ALL.iter().copied().find(is_one) {
        return Ok(kind);
    }
    if dir.is_file() && !is_archive() {
        return Err(DataError::NothingFound { folder: dir.to_owned() });
    }
    let (mut found, mut incomplete) = (Vec::new(), None);
    for kind in DataKind::ALL {
        let folder = match kind.folder_in(dir) {
            Ok(folder) => folder,
            Err(error) => {
                let lacks = |missing: &Vec<String>| missing.len() < kind.parts();
                if matches!(&error, DataError::NotFound { missing, .. } if lacks(missing)) {
                    incomplete.get_or_insert(error);
                }
                continue;
            }
        };
        // MNIST and Fashion-MNIST have files of the same names; unknown labels count as MNIST.
        let idx = matches!(kind, DataKind::Mnist | DataKind::FashionMnist);
        if !idx || mnist::recognized(&folder).unwrap_or(DataKind::Mnist) == kind {
            found.push(kind);
        }
    }
    match found[..] {
        // Part of a data set says more than that there is none.
        [] => Err(incomplete.unwrap_or(DataError::NothingFound { folder: dir.to_owned() })),
        [kind] => Ok(kind),
        _ => Err(DataError::Ambiguous { folder: dir.to_owned(), found }),
    }
}

/// Finds the folder of a data set: in `data_dir` if given, else in the folder that the environment variable
/// `RELEQ_DATA_DIR` names, else in the user's cache folder. `None` if neither of the last two contains it.
///
/// # Errors
/// When `data_dir` is given but does not contain the data set.
pub fn find(kind: DataKind, data_dir: Option<&Path>) -> Result<Option<PathBuf>, DataError> {
    if let Some(dir) = data_dir {
        exists(dir)?;
        return kind.folder_in(dir).map(Some);
    }
    let named = std::env::var_os("RELEQ_DATA_DIR").map(PathBuf::from);
    let mut places = named.into_iter().chain(cache_folder(kind));
    Ok(places.find_map(|dir| kind.folder_in(&dir).ok()))
}
