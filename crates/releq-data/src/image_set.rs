//! Images in memory.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{DataError, Dataset, Label, parallel};

/// Labelled images of one shape, as bytes; never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageSet {
    name: String,
    shape: [usize; 3],
    classes: usize,
    pixels: Vec<u8>,
    labels: Vec<Label>,
}

impl ImageSet {
    /// Images from their bytes.
    ///
    /// # Shapes
    /// - `shape`: channels, height, width
    /// - `pixels`: `[labels.len(), channels, height, width]`, the last dimension fastest
    ///
    /// # Errors
    /// When a dimension is zero, there is no image, the pixels are not as many as the shape and the
    /// labels say, `classes` is not from 1 to 65,536, or a label names no class.
    pub fn new(
        name: impl Into<String>,
        shape: [usize; 3],
        classes: usize,
        pixels: Vec<u8>,
        labels: Vec<Label>,
    ) -> Result<Self, DataError> {
        let name = name.into();
        let size = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        let Some(size) = size.filter(|&size| size > 0) else {
            return Err(DataError::InvalidShape { name, shape });
        };
        if !(1..=usize::from(Label::MAX) + 1).contains(&classes) {
            return Err(DataError::InvalidClasses { name, found: classes });
        }
        let expected = size.saturating_mul(labels.len());
        if pixels.len() != expected {
            let (labels, found) = (labels.len(), pixels.len());
            return Err(DataError::PixelCount { name, labels, shape, expected, found });
        }
        if labels.is_empty() {
            return Err(DataError::Empty { name });
        }
        if let Some(index) = labels.iter().position(|&label| usize::from(label) >= classes) {
            return Err(DataError::LabelOutOfRange { name, index, found: labels[index], classes });
        }
        Ok(Self { name, shape, classes, pixels, labels })
    }

    /// Name for messages and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Number of classes; labels are smaller.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image, which [`new`](Self::new) rules out.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Class of image `index`.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len).
    pub fn label(&self, index: usize) -> Label {
        self.labels[index]
    }

    /// Bytes of image `index`.
    ///
    /// # Shapes
    /// - output: `[channels, height, width]`
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.image_size();
        &self.pixels[index * size..][..size]
    }

    /// Splits off `holdout` images, each class in its share: (rest, held out).
    ///
    /// The same seed gives the same split.
    ///
    /// # Errors
    /// When nothing would be held out or nothing would be left.
    pub fn split(self, holdout: usize, seed: u64) -> Result<(ImageSet, ImageSet), DataError> {
        let len = self.len();
        if holdout == 0 || holdout >= len {
            return Err(DataError::Holdout { name: self.name, holdout, len });
        }
        let held_out = self.stratified(holdout, seed);
        let mut rest = Vec::with_capacity(len - holdout);
        let mut held = held_out.iter().copied().peekable();
        for index in 0..len {
            if held.next_if_eq(&index).is_none() {
                rest.push(index);
            }
        }
        Ok((self.subset(&rest), self.subset(&held_out)))
    }

    /// A subset of `n` images, each class in its share and in the order of this set.
    ///
    /// The same seed gives the same subset. `n` is brought into the range from 1 to
    /// [`len`](Self::len).
    #[must_use]
    pub fn take(&self, n: usize, seed: u64) -> ImageSet {
        self.subset(&self.stratified(n.clamp(1, self.len()), seed))
    }

    /// All images of `data`, read into memory on all processors.
    ///
    /// # Errors
    /// When an image cannot be read, or [`new`](Self::new) refuses what `data` says about itself.
    pub fn read(data: &dyn Dataset) -> Result<Self, DataError> {
        let shape = data.shape();
        let size = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        let Some(size) = size.filter(|&size| size > 0) else {
            return Err(DataError::InvalidShape { name: data.name().to_owned(), shape });
        };
        let mut pixels = vec![0; size * data.len()];
        let failed: Mutex<Option<(usize, DataError)>> = Mutex::new(None);
        let images = pixels.chunks_exact_mut(size).enumerate();
        parallel::for_each(images, parallel::threads(0), |(index, image)| {
            if let Err(error) = data.read_image(index, image) {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                // The first image that fails, whichever thread comes to it first.
                if failed.as_ref().is_none_or(|&(other, _)| index < other) {
                    *failed = Some((index, error));
                }
            }
        });
        if let Some((_, error)) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let labels = (0..data.len()).map(|index| data.label(index)).collect();
        Self::new(data.name(), shape, data.classes(), pixels, labels)
    }

    pub(crate) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    pub(crate) fn labels(&self) -> &[Label] {
        &self.labels
    }

    fn image_size(&self) -> usize {
        self.shape.iter().product()
    }

    fn subset(&self, indices: &[usize]) -> ImageSet {
        let mut pixels = Vec::with_capacity(indices.len() * self.image_size());
        indices.iter().for_each(|&index| pixels.extend_from_slice(self.image(index)));
        let labels = indices.iter().map(|&index| self.labels[index]).collect();
        Self { name: self.name.clone(), shape: self.shape, classes: self.classes, pixels, labels }
    }

    fn stratified(&self, n: usize, seed: u64) -> Vec<usize> {
        stratified(&self.labels, self.classes, n, seed)
    }
}

impl Dataset for ImageSet {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn label(&self, index: usize) -> Label {
        self.labels[index]
    }

    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        pixels.copy_from_slice(self.image(index));
        Ok(())
    }

    fn gather(
        &self,
        indices: &[usize],
        normalization: &Normalization,
        images: &mut Vec<f32>,
        labels: &mut Vec<Label>,
    ) -> Result<(), DataError> {
        let mut normalize = normalization.start(self.shape, indices.len(), images);
        indices.iter().for_each(|&index| normalize.push(self.image(index)));
        labels.clear();
        labels.extend(indices.iter().map(|&index| self.labels[index]));
        Ok(())
    }
}

/// `n` of the indices of `labels` in ascending order, each class in proportion; what rounding down
/// leaves over goes to the largest remainders (the lower class first).
pub(crate) fn stratified(labels: &[Label], classes: usize, n: usize, seed: u64) -> Vec<usize> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[usize::from(label)].push(index);
    }
    // In u128, so that no count can overflow the product.
    let share = |class: &Vec<usize>| class.len() as u128 * n as u128;
    let len = labels.len() as u128;
    let mut quotas: Vec<usize> =
        members.iter().map(|class| (share(class) / len) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..classes).collect();
    by_remainder.sort_by_key(|&class| std::cmp::Reverse(share(&members[class]) % len));
    let left_over = n - quotas.iter().sum::<usize>();
    by_remainder.iter().take(left_over).for_each(|&class| quotas[class] += 1);

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut chosen = Vec::with_capacity(n);
    for (class, &quota) in members.iter_mut().zip(&quotas) {
        class.shuffle(&mut rng);
        chosen.extend_from_slice(&class[..quota]);
    }
    chosen.sort_unstable();
    chosen
}

impl fmt::Debug for ImageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageSet")
            .field("name", &self.name)
            .field("shape", &self.shape)
            .field("classes", &self.classes)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Mean and standard deviation of each channel, on the scale where a pixel is from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// Subtracted from `pixel / 255`, per channel.
    pub mean: Vec<f32>,
    /// Divides the difference, per channel.
    pub std: Vec<f32>,
}

impl Normalization {
    /// The normalization that gives each channel of `images` mean 0 and standard deviation 1.
    ///
    /// A channel of one single value gets a deviation of 1, so that nothing is divided by zero.
    /// Measure it on the training images and use it for all.
    pub fn measured(images: &ImageSet) -> Self {
        let [channels, height, width] = images.shape;
        let mut histograms = vec![[0_u64; 256]; channels];
        for (plane, pixels) in images.pixels.chunks_exact(height * width).enumerate() {
            let histogram = &mut histograms[plane % channels];
            pixels.iter().for_each(|&pixel| histogram[usize::from(pixel)] += 1);
        }
        let count = (images.len() * height * width) as f64;
        let moments = histograms.iter().map(|histogram| {
            let average = |value: &dyn Fn(f64) -> f64| {
                let sum: f64 = histogram
                    .iter()
                    .zip(0..=255_u8)
                    .map(|(&n, p)| n as f64 * value(f64::from(p)))
                    .sum();
                sum / count
            };
            let mean = average(&|pixel| pixel / 255.0);
            let variance = average(&|pixel| (pixel / 255.0 - mean).powi(2));
            let std = if variance > 0.0 { variance.sqrt() } else { 1.0 };
            (mean as f32, std as f32)
        });
        let (mean, std) = moments.unzip();
        Self { mean, std }
    }

    /// Empties `images` and begins to fill it with `count` normalized images of `shape`.
    ///
    /// # Panics
    /// When there is not one mean and one deviation per channel.
    pub(crate) fn start<'a>(
        &self,
        [channels, height, width]: [usize; 3],
        count: usize,
        images: &'a mut Vec<f32>,
    ) -> Normalizing<'a> {
        assert_eq!(self.mean.len(), channels, "one mean per channel");
        assert_eq!(self.std.len(), channels, "one deviation per channel");
        let tables = (self.mean.iter().zip(&self.std))
            .map(|(mean, std)| std::array::from_fn(|pixel| (pixel as f32 / 255.0 - mean) / std))
            .collect();
        images.clear();
        images.reserve(count * channels * height * width);
        Normalizing { tables, plane_size: height * width, images }
    }
}

/// A batch of normalized images in the making.
pub(crate) struct Normalizing<'a> {
    /// The normalized value of each byte, per channel.
    tables: Vec<[f32; 256]>,
    plane_size: usize,
    images: &'a mut Vec<f32>,
}

impl Normalizing<'_> {
    /// Adds an image, or several.
    pub(crate) fn push(&mut self, pixels: &[u8]) {
        let planes = pixels.chunks_exact(self.plane_size);
        for (plane, table) in planes.zip(self.tables.iter().cycle()) {
            self.images.extend(plane.iter().map(|&pixel| table[usize::from(pixel)]));
        }
    }
}

/// Images to train on, images to test on, and where they come from.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// Images to train on; a validation set is to be [split](ImageSet::split) off from these.
    pub train: ImageSet,
    /// Images to test on; these decide nothing.
    pub test: ImageSet,
    /// Which data this is and where it comes from, for people; to be shown beside every result.
    pub source: String,
}
