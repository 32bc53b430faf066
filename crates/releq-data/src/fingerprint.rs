//! Tells data sets apart by their contents.

use md5::{Digest, Md5};
use releq_core::parallel;

use crate::{DataError, Dataset, DatasetInfo, dataset::image_bytes, files::download::hex};

/// Images whose pixels are part of a fingerprint.
const SAMPLE: usize = 256;

/// A digest of what `data` contains, in hexadecimal digits: shape, number of classes, all labels, and the
/// pixels of up to 256 images spread evenly over the set, the first and the last among them.
///
/// It does not depend on the name, on where the data is or on how it is read. Two sets with the same
/// fingerprint may still differ in images that are not part of the sample. Whoever resumes work on a data set
/// can check with it that the data is still the same.
///
/// # Errors
/// When an image cannot be read, or lacks the label that [`Dataset::info`] promises.
///
/// # Examples
///
/// ```
/// use releq_data::{digits::{self, DigitsConfig}, fingerprint};
///
/// let drawn = |seed| digits::generate(&DigitsConfig { train: 50, test: 10, seed, ..Default::default() });
/// assert_eq!(fingerprint(&drawn(1)?.train)?, fingerprint(&drawn(1)?.train)?);
/// assert_ne!(fingerprint(&drawn(1)?.train)?, fingerprint(&drawn(2)?.train)?);
/// # Ok::<(), releq_data::DataError>(())
/// ```
pub fn fingerprint(data: &dyn Dataset) -> Result<String, DataError> {
    let DatasetInfo { name, shape, classes, len } = data.info();
    let size = image_bytes(name, shape)?;
    let mut digest = Md5::new();
    digest.update(format!("{shape:?} {classes:?} {len}\n"));
    if classes.is_some() {
        for index in 0..len {
            let missing = || DataError::MissingLabel { name: name.to_owned(), index };
            digest.update(data.label(index).ok_or_else(missing)?.to_le_bytes());
        }
    }
    // In order, whichever thread reads which image.
    let images = parallel::try_map(sample(len), parallel::threads(0), |index| {
        let mut pixels = vec![0; size];
        data.read_image(index, &mut pixels)?;
        Ok::<_, DataError>(Md5::digest(&pixels))
    })?;
    images.iter().for_each(|image| digest.update(image.as_slice()));
    Ok(hex(digest.finalize().as_slice()))
}

/// Up to [`SAMPLE`] indices below `len`, evenly spread.
fn sample(len: usize) -> impl Iterator<Item = usize> + Send {
    let count = len.min(SAMPLE);
    let place = move |i: usize| match count {
        0 | 1 => 0,
        _ => (i as u128 * (len - 1) as u128 / (count - 1) as u128) as usize,
    };
    (0..count).map(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageSet, Label, Subset};

    fn set(len: usize, change: impl Fn(&mut [u8], &mut [Label])) -> ImageSet {
        let mut pixels: Vec<u8> = (0..len * 12).map(|index| (index * 7 % 251) as u8).collect();
        let mut labels: Vec<Label> = (0..len).map(|index| (index % 5) as Label).collect();
        change(&mut pixels, &mut labels);
        ImageSet::new("set", [3, 2, 2], 6, pixels, labels).unwrap()
    }

    #[test]
    fn the_sample_is_spread_over_the_set() {
        for len in [0, 1, 2, 255, 256, 257, 60_000, usize::MAX] {
            let sample: Vec<usize> = sample(len).collect();
            assert_eq!(sample.len(), len.min(SAMPLE));
            assert!(sample.is_sorted_by(|a, b| a < b), "{len}");
            assert_eq!(sample.first().copied(), (len > 0).then_some(0));
            assert_eq!(sample.last().copied(), len.checked_sub(1));
        }
    }

    #[test]
    fn every_label_and_every_sampled_pixel_counts() {
        for len in [1, 7, 256, 1000] {
            let same = fingerprint(&set(len, |_, _| {})).unwrap();
            assert_eq!(same.len(), 32);
            assert_eq!(fingerprint(&set(len, |_, _| {})).unwrap(), same);
            for index in [0, len / 2, len - 1] {
                let other = set(len, |_, labels| labels[index] = 5);
                assert_ne!(fingerprint(&other).unwrap(), same, "label {index} of {len}");
            }
            for index in sample(len).step_by(50) {
                let other = set(len, |pixels, _| pixels[index * 12 + 11] ^= 1);
                assert_ne!(fingerprint(&other).unwrap(), same, "image {index} of {len}");
            }
        }
        let labels = set(10, |_, labels| labels.swap(3, 4));
        assert_ne!(fingerprint(&labels).unwrap(), fingerprint(&set(10, |_, _| {})).unwrap());
    }

    #[test]
    fn only_the_contents_count() {
        let whole = set(40, |_, _| {});
        let name = "other name";
        let pixels = whole.pixels().to_vec();
        let copy =
            ImageSet::new(name, [3, 2, 2], 6, pixels.clone(), whole.labels().to_vec()).unwrap();
        assert_eq!(fingerprint(&copy).unwrap(), fingerprint(&whole).unwrap());
        assert_eq!(fingerprint(&Subset::all(&whole)).unwrap(), fingerprint(&whole).unwrap());
        let turned = ImageSet::new(name, [3, 4, 1], 6, pixels.clone(), whole.labels().to_vec());
        assert_ne!(fingerprint(&turned.unwrap()).unwrap(), fingerprint(&whole).unwrap());
        let classes = ImageSet::new(name, [3, 2, 2], 7, pixels, whole.labels().to_vec());
        assert_ne!(fingerprint(&classes.unwrap()).unwrap(), fingerprint(&whole).unwrap());
        let part = Subset::all(&whole).take(39, 0).unwrap();
        assert_ne!(fingerprint(&part).unwrap(), fingerprint(&whole).unwrap());
    }
}
