//! Reads folders of image files: `train/CLASS/image.jpg` and `test/CLASS/image.jpg`.

mod annotations;
mod class_list;
mod config;
mod left_out;
mod list;
mod listing;
mod splits;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use releq_core::parallel;

pub(crate) use self::listing::EXTENSIONS;
use self::{
    class_list::ClassList,
    listing::{ImageFile, Listing},
};
pub use self::{
    class_list::listed_classes,
    config::{BadImages, ImageFolderConfig},
    left_out::LeftOut,
    list::{labels_are_numbers, load_list, load_test_list},
    listing::is_image,
    splits::{check_classes, load, open, splits, test_folder},
};
pub(crate) use self::{
    list::classes_of_list,
    splits::{FIFTH, classes_of, is_image_folder, test_fifth},
};
use crate::{
    BadImage, DataError, Dataset, DatasetInfo, ImageSet, ImageSize, Label, Normalization,
    dataset::zeros,
    files::{
        cache::{CacheFile, Expected},
        decode::{self, ReadError},
    },
    sets::exists,
    subset::{split, stratified},
};

/// A folder of images with one subfolder per class, read on demand. Images in a folder without subfolders have no
/// classes.
///
/// What belongs to the data set follows torchvision's `ImageFolder`: every file in the folder of a class,
/// or in a folder within it, whose name ends in one of `jpg`, `jpeg`, `png`, `ppm`, `bmp`, `pgm`, `tif`,
/// `tiff` and `webp`, in upper or lower case. The contents decide how a file is decoded. Other files are
/// counted in [`left_out`](Self::left_out); hidden files and those that systems leave in folders, such as
/// `__MACOSX` and `Thumbs.db`, are ignored.
///
/// Classes are numbered in the order of their names, in Unicode's composed form (NFC). Within a class,
/// images are ordered by folder and name. Tiny ImageNet's `val/`, which has all images in `images/` and their
/// classes in `val_annotations.txt`, is read as it is.
///
/// Transparency is dropped, samples of 16 bits are rounded to 8, and the orientation that a camera noted in
/// a file is not applied.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    root: PathBuf,
    name: String,
    classes: Vec<String>,
    files: Vec<ImageFile>,
    left_out: LeftOut,
    /// What there is to say of the list of classes.
    joined: Option<String>,
    shape: [usize; 3],
    /// The image that gave the shape.
    first: PathBuf,
    config: ImageFolderConfig,
    /// Of all files in the folder, when it was opened; `None` for files from a list.
    fingerprint: Option<String>,
    /// Whether `files` are all files of the folder.
    whole: bool,
}

/// Things with the index of the image that they belong to, in order.
type Numbered<T> = Vec<(usize, T)>;

/// The result of [`ImageFolder::load`].
#[derive(Debug, Clone)]
pub struct LoadedImages {
    /// The images.
    pub images: ImageSet,
    /// Images that were skipped because they do not decode.
    pub skipped: Vec<BadImage>,
}

impl ImageFolder {
    /// Lists the images of `folder` and determines their shape; reads only the first that decodes.
    ///
    /// # Errors
    /// When the folder cannot be read, it has no classes, a class has no image, two folders are the same class, no
    /// image decodes, or a setting is out of range.
    pub fn open(folder: impl Into<PathBuf>, config: &ImageFolderConfig) -> Result<Self, DataError> {
        config.check()?;
        let root = folder.into();
        exists(&root)?;
        let Listing { mut classes, mut files, left_out, fingerprint } = Listing::read(&root)?;
        let mut joined = None;
        if let Some(path) = config.class_list.as_ref().filter(|_| !classes.is_empty()) {
            let list = ClassList::read(path)?;
            let numbers = list.numbers(path, &classes)?;
            joined = class_list::joined(path, &classes, &numbers);
            files.iter_mut().for_each(|file| file.class = numbers[usize::from(file.class)]);
            classes = list.names;
        }
        let name = root.display().to_string();
        let folder =
            Self::with_files(root, name, classes, files, left_out, Some(fingerprint), config)?;
        Ok(Self { joined, ..folder })
    }

    /// The images in these files, which have no classes; reads only the first that decodes.
    ///
    /// # Errors
    /// When there is no file, none decodes, or a setting is out of range.
    pub fn of_files(
        files: impl IntoIterator<Item = PathBuf>,
        config: &ImageFolderConfig,
    ) -> Result<Self, DataError> {
        config.check()?;
        let files: Vec<ImageFile> =
            files.into_iter().map(|path| ImageFile { path, class: 0 }).collect();
        let name = match files.as_slice() {
            [] => return Err(DataError::Empty { name: "image files".to_owned() }),
            [file] => file.path.display().to_string(),
            files => format!("{} image files", files.len()),
        };
        let left_out = LeftOut::default();
        Self::with_files(PathBuf::new(), name, Vec::new(), files, left_out, None, config)
    }

    /// A folder with these files; reads only the first that decodes.
    fn with_files(
        root: PathBuf,
        name: String,
        classes: Vec<String>,
        files: Vec<ImageFile>,
        left_out: LeftOut,
        fingerprint: Option<String>,
        config: &ImageFolderConfig,
    ) -> Result<Self, DataError> {
        let mut folder = Self {
            name,
            root,
            classes,
            files,
            left_out,
            joined: None,
            shape: [config.color.channels(), 0, 0],
            first: PathBuf::new(),
            config: config.clone(),
            whole: fingerprint.is_some(),
            fingerprint,
        };
        let (first, [height, width]) = folder.image_size()?;
        folder.first = first;
        folder.shape = [config.color.channels(), height, width];
        Ok(folder)
    }

    /// Height and width that the images will have, and the image that determines them.
    fn image_size(&self) -> Result<(PathBuf, [usize; 2]), DataError> {
        if let ImageSize::ResizeCrop { crop, .. } = self.config.size {
            return Ok((self.image_path(0), [crop as usize; 2]));
        }
        let mut bad = Vec::new();
        for file in &self.files {
            let path = self.path(file);
            match decode::size(&path) {
                Ok(size) => return Ok((path, size)),
                Err(ReadError::Bad(error)) => {
                    bad.push(BadImage { path, reason: error.to_string() });
                }
                Err(ReadError::Fatal(source)) => match self.bad_or_fatal(path, source) {
                    Failure::Bad(image) => bad.push(image),
                    Failure::Fatal(error) => return Err(error),
                },
            }
        }
        Err(DataError::BadImages { folder: self.place(), total: self.files.len(), bad })
    }

    /// What a file is that cannot be opened: a list may name one that does not exist; one of a folder was there.
    fn bad_or_fatal(&self, path: PathBuf, source: io::Error) -> Failure {
        if self.fingerprint.is_none() && source.kind() == io::ErrorKind::NotFound {
            Failure::Bad(BadImage { path, reason: source.to_string() })
        } else {
            Failure::Fatal(DataError::Read { path, source })
        }
    }

    fn path(&self, file: &ImageFile) -> PathBuf {
        self.root.join(&file.path)
    }

    /// The folder, or what the files are that are in none.
    fn place(&self) -> PathBuf {
        if self.root.as_os_str().is_empty() { PathBuf::from(&self.name) } else { self.root.clone() }
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

    /// Names of the classes, by class number; none where the images have no classes.
    pub fn class_names(&self) -> &[String] {
        &self.classes
    }

    /// Files of the whole folder that are not read as images.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Where the list of classes gives several folders one number, which joins them to one class: a sentence that says
    /// so.
    pub fn joined_classes(&self) -> Option<&str> {
        self.joined.as_deref()
    }

    /// A random subset of `n` images with the classes in proportion. The same seed gives the same subset.
    ///
    /// `n` is clamped to the range from 1 to the number of images.
    #[must_use]
    pub fn take(&self, n: usize, seed: u64) -> Self {
        let n = n.clamp(1, self.files.len());
        self.only(&stratified(&self.labels(), self.classes.len().max(1), n, seed))
    }

    /// Splits off `holdout` random images with the classes in proportion: (rest, held out).
    ///
    /// # Errors
    /// When nothing would be held out or nothing would be left.
    pub fn split(&self, holdout: usize, seed: u64) -> Result<(Self, Self), DataError> {
        let labels = self.labels();
        let (rest, held_out) =
            split(&self.name, &labels, self.classes.len().max(1), holdout, seed)?;
        Ok((self.only(&rest), self.only(&held_out)))
    }

    fn labels(&self) -> Vec<Label> {
        self.files.iter().map(|file| file.class).collect()
    }

    fn only(&self, indices: &[usize]) -> Self {
        let files = indices.iter().map(|&index| self.files[index].clone()).collect();
        Self { files, whole: false, ..self.clone() }
    }

    /// Reads all images into memory: decodes them on several threads, or takes them from the cache.
    ///
    /// Beside the images themselves, the files and decoded images that all threads work on at a time take no
    /// more than 1 GiB.
    ///
    /// # Errors
    /// When the images would exceed the memory allowed, a file cannot be read, an image differs in size from
    /// the first, images do not decode and are not to be skipped, or the folder changes meanwhile.
    pub fn load(&self) -> Result<LoadedImages, DataError> {
        let size: usize = self.shape.iter().product();
        let bytes = size as u64 * self.files.len() as u64;
        if bytes > self.config.max_bytes {
            return Err(DataError::TooLarge {
                folder: self.place(),
                images: self.files.len(),
                shape: self.shape,
                bytes,
                limit: self.config.max_bytes,
            });
        }
        let cache = self.cache_file();
        let expected = Expected {
            image_bytes: size,
            images: self.files.iter().map(|file| (self.path(file), file.class)),
        };
        if let Some(decoded) = cache.as_ref().and_then(|cache| cache.load(expected))
            && (decoded.skipped.is_empty() || self.config.bad_images == BadImages::Skip)
        {
            let images = self.set(decoded.pixels, decoded.labels)?;
            return Ok(LoadedImages { images, skipped: decoded.skipped });
        }

        let (pixels, bad) = self.decode_all(size, bytes as usize)?;
        if let Some(fingerprint) = &self.fingerprint
            && Listing::read(&self.root)?.fingerprint != *fingerprint
        {
            return Err(DataError::Changed { folder: self.root.clone() });
        }
        let refuse = self.config.bad_images == BadImages::Refuse || bad.len() == self.files.len();
        if !bad.is_empty() && refuse {
            let bad = bad.into_iter().map(|(_, bad)| bad).collect();
            return Err(DataError::BadImages {
                folder: self.place(),
                total: self.files.len(),
                bad,
            });
        }
        let (pixels, labels) = self.without(pixels, size, &bad);
        let skipped: Vec<BadImage> = bad.into_iter().map(|(_, bad)| bad).collect();
        skipped.iter().for_each(|bad| log::warn!("skipped {bad}"));
        if let Some(cache) = cache {
            cache.store(&pixels, &labels, &skipped);
        }
        Ok(LoadedImages { images: self.set(pixels, labels)?, skipped })
    }

    /// Images of this folder in memory.
    fn set(&self, pixels: Vec<u8>, labels: Vec<Label>) -> Result<ImageSet, DataError> {
        let name = self.name.clone();
        match self.classes.len() {
            0 => ImageSet::unlabelled(name, self.shape, pixels),
            classes => ImageSet::new(name, self.shape, classes, pixels, labels),
        }
    }

    /// The pixels of all images, and the index of each that does not decode, in order.
    fn decode_all(
        &self,
        size: usize,
        bytes: usize,
    ) -> Result<(Vec<u8>, Numbered<BadImage>), DataError> {
        let mut pixels = zeros(&self.name, bytes)?;
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
        let image = match decode::read(&path, self.config.size) {
            Ok(image) => image,
            Err(ReadError::Bad(error)) => {
                return Err(Failure::Bad(BadImage { path, reason: error.to_string() }));
            }
            Err(ReadError::Fatal(source)) => return Err(self.bad_or_fatal(path, source)),
        };
        let found = image.size();
        let expected = [self.shape[1], self.shape[2]];
        if found != expected {
            let first = self.first.clone();
            return Err(Failure::Fatal(DataError::MixedSizes { path, found, first, expected }));
        }
        image.into_planes(self.config.color, planes);
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
        let fingerprint = self.fingerprint.as_ref().filter(|_| self.whole)?;
        let root = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        let way = format!("{:?} {:?}", self.config.size, self.config.color);
        let place = format!("{way} {}", root.display());
        let content = format!("{fingerprint} {:?}", self.shape);
        CacheFile::new(&self.config.cache, &place, content)
    }
}

impl Dataset for ImageFolder {
    fn info(&self) -> DatasetInfo<'_> {
        let (name, classes) = (&self.name, self.classes.len());
        let classes = (classes > 0).then_some(classes);
        DatasetInfo { name, shape: self.shape, classes, len: self.files.len() }
    }

    fn label(&self, index: usize) -> Option<Label> {
        let file = self.files.get(index).filter(|_| !self.classes.is_empty());
        file.map(|file| file.class)
    }

    /// Decodes the image. One that does not decode is an error, even where [`load`](Self::load) skips it.
    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        self.decode(&self.files[index], pixels).map_err(|failure| match failure {
            Failure::Fatal(error) => error,
            Failure::Bad(image) => DataError::BadImage { image },
        })
    }

    /// As the default, but decodes on several threads.
    fn gather(
        &self,
        indices: &[usize],
        normalization: &Normalization,
        images: &mut Vec<f32>,
        labels: &mut Vec<Label>,
    ) -> Result<(), DataError> {
        // First, for values that are refused need no image.
        let mut normalize = normalization.start(&self.name, self.shape, indices.len(), images)?;
        let size: usize = self.shape.iter().product();
        let mut pixels = vec![0; size * indices.len()];
        let threads = parallel::threads(self.config.threads).min(indices.len());
        let jobs = indices.iter().zip(pixels.chunks_exact_mut(size));
        parallel::try_for_each(jobs, threads, |(&index, image)| self.read_image(index, image))?;
        normalize.push(&pixels);
        labels.clear();
        labels.extend(indices.iter().filter_map(|&index| self.label(index)));
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
