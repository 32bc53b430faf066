//! Reads folders of JPEG, PNG and WebP files: `train/CLASS/image.jpg` and `test/CLASS/image.jpg`.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use md5::{Digest, Md5};
use releq_core::parallel;
use serde::{Deserialize, Serialize};

use crate::{
    BadImage, Cache, Color, DataError, DataKind, Dataset, DatasetInfo, ImageSet, ImageSize, Label,
    Normalization, Splits,
    files::{
        cache::CacheFile,
        decode::{self, DecodeError},
        download::hex,
    },
    subset::{split, stratified},
};

/// Names of image files end with one of these; what is in them decides how they are decoded.
pub(crate) const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Folders of test images, the first that is there.
const TEST_FOLDERS: [&str; 4] = ["test", "val", "valid", "validation"];

/// Largest image file that is read.
const LARGEST_FILE: u64 = 1 << 28;

/// What to do with images that do not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadImages {
    /// Loading fails and names them.
    #[default]
    Refuse,
    /// They are left out, logged and counted.
    Skip,
}

/// How to read an image folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageFolderConfig {
    /// What becomes of the size of the images.
    pub size: ImageSize,
    /// The channels.
    pub color: Color,
    /// What to do with images that do not decode.
    pub bad_images: BadImages,
    /// Where decoded images are kept.
    pub cache: Cache,
    /// Most bytes that the pixels of one folder may take in memory; 3 GiB by default.
    pub max_bytes: u64,
    /// Threads that decode; 0, the default, for as many as the machine has processors.
    pub threads: usize,
}

impl Default for ImageFolderConfig {
    fn default() -> Self {
        Self {
            size: ImageSize::default(),
            color: Color::default(),
            bad_images: BadImages::default(),
            cache: Cache::default(),
            max_bytes: 3 << 30,
            threads: 0,
        }
    }
}

/// One image file.
#[derive(Debug, Clone)]
struct ImageFile {
    /// Within the folder of its class.
    name: String,
    class: Label,
}

/// A folder with one folder of images per class, read when asked.
///
/// Classes are numbered in the order of their names. Within a class, images come in the order of
/// theirs. Hidden files, files of other kinds and folders within classes are passed over. The
/// orientation that a camera noted in a file is not applied, as in training elsewhere.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    root: PathBuf,
    name: String,
    classes: Vec<String>,
    files: Vec<ImageFile>,
    shape: [usize; 3],
    /// The image that gave the shape.
    first: PathBuf,
    config: ImageFolderConfig,
    /// Of all files in the folder, when it was opened.
    listing: String,
    /// Whether `files` are all files of the folder.
    whole: bool,
}

/// Things with the index of the image that they belong to, in order.
type Numbered<T> = Vec<(usize, T)>;

/// What [`ImageFolder::load`] gives.
#[derive(Debug, Clone)]
pub struct LoadedImages {
    /// The images.
    pub images: ImageSet,
    /// Images that were left out because they do not decode.
    pub skipped: Vec<BadImage>,
}

impl ImageFolder {
    /// Lists the images of `folder` and finds their shape; reads none but the first.
    ///
    /// # Errors
    /// When the folder cannot be read, has no class, a class has no image, no image decodes, or the
    /// configuration cannot be.
    pub fn open(folder: impl Into<PathBuf>, config: &ImageFolderConfig) -> Result<Self, DataError> {
        let root = folder.into();
        if let ImageSize::ResizeCrop { resize, crop } = config.size
            && !(1..=resize).contains(&crop)
        {
            let expected = "at least 1 and at most `resize`";
            let (of, field, found) = ("image folder", "size.crop", crop.to_string());
            return Err(DataError::Parameter { of, field, found, expected });
        }
        let (classes, files, listing) = list(&root)?;
        let mut folder = Self {
            name: root.display().to_string(),
            root,
            classes,
            files,
            shape: [config.color.channels(), 0, 0],
            first: PathBuf::new(),
            config: config.clone(),
            listing,
            whole: true,
        };
        let (first, [height, width]) = folder.image_size()?;
        folder.first = first;
        folder.shape = [config.color.channels(), height, width];
        Ok(folder)
    }

    /// Height and width that the images will have, and the image that says so.
    fn image_size(&self) -> Result<(PathBuf, [usize; 2]), DataError> {
        if let ImageSize::ResizeCrop { crop, .. } = self.config.size {
            return Ok((self.image_path(0), [crop as usize; 2]));
        }
        let mut bad = Vec::new();
        for file in &self.files {
            let path = self.path(file);
            match decode::size(&read_file(&path)?) {
                Ok(size) if !size.contains(&0) => return Ok((path, size)),
                Ok(_) => bad.push(BadImage { path, reason: DecodeError::Empty.to_string() }),
                Err(error) => bad.push(BadImage { path, reason: error.to_string() }),
            }
        }
        Err(DataError::BadImages { folder: self.root.clone(), total: self.files.len(), bad })
    }

    fn path(&self, file: &ImageFile) -> PathBuf {
        self.root.join(&self.classes[usize::from(file.class)]).join(&file.name)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Path of image `index`.
    ///
    /// # Panics
    /// When `index` is not below the number of images.
    pub fn image_path(&self, index: usize) -> PathBuf {
        self.path(&self.files[index])
    }

    /// Names of the classes, by their number.
    pub fn class_names(&self) -> &[String] {
        &self.classes
    }

    /// `n` of the images, each class in its share; the same seed gives the same.
    ///
    /// `n` is brought into the range from 1 to the number of images.
    #[must_use]
    pub fn take(&self, n: usize, seed: u64) -> Self {
        let n = n.clamp(1, self.files.len());
        self.only(&stratified(&self.labels(), self.classes.len(), n, seed))
    }

    /// Splits off `holdout` images, each class in its share: (rest, held out).
    ///
    /// # Errors
    /// When nothing would be held out or nothing would be left.
    pub fn split(&self, holdout: usize, seed: u64) -> Result<(Self, Self), DataError> {
        let labels = self.labels();
        let (rest, held_out) = split(&self.name, &labels, self.classes.len(), holdout, seed)?;
        Ok((self.only(&rest), self.only(&held_out)))
    }

    fn labels(&self) -> Vec<Label> {
        self.files.iter().map(|file| file.class).collect()
    }

    fn only(&self, indices: &[usize]) -> Self {
        let files = indices.iter().map(|&index| self.files[index].clone()).collect();
        Self { files, whole: false, ..self.clone() }
    }

    /// Decodes all images into memory, on several threads, or takes them from the cache.
    ///
    /// Beside the images themselves, no more is in memory than one file and one decoded image per
    /// thread.
    ///
    /// # Errors
    /// When the images would not fit the memory allowed, a file cannot be read, an image has another
    /// size than the first, images do not decode and are not to be skipped, or the folder changes
    /// meanwhile.
    pub fn load(&self) -> Result<LoadedImages, DataError> {
        let size: usize = self.shape.iter().product();
        let bytes = size as u64 * self.files.len() as u64;
        if bytes > self.config.max_bytes {
            return Err(DataError::TooLarge {
                folder: self.root.clone(),
                images: self.files.len(),
                shape: self.shape,
                bytes,
                limit: self.config.max_bytes,
            });
        }
        let cache = self.cache_file();
        if let Some(decoded) = cache.as_ref().and_then(CacheFile::load)
            && (decoded.skipped.is_empty() || self.config.bad_images == BadImages::Skip)
        {
            let images = ImageSet::new(
                self.name.clone(),
                self.shape,
                self.classes.len(),
                decoded.pixels,
                decoded.labels,
            )?;
            return Ok(LoadedImages { images, skipped: decoded.skipped });
        }

        let (pixels, bad) = self.decode_all(size, bytes as usize)?;
        if list(&self.root)?.2 != self.listing {
            return Err(DataError::Changed { folder: self.root.clone() });
        }
        if !bad.is_empty() && self.config.bad_images == BadImages::Refuse {
            let bad = bad.into_iter().map(|(_, bad)| bad).collect();
            return Err(DataError::BadImages {
                folder: self.root.clone(),
                total: self.files.len(),
                bad,
            });
        }
        let (pixels, labels) = self.without(pixels, size, &bad);
        let skipped: Vec<BadImage> = bad.into_iter().map(|(_, bad)| bad).collect();
        skipped.iter().for_each(|bad| log::warn!("left out {bad}"));
        let images =
            ImageSet::new(self.name.clone(), self.shape, self.classes.len(), pixels, labels)?;
        if let Some(cache) = cache {
            cache.store(images.pixels(), images.labels(), &skipped);
        }
        Ok(LoadedImages { images, skipped })
    }

    /// The pixels of all images, and the index of each that does not decode, in order.
    fn decode_all(
        &self,
        size: usize,
        bytes: usize,
    ) -> Result<(Vec<u8>, Numbered<BadImage>), DataError> {
        let mut pixels = vec![0; bytes];
        let bad = Mutex::new(Vec::new());
        let images = self.files.iter().zip(pixels.chunks_exact_mut(size)).enumerate();
        let threads = parallel::threads(self.config.threads);
        parallel::try_for_each(images, threads, |(index, (file, to))| {
            match self.decode(file, to) {
                Err(Failure::Bad(image)) => lock(&bad).push((index, image)),
                Err(Failure::Fatal(error)) => return Err(error),
                Ok(()) => {}
            }
            Ok(())
        })?;
        let mut bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
        bad.sort_by_key(|&(index, _)| index);
        Ok((pixels, bad))
    }

    fn decode(&self, file: &ImageFile, planes: &mut [u8]) -> Result<(), Failure> {
        let path = self.path(file);
        let bytes = read_file(&path).map_err(Failure::Fatal)?;
        let image = match decode::decode(&bytes, self.config.size) {
            Ok(image) => image,
            Err(error) => {
                return Err(Failure::Bad(BadImage { path, reason: error.to_string() }));
            }
        };
        let found = [image.height() as usize, image.width() as usize];
        let expected = [self.shape[1], self.shape[2]];
        if found != expected {
            let first = self.first.clone();
            return Err(Failure::Fatal(DataError::MixedSizes { path, found, first, expected }));
        }
        decode::to_planes(image, self.config.color, planes);
        Ok(())
    }

    /// Pixels and labels without the bad images.
    fn without(
        &self,
        mut pixels: Vec<u8>,
        size: usize,
        bad: &[(usize, BadImage)],
    ) -> (Vec<u8>, Vec<Label>) {
        let mut labels = Vec::with_capacity(self.files.len());
        for (index, file) in self.files.iter().enumerate() {
            if bad.binary_search_by_key(&index, |&(index, _)| index).is_err() {
                // Compact the images that decoded.
                pixels.copy_within(index * size..(index + 1) * size, labels.len() * size);
                labels.push(file.class);
            }
        }
        pixels.truncate(labels.len() * size);
        (pixels, labels)
    }

    /// The cache file of the whole folder; a part of it is not worth one.
    fn cache_file(&self) -> Option<CacheFile> {
        if !self.whole {
            return None;
        }
        let root = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        let way = format!("{:?} {:?}", self.config.size, self.config.color);
        let place = format!("{way} {}", root.display());
        CacheFile::new(&self.config.cache, &place, format!("{} {:?}", self.listing, self.shape))
    }
}

impl Dataset for ImageFolder {
    fn info(&self) -> DatasetInfo<'_> {
        let (name, classes) = (&self.name, Some(self.classes.len()));
        DatasetInfo { name, shape: self.shape, classes, len: self.files.len() }
    }

    fn label(&self, index: usize) -> Option<Label> {
        Some(self.files[index].class)
    }

    /// Decodes the image. One that does not decode is an error, for there is nothing to skip to.
    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        self.decode(&self.files[index], pixels).map_err(|failure| match failure {
            Failure::Fatal(error) => error,
            Failure::Bad(bad) => {
                DataError::BadImages { folder: self.root.clone(), total: 1, bad: vec![bad] }
            }
        })
    }

    /// As the default, with several threads that decode.
    fn gather(
        &self,
        indices: &[usize],
        normalization: &Normalization,
        images: &mut Vec<f32>,
        labels: &mut Vec<Label>,
    ) -> Result<(), DataError> {
        let size: usize = self.shape.iter().product();
        let mut pixels = vec![0; size * indices.len()];
        let threads = parallel::threads(self.config.threads).min(indices.len());
        let jobs = indices.iter().zip(pixels.chunks_exact_mut(size));
        parallel::try_for_each(jobs, threads, |(&index, image)| self.read_image(index, image))?;
        normalization.start(&self.name, self.shape, indices.len(), images)?.push(&pixels);
        labels.clear();
        labels.extend(indices.iter().map(|&index| self.files[index].class));
        Ok(())
    }
}

/// Why an image was not read.
enum Failure {
    /// It does not decode.
    Bad(BadImage),
    /// Nothing that can be skipped.
    Fatal(DataError),
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let fail = |source| DataError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// Names of what is in `folder`, in order, but for what is hidden or not named in Unicode.
fn entries(folder: &Path) -> Result<Vec<(String, fs::DirEntry)>, DataError> {
    let fail = |source| DataError::Read { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        match entry.file_name().into_string() {
            Ok(name) if name.starts_with('.') => {}
            Ok(name) => entries.push((name, entry)),
            Err(name) => log::warn!("{}: passed over {name:?}", folder.display()),
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// Names of the folders in `folder`, in order.
fn class_names(folder: &Path) -> Result<Vec<String>, DataError> {
    let entries = entries(folder)?.into_iter();
    Ok(entries.filter(|(_, entry)| entry.path().is_dir()).map(|(name, _)| name).collect())
}

fn is_image(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Classes, files and a fingerprint of names, sizes and times of all files.
fn list(root: &Path) -> Result<(Vec<String>, Vec<ImageFile>, String), DataError> {
    let classes = class_names(root)?;
    if classes.is_empty() {
        return Err(DataError::NoClasses { folder: root.to_owned() });
    }
    let most = usize::from(Label::MAX) + 1;
    if classes.len() > most {
        let name = root.display().to_string();
        return Err(DataError::InvalidClasses { name, found: classes.len() });
    }
    let mut files = Vec::new();
    let mut digest = Md5::new();
    for (class, class_name) in (0..=Label::MAX).zip(&classes) {
        let folder = root.join(class_name);
        let before = files.len();
        digest.update(format!("{class_name}/\n"));
        for (name, entry) in entries(&folder)? {
            if !is_image(&name) {
                continue;
            }
            let path = entry.path();
            // Through links, which `DirEntry::metadata` does not follow.
            let metadata =
                fs::metadata(&path).map_err(|source| DataError::Read { path, source })?;
            if metadata.is_file() {
                let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                digest.update(format!("{name}\n{} {changed}\n", metadata.len()));
                files.push(ImageFile { name, class });
            }
        }
        if files.len() == before {
            return Err(DataError::EmptyClass { folder });
        }
    }
    Ok((classes, files, hex(digest.finalize().as_slice())))
}

/// The folder of test images in `dir`, if there is one: the first of `test`, `val`, `valid` and `validation`.
#[must_use]
pub fn test_folder(dir: &Path) -> Option<PathBuf> {
    TEST_FOLDERS.iter().map(|name| dir.join(name)).find(|folder| folder.is_dir())
}

/// The folders of training and test images in `dir`: `train`, and the [`test_folder`].
///
/// # Errors
/// When one of the two is not there.
pub fn splits(dir: &Path) -> Result<[PathBuf; 2], DataError> {
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

/// Opens `dir/train` and `dir/test`, which may also be called `val`, `valid` or `validation`.
///
/// # Errors
/// As [`ImageFolder::open`], and when the two have different classes or sizes.
pub fn open(dir: &Path, config: &ImageFolderConfig) -> Result<Splits<ImageFolder>, DataError> {
    let [train_folder, test_folder] = splits(dir)?;
    // Names first: a class without images is then called what it is.
    let (train, test) = (class_names(&train_folder)?, class_names(&test_folder)?);
    if train != test && !train.is_empty() && !test.is_empty() {
        let only = |a: &[String], b: &[String]| {
            a.iter().filter(|name| !b.contains(name)).cloned().collect::<Vec<_>>()
        };
        let (missing, unexpected) = (only(&train, &test), only(&test, &train));
        let (train, test) = (train_folder, test_folder);
        return Err(DataError::ClassMismatch { train, test, missing, unexpected });
    }
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
    Ok(Splits { train, test, source: format!("images from {}", dir.display()) })
}

/// Loads `dir/train` and `dir/test`, which may also be called `val`, `valid` or `validation`.
///
/// # Errors
/// As [`open`] and [`ImageFolder::load`].
pub fn load(dir: &Path, config: &ImageFolderConfig) -> Result<Splits, DataError> {
    let Splits { train, test, mut source } = open(dir, config)?;
    let (train, test) = (train.load()?, test.load()?);
    let skipped = train.skipped.len() + test.skipped.len();
    if skipped > 0 {
        source.push_str(&format!(", without {skipped} that do not decode"));
    }
    Ok(Splits { train: train.images, test: test.images, source })
}
