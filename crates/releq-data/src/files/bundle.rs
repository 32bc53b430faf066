//! Several image sets in one stretch of bytes, for machines that do not have the files.
//!
//! Laid out like the cache of decoded images: 16 bytes that say what it is, the length of the header in 8, the header as
//! JSON, then for each set its pixels and its labels, little-endian. Whoever stores it knows its hash, so it has no checksum.

use std::io::{Error, ErrorKind};

use serde::{Deserialize, Serialize};

use crate::{DataError, Dataset, DatasetInfo, ImageSet, Label, dataset::image_bytes};

/// Begins every bundle; the number changes with the layout.
const MAGIC: &[u8; 16] = b"releq bundle 01\n";
/// Most bytes of pixels and labels, as in the cache.
const LARGEST: usize = 1 << 31;
/// Most bytes of a header.
const LARGEST_HEADER: u64 = 1 << 16;

/// One set of a bundle.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    name: String,
    shape: [usize; 3],
    /// Without labels, none.
    classes: Option<usize>,
    images: usize,
}

impl Part {
    /// Bytes of pixels and of labels.
    fn bytes(&self) -> Option<(usize, usize)> {
        let pixels = image_bytes(&self.name, self.shape).ok()?.checked_mul(self.images)?;
        let labels = self.classes.map_or(Some(0), |_| self.images.checked_mul(size_of::<Label>()));
        Some((pixels, labels?))
    }
}

/// All images and labels of some data sets, as bytes that [`from_bytes`] reads. Every image is read.
///
/// # Errors
/// When an image cannot be read or lacks its label, or all together take more than 2 GiB.
///
/// # Examples
///
/// ```
/// use releq_data::{Dataset, bundle, digits::{self, DigitsConfig}};
///
/// let drawn = digits::generate(&DigitsConfig { train: 50, test: 10, ..DigitsConfig::default() })?;
/// let sets = bundle::from_bytes(&bundle::to_bytes(&[&drawn.train, &drawn.test])?)?;
/// assert_eq!((&sets[0], &sets[1]), (&drawn.train, &drawn.test));
/// # Ok::<(), releq_data::DataError>(())
/// ```
pub fn to_bytes(sets: &[&dyn Dataset]) -> Result<Vec<u8>, DataError> {
    let parts: Vec<Part> = sets
        .iter()
        .map(|set| {
            let DatasetInfo { name, shape, classes, len } = set.info();
            Part { name: name.to_owned(), shape, classes, images: len }
        })
        .collect();
    let all: Option<usize> = parts.iter().try_fold(0_usize, |sum, part| {
        part.bytes().and_then(|(p, l)| sum.checked_add(p)?.checked_add(l))
    });
    if all.is_none_or(|all| all > LARGEST) {
        let name = parts.first().map_or("", |part| &part.name);
        let reason = format!("they take more than {} GiB, too much to be sent", LARGEST >> 30);
        return Err(DataError::other(name, Error::other(reason)));
    }
    let header = serde_json::to_vec(&parts).map_err(|error| DataError::other("a bundle", error))?;
    let mut bytes = [MAGIC, &(header.len() as u64).to_le_bytes()[..], &header].concat();
    for &set in sets {
        let set = ImageSet::read(set)?;
        bytes.extend_from_slice(set.pixels());
        bytes.extend(set.labels().iter().flat_map(|label| label.to_le_bytes()));
    }
    Ok(bytes)
}

/// The sets of a bundle.
///
/// # Errors
/// When `bytes` are not exactly one bundle, or the sets are not valid for [`ImageSet::new`].
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<ImageSet>, DataError> {
    let damaged =
        |what: &str| DataError::other("a bundle", Error::new(ErrorKind::InvalidData, what));
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("not a bundle of this version"))?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(|| damaged("it is cut short"))?;
    let length = u64::from_le_bytes(*length);
    if length > LARGEST_HEADER {
        return Err(damaged("its header is too long"));
    }
    let (header, mut rest) =
        rest.split_at_checked(length as usize).ok_or_else(|| damaged("it is cut short"))?;
    let parts: Vec<Part> =
        serde_json::from_slice(header).map_err(|error| DataError::other("a bundle", error))?;
    let mut sets = Vec::with_capacity(parts.len());
    for part in parts {
        // Nothing is copied that is not there.
        let (pixels, labels) = part.bytes().ok_or_else(|| damaged("its images are too large"))?;
        let (pixels, after) =
            rest.split_at_checked(pixels).ok_or_else(|| damaged("it is cut short"))?;
        let (labels, after) =
            after.split_at_checked(labels).ok_or_else(|| damaged("it is cut short"))?;
        rest = after;
        let (labels, _) = labels.as_chunks();
        let labels = labels.iter().map(|label| Label::from_le_bytes(*label)).collect();
        let (name, pixels) = (part.name, pixels.to_vec());
        sets.push(match part.classes {
            Some(classes) => ImageSet::new(name, part.shape, classes, pixels, labels)?,
            None => ImageSet::unlabelled(name, part.shape, pixels)?,
        });
    }
    if rest.is_empty() { Ok(sets) } else { Err(damaged("it goes on where it should end")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets() -> [ImageSet; 2] {
        let labelled = ImageSet::new("one", [1, 2, 2], 300, (0..12).collect(), vec![299, 0, 7]);
        let unlabelled = ImageSet::unlabelled("two", [3, 1, 1], (0..6).collect());
        [labelled.unwrap(), unlabelled.unwrap()]
    }

    #[test]
    fn sets_with_and_without_labels_are_read_back() {
        let [one, two] = sets();
        let bytes = to_bytes(&[&one, &two]).unwrap();
        assert_eq!(from_bytes(&bytes).unwrap(), [one, two]);
    }

    #[test]
    fn what_is_cut_or_goes_on_or_asks_for_much_is_refused() {
        let [one, two] = sets();
        let bytes = to_bytes(&[&one, &two]).unwrap();
        for length in 0..bytes.len() {
            assert!(from_bytes(&bytes[..length]).is_err(), "cut to {length}");
        }
        assert!(from_bytes(&[&bytes[..], b"x"].concat()).is_err());
        let with_header = |length: u64, header: &str| {
            from_bytes(&[MAGIC, &length.to_le_bytes()[..], header.as_bytes()].concat())
        };
        assert!(with_header(u64::MAX, "[]").is_err());
        for (images, classes) in [(usize::MAX, "10"), (1 << 40, "null"), (0, "10"), (0, "null")] {
            let header = format!(
                r#"[{{"name":"n","shape":[1,9,9],"classes":{classes},"images":{images}}}]"#
            );
            assert!(with_header(header.len() as u64, &header).is_err(), "{header}");
        }
    }
}
