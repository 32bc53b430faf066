//! Images in memory.

use std::{borrow::Cow, fmt};

use releq_core::parallel;

use crate::{
    DataError, Dataset, DatasetInfo, Label, Normalization,
    dataset::{image_bytes, zeros},
    subset::{split, stratified},
};

/// Images of one shape in memory, all of them labelled or none; never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageSet {
    name: String,
    shape: [usize; 3],
    /// 0 without labels.
    classes: usize,
    pixels: Vec<u8>,
    /// Empty without labels.
    labels: Vec<Label>,
}

impl ImageSet {
    /// Labelled images from their bytes.
    ///
    /// # Shapes
    /// - `shape`: channels, height, width
    /// - `pixels`: `[labels.len(), channels, height, width]`, the last dimension fastest
    ///
    /// # Errors
    /// When a dimension is zero, there are no images, the number of pixels does not match shape and labels,
    /// `classes` is not from 1 to 65,536, or a label is not below it.
    pub fn new(
        name: impl Into<String>,
        shape: [usize; 3],
        classes: usize,
        pixels: Vec<u8>,
        labels: Vec<Label>,
    ) -> Result<Self, DataError> {
        let name = name.into();
        let size = image_bytes(&name, shape)?;
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

    /// Images without labels from their bytes.
    ///
    /// # Shapes
    /// - `shape`: channels, height, width
    /// - `pixels`: `[images, channels, height, width]`, the last dimension fastest
    ///
    /// # Errors
    /// When a dimension is zero, there are no images, or the pixels do not make whole images.
    pub fn unlabelled(
        name: impl Into<String>,
        shape: [usize; 3],
        pixels: Vec<u8>,
    ) -> Result<Self, DataError> {
        let name = name.into();
        let size = image_bytes(&name, shape)?;
        if pixels.is_empty() {
            return Err(DataError::Empty { name });
        }
        if !pixels.len().is_multiple_of(size) {
            let (labels, found) = (pixels.len() / size, pixels.len());
            return Err(DataError::PixelCount {
                name,
                labels,
                shape,
                expected: labels * size,
                found,
            });
        }
        Ok(Self { name, shape, classes: 0, pixels, labels: Vec::new() })
    }

    /// Name for messages and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Number of classes; labels are smaller. 0 for images without labels.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.image_size()
    }

    /// Always false: [`new`](Self::new) refuses an empty set.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Class of image `index`.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len), or the images have no labels.
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

    /// Splits off `holdout` random images with the classes in proportion: (rest, held out). Images without labels count
    /// as one class.
    ///
    /// The same seed gives the same split.
    ///
    /// # Errors
    /// When nothing would be held out or nothing would be left.
    pub fn split(self, holdout: usize, seed: u64) -> Result<(ImageSet, ImageSet), DataError> {
        let (labels, classes) = self.groups();
        let (rest, held_out) = split(&self.name, &labels, classes, holdout, seed)?;
        Ok((self.subset(&rest), self.subset(&held_out)))
    }

    /// A random subset of `n` images with the classes in proportion, in the order of this set.
    ///
    /// The same seed gives the same subset. `n` is clamped to the range from 1 to [`len`](Self::len).
    #[must_use]
    pub fn take(&self, n: usize, seed: u64) -> ImageSet {
        let (labels, classes) = self.groups();
        self.subset(&stratified(&labels, classes, n.clamp(1, self.len()), seed))
    }

    /// Labels and number of classes; one class for images without.
    fn groups(&self) -> (Cow<'_, [Label]>, usize) {
        match self.classes {
            0 => (vec![0; self.len()].into(), 1),
            classes => (self.labels.as_slice().into(), classes),
        }
    }

    /// Reads all images of `data` into memory, on several threads.
    ///
    /// # Errors
    /// When an image cannot be read or lacks its label, or the data is not valid for [`new`](Self::new).
    pub fn read(data: &dyn Dataset) -> Result<Self, DataError> {
        let DatasetInfo { name, shape, classes, len } = data.info();
        let label = |index| {
            let missing = || DataError::MissingLabel { name: name.to_owned(), index };
            data.label(index).ok_or_else(missing)
        };
        let size = image_bytes(name, shape)?;
        let mut pixels = zeros(name, size.saturating_mul(len))?;
        let labelled = if classes.is_some() { len } else { 0 };
        let labels = (0..labelled).map(label).collect::<Result<_, _>>()?;
        let images = pixels.chunks_exact_mut(size).enumerate();
        parallel::try_for_each(images, parallel::threads(0), |(index, image)| {
            data.read_image(index, image)
        })?;
        match classes {
            Some(classes) => Self::new(name, shape, classes, pixels, labels),
            None => Self::unlabelled(name, shape, pixels),
        }
    }

    /// The same images among more classes; those without labels stay so.
    pub(crate) fn with_classes(self, classes: usize) -> Result<Self, DataError> {
        match self.classes {
            0 => Ok(self),
            _ => Self::new(self.name, self.shape, classes, self.pixels, self.labels),
        }
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

    /// Labels of some images; none if there are none.
    fn labels_of<'a>(&'a self, indices: &'a [usize]) -> impl Iterator<Item = Label> + 'a {
        indices.iter().filter_map(|&index| self.labels.get(index).copied())
    }

    fn subset(&self, indices: &[usize]) -> ImageSet {
        let mut pixels = Vec::with_capacity(indices.len() * self.image_size());
        indices.iter().for_each(|&index| pixels.extend_from_slice(self.image(index)));
        let labels = self.labels_of(indices).collect();
        Self { name: self.name.clone(), shape: self.shape, classes: self.classes, pixels, labels }
    }
}

impl Dataset for ImageSet {
    fn info(&self) -> DatasetInfo<'_> {
        let &Self { ref name, shape, classes, .. } = self;
        let classes = (classes > 0).then_some(classes);
        DatasetInfo { name, shape, classes, len: self.len() }
    }

    fn label(&self, index: usize) -> Option<Label> {
        self.labels.get(index).copied()
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
        let mut normalize = normalization.start(&self.name, self.shape, indices.len(), images)?;
        indices.iter().for_each(|&index| normalize.push(self.image(index)));
        labels.clear();
        labels.extend(self.labels_of(indices));
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_images_than_memory_are_an_error() {
        struct Endless(usize);
        impl Dataset for Endless {
            fn info(&self) -> DatasetInfo<'_> {
                let shape = [3, 1 << 10, 1 << 10];
                DatasetInfo { name: "endless", shape, classes: Some(1), len: self.0 }
            }
            fn label(&self, _: usize) -> Option<Label> {
                Some(0)
            }
            fn read_image(&self, _: usize, _: &mut [u8]) -> Result<(), DataError> {
                Ok(())
            }
        }
        for len in [usize::MAX, usize::MAX >> 23] {
            let error = ImageSet::read(&Endless(len)).unwrap_err();
            assert_eq!(error.to_string(), "cannot read images of endless");
        }
    }
}
