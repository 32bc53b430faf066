//! The trait of data sets.

use std::{fmt, sync::Arc};

use crate::{DataError, Normalization};

/// The class of an image, counted from 0.
pub type Label = u16;

/// What a [`Dataset`] contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatasetInfo<'a> {
    /// Name for messages and reports.
    pub name: &'a str,
    /// Channels, height, width of every image.
    pub shape: [usize; 3],
    /// Number of classes if every image has a label, which is below it; `None` if no image has one.
    pub classes: Option<usize>,
    /// Number of images.
    pub len: usize,
}

/// Images of one shape, labelled or not, that can be read one at a time and in any order.
///
/// [`ImageSet`](crate::ImageSet) keeps them in memory, [`ImageFolder`](crate::ImageFolder) reads them
/// from disk on demand, [`Subset`](crate::Subset) selects from another data set. Training, evaluation and
/// searches accept any of them, or your own.
///
/// The same index must give the same image and label at every call, from any thread. The function
/// `check_dataset`, available with the feature `testing`, verifies this.
///
/// # Examples
///
/// A file of raw 32 x 32 RGB images that is read during training:
///
/// ```
/// use std::{fs, io::{Read, Seek, SeekFrom}};
///
/// use releq_data::{DataError, Dataset, DatasetInfo, Label};
///
/// struct RawFile {
///     path: &'static str,
///     labels: Vec<Label>,
/// }
///
/// impl Dataset for RawFile {
///     fn info(&self) -> DatasetInfo<'_> {
///         let (shape, len) = ([3, 32, 32], self.labels.len());
///         DatasetInfo { name: self.path, shape, classes: Some(10), len }
///     }
///     fn label(&self, index: usize) -> Option<Label> {
///         self.labels.get(index).copied()
///     }
///     fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
///         let mut read = || {
///             let mut file = fs::File::open(self.path)?;
///             file.seek(SeekFrom::Start((index * pixels.len()) as u64))?;
///             file.read_exact(pixels)
///         };
///         read().map_err(|error| DataError::other(self.path, error))
///     }
/// }
///
/// let missing = RawFile { path: "no/such/file", labels: vec![7] };
/// let error = missing.read_image(0, &mut [0; 3 * 32 * 32]).unwrap_err();
/// assert_eq!(error.to_string(), "cannot read images of no/such/file");
/// ```
pub trait Dataset: Send + Sync {
    /// Name, shape, number of classes and number of images.
    fn info(&self) -> DatasetInfo<'_>;

    /// Class of image `index`, which is below [`len`](Self::len); `None` if
    /// [`classes`](DatasetInfo::classes) is `None`.
    fn label(&self, index: usize) -> Option<Label> {
        let _ = index;
        None
    }

    /// Writes the bytes of image `index`, which is below [`len`](Self::len), to `pixels`.
    ///
    /// # Shapes
    /// - `pixels`: `[channels, height, width]`
    ///
    /// # Errors
    /// When the image cannot be read; [`DataError::other`] wraps an error of any type.
    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError>;

    /// Gathers images as normalized floats, replacing the contents of `images` and `labels`.
    ///
    /// Override it if many images can be read faster together than one by one.
    ///
    /// # Shapes
    /// - `images`: `[indices.len(), channels, height, width]`
    /// - `labels`: `[indices.len()]`, or `[0]` if images have no labels
    ///
    /// # Errors
    /// When an image cannot be read or lacks the label that [`info`](Self::info) promises, or `normalization` is
    /// invalid or has another number of channels.
    ///
    /// # Panics
    /// When an index is not below [`len`](Self::len) or a dimension is zero.
    fn gather(
        &self,
        indices: &[usize],
        normalization: &Normalization,
        images: &mut Vec<f32>,
        labels: &mut Vec<Label>,
    ) -> Result<(), DataError> {
        let shape = self.shape();
        let mut pixels = vec![0; shape.iter().product()];
        let mut normalize = normalization.start(self.name(), shape, indices.len(), images)?;
        for &index in indices {
            self.read_image(index, &mut pixels)?;
            normalize.push(&pixels);
        }
        labels.clear();
        if self.info().classes.is_some() {
            for &index in indices {
                let missing = || DataError::MissingLabel { name: self.name().to_owned(), index };
                labels.push(self.label(index).ok_or_else(missing)?);
            }
        }
        Ok(())
    }

    /// Name for messages and reports.
    fn name(&self) -> &str {
        self.info().name
    }

    /// Channels, height, width of every image.
    fn shape(&self) -> [usize; 3] {
        self.info().shape
    }

    /// Number of images.
    fn len(&self) -> usize {
        self.info().len
    }

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for dyn Dataset + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info().fmt(f)
    }
}

/// Implements [`Dataset`] for a pointer to one.
macro_rules! forward_dataset {
    ($($pointer:ty),*) => {$(
        impl<D: Dataset + ?Sized> Dataset for $pointer {
            fn info(&self) -> DatasetInfo<'_> {
                (**self).info()
            }

            fn label(&self, index: usize) -> Option<Label> {
                (**self).label(index)
            }

            fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
                (**self).read_image(index, pixels)
            }

            fn gather(
                &self,
                indices: &[usize],
                normalization: &Normalization,
                images: &mut Vec<f32>,
                labels: &mut Vec<Label>,
            ) -> Result<(), DataError> {
                (**self).gather(indices, normalization, images, labels)
            }
        }
    )*};
}

forward_dataset!(&D, Box<D>, Arc<D>);

/// Bytes of one image.
///
/// # Errors
/// When a dimension is zero or the product overflows.
pub(crate) fn image_bytes(name: &str, shape: [usize; 3]) -> Result<usize, DataError> {
    let bytes = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let invalid = || DataError::InvalidShape { name: name.to_owned(), shape };
    bytes.filter(|&bytes| bytes > 0).ok_or_else(invalid)
}

/// Memory for the pixels of all images.
///
/// # Errors
/// When there is not as much.
pub(crate) fn zeros(name: &str, bytes: usize) -> Result<Vec<u8>, DataError> {
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(bytes).map_err(|error| DataError::other(name, error))?;
    pixels.resize(bytes, 0);
    Ok(pixels)
}

/// Images to train on, images to test on, and their source.
///
/// The readers of this crate return sets in memory, `Splits<ImageSet>`. [`into_dyn`](Self::into_dyn)
/// erases the type of the sets, as an experiment needs it.
///
/// # Examples
///
/// ```
/// use releq_data::{Dataset, Splits, Subset, digits};
///
/// let config = digits::DigitsConfig { train: 200, test: 50, ..Default::default() };
/// let data: Splits = digits::generate(&config)?;
/// let data = data.into_dyn();
/// // Views of the same images; nothing is copied.
/// let (train, validation) = Subset::all(data.train).split(40, 7)?;
/// assert_eq!((train.len(), validation.len()), (160, 40));
/// # Ok::<(), releq_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Splits<D = crate::ImageSet> {
    /// Images to train on. Validation images are split off from these.
    pub train: D,
    /// Images to test on, for final results only.
    pub test: D,
    /// What the data is and where it comes from, to be shown beside every result.
    pub source: String,
}

impl<D: Dataset + 'static> Splits<D> {
    /// The same sets, shared and with their type erased.
    #[must_use]
    pub fn into_dyn(self) -> Splits<Arc<dyn Dataset>> {
        let Self { train, test, source } = self;
        Splits { train: Arc::new(train), test: Arc::new(test), source }
    }
}
