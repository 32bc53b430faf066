//! Reads SVHN, house numbers cropped to one digit, from its two `.mat` files.

use std::path::{Path, PathBuf};

use super::{
    exists,
    published::{Checksum, Published, RemoteFile},
};
use crate::{
    DataError, DataKind, ImageSet, Label, Splits,
    files::matlab::{self, ByteArray, Wanted},
};

const TRAIN: &str = "train_32x32.mat";
const TEST: &str = "test_32x32.mat";

/// Where SVHN is published (Netzer et al., 2011).
pub(crate) const PUBLISHED: Published = Published {
    mirrors: &["http://ufldl.stanford.edu/housenumbers/"],
    files: &[
        RemoteFile { name: TRAIN, md5: Checksum::File("e26dedcc434d2e4c54c9b2d4a06d8373") },
        RemoteFile { name: TEST, md5: Checksum::File("eb5a983be6a315427106f1b164d9cef3") },
    ],
};

const SIDE: usize = 32;
/// Most images of a file; the `extra` ones are 531,131.
const LARGEST: usize = 1 << 20;
/// So many images are read whatever their file is like. More must take a 32nd of their size in the file at
/// least: photographs do not compress to less, but zeros do.
const UNSUSPICIOUS: usize = 20_000;
const COMPRESSION: usize = 32;

/// The folder among `dir` and `dir/svhn` that contains both files.
pub(crate) fn folder_in(dir: &Path) -> Result<PathBuf, DataError> {
    let missing = |folder: &Path| -> Vec<String> {
        let names = [TRAIN, TEST].into_iter();
        names.filter(|name| !folder.join(name).is_file()).map(str::to_owned).collect()
    };
    let nested = dir.join("svhn");
    for folder in [dir, &nested] {
        if missing(folder).is_empty() {
            return Ok(folder.to_owned());
        }
    }
    let nearest = if missing(&nested).len() < 2 { nested } else { dir.to_owned() };
    Err(DataError::NotFound { kind: DataKind::Svhn, missing: missing(&nearest), folder: nearest })
}

/// Reads SVHN in its cropped form from `dir` or `dir/svhn`.
///
/// Labels may be of any numeric type. The digit 0, which the files call 10, gets label 0. The `extra` images
/// are not read.
///
/// # Errors
/// When one of the two files is missing, damaged, or not SVHN.
pub fn load(dir: &Path) -> Result<Splits, DataError> {
    exists(dir)?;
    let folder = folder_in(dir)?;
    Ok(Splits {
        train: read(&folder.join(TRAIN), "SVHN train")?,
        test: read(&folder.join(TEST), "SVHN test")?,
        source: format!("SVHN from {}", folder.display()),
    })
}

fn read(path: &Path, name: &str) -> Result<ImageSet, DataError> {
    let wanted = [
        Wanted { name: "X", check: |dims, bytes| count(dims, bytes).map(drop) },
        Wanted { name: "y", check: check_labels },
    ];
    let [images, labels] = matlab::read(path, wanted)?;
    let count = images.values.len() / (3 * SIDE * SIDE);
    if labels.values.len() != count {
        return Err(DataError::ImageCount {
            path: path.to_owned(),
            images: count,
            labels: labels.values.len(),
        });
    }
    if let Some(index) = labels.values.iter().position(|&label| label > 10) {
        let (name, found) = (path.display().to_string(), Label::from(labels.values[index]));
        return Err(DataError::LabelOutOfRange { name, index, found, classes: 11 });
    }
    let labels = labels.values.iter().map(|&label| Label::from(label % 10)).collect();
    ImageSet::new(name, [3, SIDE, SIDE], 10, rows_first(images), labels)
}

/// Number of images in an array of these dimensions, which takes `bytes` in the file.
fn count(dims: &[usize], bytes: u64) -> Result<usize, String> {
    let count = match *dims {
        [SIDE, SIDE, 3, count] => count,
        // MATLAB drops trailing dimensions of one.
        [SIDE, SIDE, 3] => 1,
        _ => return Err(format!("dimensions {dims:?}, expected 32, 32, 3, N")),
    };
    let largest = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_mul(COMPRESSION);
    let largest = (largest / (3 * SIDE * SIDE)).clamp(UNSUSPICIOUS, LARGEST);
    if count > largest {
        return Err(format!("{count} images in {bytes} bytes, expected at most {largest}"));
    }
    Ok(count)
}

/// Labels are a row or a column.
fn check_labels(dims: &[usize], _bytes: u64) -> Result<(), String> {
    let long = dims.iter().filter(|&&dim| dim != 1).count();
    if long > 1 || dims.iter().any(|&dim| dim > LARGEST) {
        return Err(format!("dimensions {dims:?}, expected a row or a column of labels"));
    }
    Ok(())
}

/// MATLAB stores columns one after the other, images here are rows; channels and images have the same
/// order.
fn rows_first(images: ByteArray) -> Vec<u8> {
    let mut pixels = images.values;
    for plane in pixels.chunks_exact_mut(SIDE * SIDE) {
        for y in 0..SIDE {
            for x in 0..y {
                plane.swap(y * SIDE + x, x * SIDE + y);
            }
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_turned() {
        // Values that tell their place: `X(y, x, channel, image)`.
        let at = |y: usize, x: usize, plane: usize| (y * 3 + x * 7 + plane * 11) as u8;
        let mut values = Vec::new();
        for plane in 0..6 {
            (0..SIDE).for_each(|x| values.extend((0..SIDE).map(|y| at(y, x, plane))));
        }
        let pixels = rows_first(ByteArray { dims: vec![SIDE, SIDE, 3, 2], values });
        for (index, &pixel) in pixels.iter().enumerate() {
            let (plane, y, x) = (index / (SIDE * SIDE), index / SIDE % SIDE, index % SIDE);
            assert_eq!(pixel, at(y, x, plane));
        }
    }
}
