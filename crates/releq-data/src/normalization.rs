//! How bytes become the numbers that a network sees.

use std::sync::{Mutex, PoisonError};

use releq_core::parallel;
use serde::{Deserialize, Serialize};

use crate::{DataError, Dataset, DatasetInfo, dataset::image_bytes};

/// Images that one thread counts before it adds to the total.
const BLOCK: usize = 64;

/// Mean and standard deviation of each channel, on the scale where a pixel is from 0 to 1.
///
/// Values that would not give finite images are refused: by [`new`](Self::new), by deserialization, and for
/// values set otherwise by [`Dataset::gather`].
///
/// # Examples
///
/// ```
/// use releq_data::Normalization;
///
/// let error = Normalization::new(vec![0.5], vec![0.0]).unwrap_err();
/// assert_eq!(error.to_string(), "`normalization`: `std` is 0 for channel 0, expected a finite number above 0");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Values")]
pub struct Normalization {
    /// Subtracted from `pixel / 255`, per channel.
    pub mean: Vec<f32>,
    /// Divides the difference, per channel.
    pub std: Vec<f32>,
}

/// A [`Normalization`] that has not been checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Normalization")]
struct Values {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl TryFrom<Values> for Normalization {
    type Error = DataError;

    fn try_from(Values { mean, std }: Values) -> Result<Self, DataError> {
        Self::new(mean, std)
    }
}

impl Normalization {
    /// A normalization by these values, one of each for every channel.
    ///
    /// # Errors
    /// When there is no channel, the two differ in length, a mean is not finite, a deviation is not finite and
    /// above 0, or the two are so far apart that normalized pixels overflow.
    pub fn new(mean: Vec<f32>, std: Vec<f32>) -> Result<Self, DataError> {
        let normalization = Self { mean, std };
        normalization.check()?;
        Ok(normalization)
    }

    /// Checks what [`new`](Self::new) checks, for values that were set otherwise.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn check(&self) -> Result<(), DataError> {
        let wrong = |field, found, expected| {
            Err(DataError::Parameter { of: "`normalization`", field, found, expected })
        };
        let Self { mean, std } = self;
        if mean.is_empty() {
            return wrong("mean", "empty".to_owned(), "one number per channel");
        }
        if std.len() != mean.len() {
            let found = format!("a list of {} for {} means", std.len(), mean.len());
            return wrong("std", found, "as many numbers as `mean` has");
        }
        for (channel, (mean, std)) in mean.iter().zip(std).enumerate() {
            let found = |value: &f32| format!("{value} for channel {channel}");
            if !mean.is_finite() {
                return wrong("mean", found(mean), "a finite number");
            }
            if !(std.is_finite() && *std > 0.0) {
                return wrong("std", found(std), "a finite number above 0");
            }
            if [0, 255].iter().any(|&pixel| !normalized(pixel, *mean, *std).is_finite()) {
                let expected = "a number that does not make normalized pixels overflow";
                return wrong("std", found(std), expected);
            }
        }
        Ok(())
    }

    /// The normalization that gives each channel of `data` mean 0 and standard deviation 1.
    ///
    /// A channel with a single value gets a deviation of 1, so that nothing is divided by zero. Measure it on
    /// the training images and use it for all. Every image is read once, on several threads, and none is kept.
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

    /// Clears `images` and returns a writer for `count` normalized images of `shape`, which belong to the data
    /// set `name`.
    ///
    /// # Errors
    /// When the values are invalid or not one per channel.
    pub(crate) fn start<'a>(
        &self,
        name: &str,
        [channels, height, width]: [usize; 3],
        count: usize,
        images: &'a mut Vec<f32>,
    ) -> Result<Normalizing<'a>, DataError> {
        self.check()?;
        if self.mean.len() != channels {
            let (name, found) = (name.to_owned(), self.mean.len());
            return Err(DataError::NormalizationChannels { name, channels, found });
        }
        let tables = (self.mean.iter().zip(&self.std))
            .map(|(&mean, &std)| std::array::from_fn(|pixel| normalized(pixel as u8, mean, std)))
            .collect();
        images.clear();
        images.reserve(count * channels * height * width);
        Ok(Normalizing { tables, plane_size: height * width, images })
    }
}

fn normalized(pixel: u8, mean: f32, std: f32) -> f32 {
    (f32::from(pixel) / 255.0 - mean) / std
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
    fn values_that_give_no_finite_images_are_refused_wherever_they_come_in() {
        let check = |mean: &[f32], std: &[f32], expected: &str| {
            let message = |error: DataError| {
                let message = error.to_string();
                assert!(message.contains(expected), "`{message}` lacks `{expected}`");
            };
            message(Normalization::new(mean.to_vec(), std.to_vec()).unwrap_err());
            let unchecked = Normalization { mean: mean.to_vec(), std: std.to_vec() };
            message(unchecked.check().unwrap_err());
            let set = ImageSet::new("set", [2, 1, 1], 1, vec![1, 2], vec![0]).unwrap();
            let gathered = set.gather(&[0], &unchecked, &mut Vec::new(), &mut Vec::new());
            message(gathered.unwrap_err());
        };
        let good = [0.5, 0.5];
        for value in [0.0, -0.0, -0.5, f32::NAN, f32::INFINITY] {
            let found = format!("`std` is {value} for channel 1, expected a finite number above 0");
            check(&good, &[0.5, value], &found);
        }
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let found = format!("`mean` is {value} for channel 0, expected a finite number");
            check(&[value, 0.5], &good, &found);
        }
        check(&good, &[0.5, 1e-40], "`std` is ");
        check(&[1e38, 0.5], &[1e-5, 0.5], "overflow");
        check(&good, &[0.5], "`std` is a list of 1 for 2 means");
        check(&[], &[], "`mean` is empty");
        let one = Normalization::new(vec![0.5], vec![0.5]).unwrap();
        let set = ImageSet::new("set", [2, 1, 1], 1, vec![1, 2], vec![0]).unwrap();
        let error = set.gather(&[0], &one, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "set: images have 2 channels, but the normalization has 1");
    }

    #[test]
    fn deserialized_values_are_checked() {
        let read = |text: &str| serde_json::from_str::<Normalization>(text);
        let good = Normalization { mean: vec![0.5], std: vec![0.25] };
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(read(&text).unwrap(), good);
        for (text, expected) in [
            (r#"{"mean": [0.5], "std": [0.0]}"#, "`std` is 0 for channel 0"),
            (r#"{"mean": [0.5], "std": [-1]}"#, "`std` is -1 for channel 0"),
            (r#"{"mean": [0.5, 0.5], "std": [1]}"#, "`std` is a list of 1"),
            (r#"{"mean": [0.5], "std": [1], "var": [1]}"#, "unknown field `var`"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
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
