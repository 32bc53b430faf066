//! Reads CIFAR-10 from binary or Python batches, in a folder or in their archive.

use std::{
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::{
    exists,
    published::{Checksum, Published, RemoteFile},
};
use crate::{
    DataError, DataKind, ImageSet, Label, Splits,
    files::{
        open::open,
        pickle::{Array, Pickle},
    },
};

const FORMAT: &str = "CIFAR-10";
const SHAPE: [usize; 3] = [3, 32, 32];
const IMAGE: usize = 3 * 32 * 32;
const CLASSES: usize = 10;
/// Numbers of images to train and to test on that are published.
const PUBLISHED_COUNTS: [usize; 2] = [50_000, 10_000];
/// Largest batch that is read; a published one takes 31 MB.
const LIMIT: u64 = 64 << 20;

/// Names of the Python batches; the binary ones end in `.bin`. The last is to test on.
const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
const ARCHIVES: [&str; 2] = ["cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"];
const FOLDERS: [&str; 3] = ["cifar-10-batches-bin", "cifar-10-batches-py", "cifar10"];

/// Where CIFAR-10 is published (Krizhevsky, 2009), in its binary form.
pub(crate) const PUBLISHED: Published = Published {
    mirrors: &["https://www.cs.toronto.edu/~kriz/"],
    files: &[RemoteFile {
        name: ARCHIVES[0],
        md5: Checksum::File("c32a1d4ab5d03f1284b67883e8d87530"),
    }],
};

/// Where the batches are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Binary(PathBuf),
    Python(PathBuf),
    Archive(PathBuf),
}

/// The batches in `dir`, or in a folder of it with the name that their archive unpacks to.
pub(crate) fn find(dir: &Path) -> Result<Location, DataError> {
    if dir.is_file() {
        return Ok(Location::Archive(dir.to_owned()));
    }
    let nested = FOLDERS.map(|name| dir.join(name));
    let deeper = [0, 1].map(|form| nested[2].join(FOLDERS[form]));
    let folders: Vec<&Path> =
        std::iter::once(dir).chain(nested.iter().chain(&deeper).map(PathBuf::as_path)).collect();
    for &folder in &folders {
        if missing(folder, ".bin").is_empty() {
            return Ok(Location::Binary(folder.to_owned()));
        }
        if missing(folder, "").is_empty() {
            return Ok(Location::Python(folder.to_owned()));
        }
    }
    let archives = folders.iter().flat_map(|folder| ARCHIVES.map(|name| folder.join(name)));
    if let Some(archive) = archives.into_iter().find(|path| path.is_file()) {
        return Ok(Location::Archive(archive));
    }
    // What is missing in the folder that lacks the least.
    let ways = folders.iter().flat_map(|&folder| [(folder, ".bin"), (folder, "")]);
    let nearest = ways.min_by_key(|&(folder, suffix)| missing(folder, suffix).len());
    let (folder, suffix) = nearest.unwrap_or((dir, ".bin"));
    let missing = missing(folder, suffix);
    Err(DataError::NotFound { kind: DataKind::Cifar10, folder: folder.to_owned(), missing })
}

/// Names of the batches that are not in `folder`, in the form whose names end in `suffix`.
fn missing(folder: &Path, suffix: &str) -> Vec<String> {
    let names = BATCHES.map(|name| format!("{name}{suffix}")).into_iter();
    names.filter(|name| !folder.join(name).is_file()).collect()
}

/// Images and labels of one batch.
struct Batch {
    path: PathBuf,
    pixels: Vec<u8>,
    labels: Vec<Label>,
}

/// Reads CIFAR-10 from `dir`, which contains the batches, a folder with them or their archive, or is the
/// archive.
///
/// A batch may have fewer or more images than the 10,000 of a published one; then the source says how many
/// there are. The labels of a Python batch may be a list or a NumPy array. Pickles are read as data: one that
/// could run code is refused.
///
/// # Errors
/// When a batch is missing, damaged, or not CIFAR-10.
pub fn load(dir: &Path) -> Result<Splits, DataError> {
    exists(dir)?;
    let location = find(dir)?;
    let (batches, place) = match &location {
        Location::Binary(folder) => (read_folder(folder, ".bin")?, folder),
        Location::Python(folder) => (read_folder(folder, "")?, folder),
        Location::Archive(path) => (read_archive(path)?, path),
    };
    let mut source = format!("CIFAR-10 from {}", place.display());
    if matches!(location, Location::Binary(_)) && missing(place, "").is_empty() {
        source.push_str(", its binary batches and not those of Python beside them");
    }
    let set = |name: &str, batches: &mut dyn Iterator<Item = Batch>| {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for batch in batches {
            pixels.extend(batch.pixels);
            labels.extend(batch.labels);
        }
        ImageSet::new(name, SHAPE, CLASSES, pixels, labels)
    };
    let mut batches = batches.into_iter();
    let train = set("CIFAR-10 train", &mut batches.by_ref().take(5))?;
    let test = set("CIFAR-10 test", &mut batches)?;
    let counts = [train.len(), test.len()];
    if counts != PUBLISHED_COUNTS {
        let [train, test] = counts;
        source.push_str(&format!(
            ", not the published set: {train} images to train on, {test} to test on"
        ));
    }
    Ok(Splits { train, test, source })
}

fn read_folder(folder: &Path, suffix: &str) -> Result<Vec<Batch>, DataError> {
    let batches = BATCHES.iter().map(|name| {
        let path = folder.join(format!("{name}{suffix}"));
        let failed = |source| DataError::Read { path: path.clone(), source };
        let mut bytes = Vec::new();
        let (file, _) = open(&path)?;
        file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
        read_batch(path, &bytes)
    });
    batches.collect()
}

/// Reads the batches of an archive, in any order.
fn read_archive(path: &Path) -> Result<Vec<Batch>, DataError> {
    let damaged = |source| DataError::Archive { path: path.to_owned(), source };
    let (file, _) = open(path)?;
    let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
    let mut found = BATCHES.map(|_| None);
    // Raw: long names and other extensions would be read into memory, however long they are.
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(damaged)?.into_owned();
        let stem = name.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let index = BATCHES.iter().position(|&batch| stem.trim_end_matches(".bin") == batch);
        if let Some(index) = index {
            let mut bytes = Vec::new();
            entry.take(LIMIT + 1).read_to_end(&mut bytes).map_err(damaged)?;
            found[index] = Some(read_batch(path.join(name), &bytes)?);
        }
    }
    let batches = found.into_iter().zip(BATCHES).map(|(batch, name)| {
        batch.ok_or_else(|| DataError::NotFound {
            kind: DataKind::Cifar10,
            folder: path.to_owned(),
            missing: vec![name.to_owned()],
        })
    });
    batches.collect()
}

fn read_batch(path: PathBuf, bytes: &[u8]) -> Result<Batch, DataError> {
    if bytes.len() as u64 > LIMIT {
        let problem = format!("the batch has more than {LIMIT} bytes");
        return Err(DataError::Format { path, format: FORMAT, offset: LIMIT, problem });
    }
    let batch = if path.extension().is_some_and(|extension| extension == "bin") {
        read_binary(path, bytes)?
    } else {
        read_python(path, bytes)?
    };
    let wrong = batch.labels.iter().position(|&label| usize::from(label) >= CLASSES);
    if let Some(index) = wrong {
        let (name, found) = (batch.path.display().to_string(), batch.labels[index]);
        return Err(DataError::LabelOutOfRange { name, index, found, classes: CLASSES });
    }
    Ok(batch)
}

/// Records of one byte for the label and the three planes of the image.
fn read_binary(path: PathBuf, bytes: &[u8]) -> Result<Batch, DataError> {
    let (records, rest) = bytes.as_chunks::<{ 1 + IMAGE }>();
    if !rest.is_empty() || records.is_empty() {
        let problem = format!("the file ends within image {}", records.len());
        return Err(DataError::Format {
            path,
            format: FORMAT,
            offset: bytes.len() as u64,
            problem,
        });
    }
    let labels = records.iter().map(|record| Label::from(record[0])).collect();
    let mut pixels = Vec::with_capacity(records.len() * IMAGE);
    records.iter().for_each(|record| pixels.extend_from_slice(&record[1..]));
    Ok(Batch { path, pixels, labels })
}

/// A dictionary with the array `data`, a row for each image, and the list `labels`.
fn read_python(path: PathBuf, bytes: &[u8]) -> Result<Batch, DataError> {
    let pickle = Pickle::read(&path, bytes)?;
    let damaged = |path: &Path, problem: String| DataError::Format {
        path: path.to_owned(),
        format: FORMAT,
        offset: bytes.len() as u64,
        problem,
    };
    let parts =
        pickle.array("data", bytes).and_then(|data| Ok((data, pickle.numbers("labels", bytes)?)));
    let (data, numbers) = parts.map_err(|problem| damaged(&path, problem))?;
    let (count, pixels) = rows(data).map_err(|problem| damaged(&path, problem))?;
    if numbers.len() != count {
        return Err(DataError::ImageCount { path, images: count, labels: numbers.len() });
    }
    let mut labels = Vec::with_capacity(count);
    for (index, &number) in numbers.iter().enumerate() {
        match Label::try_from(number) {
            Ok(label) => labels.push(label),
            Err(_) => return Err(damaged(&path, format!("label of image {index} is {number}"))),
        }
    }
    Ok(Batch { path, pixels, labels })
}

/// Number of images in an array and their pixels, one image after the other, or what is wrong.
fn rows(array: &Array) -> Result<(usize, Vec<u8>), String> {
    let Array { shape, dtype, data, columns_first } = array;
    let (&count, image) = shape.split_first().unwrap_or((&0, &[]));
    let flat = image == [IMAGE];
    if !(flat || image == SHAPE) || dtype.name != "u1" {
        let name = &dtype.name;
        return Err(format!(
            "`data` has shape {shape:?} and type {name}, expected [N, {IMAGE}] and u1"
        ));
    }
    if !columns_first {
        return Ok((count, data.clone()));
    }
    // Place of a pixel in an array whose last dimension is the slowest.
    let place = |pixel: usize| {
        let [channels, height, width] = SHAPE;
        let (channel, y, x) = (pixel / (height * width), pixel / width % height, pixel % width);
        if flat { pixel } else { channel + channels * (y + height * x) }
    };
    let row = |index: usize| (0..IMAGE).map(move |pixel| data[place(pixel) * count + index]);
    Ok((count, (0..count).flat_map(row).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::pickle::Dtype;

    #[test]
    fn rows_come_out_alike_from_either_order_and_shape() {
        let data: Vec<u8> = (0..2 * IMAGE).map(|i| (i % 251) as u8).collect();
        let at = |image: usize, channel: usize, y: usize, x: usize| {
            data[((image * 3 + channel) * 32 + y) * 32 + x]
        };
        let columns: Vec<u8> =
            (0..IMAGE).flat_map(|column| [data[column], data[IMAGE + column]]).collect();
        let mut reversed = Vec::new();
        for (x, y) in (0..32).flat_map(|x| (0..32).map(move |y| (x, y))) {
            (0..3)
                .for_each(|channel| reversed.extend([0, 1].map(|image| at(image, channel, y, x))));
        }
        let array = |shape: &[usize], data: &Vec<u8>, columns_first| {
            let dtype = Dtype::new("u1");
            rows(&Array { shape: shape.to_vec(), dtype, data: data.clone(), columns_first })
        };
        let expected = Ok((2, data.clone()));
        assert_eq!(array(&[2, IMAGE], &data, false), expected);
        assert_eq!(array(&[2, IMAGE], &columns, true), expected);
        assert_eq!(array(&[2, 3, 32, 32], &data, false), expected);
        assert_eq!(array(&[2, 3, 32, 32], &reversed, true), expected);
        let problem = array(&[2, 32, 32, 3], &data, false).unwrap_err();
        assert!(
            problem.contains("shape [2, 32, 32, 3] and type u1, expected [N, 3072]"),
            "{problem}"
        );
    }
}
