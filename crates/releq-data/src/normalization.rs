//! How bytes become the numbers that a network sees.

use std::sync::{Mutex, PoisonError};

use releq_core::parallel;
use serde::{Deserialize, Serialize};

use crate::{DataError, Dataset, DatasetInfo, dataset::image_bytes};

/// Images that one thread counts before it adds to the total.
const BLOCK: usize = 64;

/// Mean and standard deviation of each channel, on the scale where a pixel is from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted from `pixel / 255`, per channel.
    pub mean: Vec<f32>,
    /// Divides the difference, per channel.
    pub std: Vec<f32>,
}

impl Normalization {
    /// The normalization that gives each channel of `data` mean 0 and standard deviation 1.
    ///
    /// A channel of one single value gets a deviation of 1, so that nothing is divided by zero.
    /// Measure it on the training images and use it for all. Every image is read once, on all
    /// processors, and none is kept.
    ///
    /// # Errors
    /// When an image cannot be read, there are no images, or a dimension is zero.
    pub fn measured(data: &dyn Dataset) -> Result<Self, DataError> {
        let DatasetInfo { name, shape, len, .. } = data.info();
        let size = image_bytes(name, shape)?;
        if len == 0 {
            return Err(DataError::Empty { name: name.to_owned() });
        }
        let [channels, height, width] = shape;
        // Counts are integers, so the sums do not depend on which thread adds what.
        let total = Mutex::new(vec![[0_u64; 256]; channels]);
        parallel::try_for_each((0..len).step_by(BLOCK), parallel::threads(0), |first| {
            let mut pixels = vec![0; size];
            let mut histograms = vec![[0_u64; 256]; channels];
            for index in first..len.min(first + BLOCK) {
                data.read_image(index, &mut pixels)?;
                let planes = pixels.chunks_exact(height * width);
                for (plane, histogram) in planes.zip(&mut histograms) {
                    plane.iter().for_each(|&pixel| histogram[usize::from(pixel)] += 1);
                }
            }
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            let counts = histograms.as_flattened().iter();
            total.as_flattened_mut().iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            Ok::<(), DataError>(())
        })?;
        let histograms = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        let count = (len * height * width) as f64;
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
        Ok(Self { mean, std })
    }

    /// Clears `images` and returns a writer for `count` normalized images of `shape`.
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

/// Writes a batch of normalized images.
pub(crate) struct Normalizing<'a> {
    /// The normalized value of each byte, per channel.
    tables: Vec<[f32; 256]>,
    plane_size: usize,
    images: &'a mut Vec<f32>,
}

impl Normalizing<'_> {
    /// Appends one image or several.
    pub(crate) fn push(&mut self, pixels: &[u8]) {
        let planes = pixels.chunks_exact(self.plane_size);
        for (plane, table) in planes.zip(self.tables.iter().cycle()) {
            self.images.extend(plane.iter().map(|&pixel| table[usize::from(pixel)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageSet, Label};

    #[test]
    fn statistics_are_exact_for_any_number_of_images() {
        // Channel 0 is half 0, half 255; channel 1 is 51 everywhere.
        for len in [2, 2 * BLOCK, 10 * BLOCK + 2] {
            let pixels = (0..len).flat_map(|index| [255 * (index % 2) as u8, 51]).collect();
            let set = ImageSet::new("halves", [2, 1, 1], 1, pixels, vec![0; len]).unwrap();
            let found = Normalization::measured(&set).unwrap();
            assert_eq!(found, Normalization { mean: vec![0.5, 0.2], std: vec![0.5, 1.0] });
        }
    }

    #[test]
    fn the_first_image_that_cannot_be_read_is_named() {
        struct Holes(usize, [usize; 3]);
        impl Dataset for Holes {
            fn info(&self) -> DatasetInfo<'_> {
                let &Self(len, shape) = self;
                DatasetInfo { name: "holes", shape, classes: Some(1), len }
            }
            fn label(&self, _: usize) -> Option<Label> {
                Some(0)
            }
            fn read_image(&self, index: usize, _: &mut [u8]) -> Result<(), DataError> {
                let hole = index >= 3 * BLOCK + 5;
                let error = || DataError::other(format!("image {index}"), "a hole");
                if hole { Err(error()) } else { Ok(()) }
            }
        }
        let message = |holes: Holes| Normalization::measured(&holes).unwrap_err().to_string();
        let expected = format!("cannot read images of image {}", 3 * BLOCK + 5);
        assert_eq!(message(Holes(1000, [1, 2, 2])), expected);
        assert_eq!(message(Holes(0, [1, 2, 2])), "holes: no images; a data set needs at least one");
        assert!(message(Holes(9, [1, 0, 2])).contains("shape [1, 0, 2]"));
    }
}
