//! Arrays of NumPy: `.npz`, an archive of arrays by name, and `.npy`, one array.
//!
//! ```
//! use releq_data::npz::{self, Array};
//!
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("logits.npz");
//! let logits = Array { shape: vec![2, 3], values: vec![0.5, 1.0, -1.0, 0.0, 2.0, 0.25] };
//! npz::write(&path, &[("logits", &logits)])?;
//! assert_eq!(npz::read(&path, "logits")?, logits);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod npy;

use std::{
    fs::File,
    io::{BufReader, Cursor, Read, Seek, SeekFrom},
    path::Path,
};

use releq_core::{StandIn, atomic_file};
use zip::{CompressionMethod, ZipArchive, ZipWriter, result::ZipError, write::SimpleFileOptions};

pub use self::npy::Array;
pub(crate) use self::npy::{Header, Numbers, row_major};
use crate::DataError;

/// A file of arrays, opened.
enum Opened {
    Many(ZipArchive<BufReader<File>>),
    One(BufReader<File>),
}

/// Opens a file in which an array of this name is looked for.
fn open(path: &Path, name: &str) -> Result<Opened, DataError> {
    let unreadable = |source| DataError::Read { path: path.to_owned(), source };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut start = Vec::new();
    (&mut file).take(StandIn::START as u64).read_to_end(&mut start).map_err(unreadable)?;
    if let Some(what) = StandIn::of(&start) {
        return Err(DataError::StandIn { path: path.to_owned(), what });
    }
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    if start.starts_with(npy::MAGIC) {
        return Ok(Opened::One(file));
    }
    let archive = ZipArchive::new(file).map_err(|error| DataError::Array {
        path: path.to_owned(),
        name: name.to_owned(),
        reason: format!("the file is no archive of NumPy, such as savez writes ({error})"),
    })?;
    Ok(Opened::Many(archive))
}

fn names_in(archive: &ZipArchive<BufReader<File>>) -> impl Iterator<Item = String> {
    let names = archive.file_names().flatten();
    names.map(|name| name.trim_end_matches(".npy").to_owned())
}

/// Names of the arrays in an `.npz` file; none in an `.npy`, whose array has no name.
///
/// # Errors
/// [`DataError`] if it is neither.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, DataError> {
    Ok(match open(path, "x")? {
        Opened::Many(archive) => names_in(&archive).collect(),
        Opened::One(_) => Vec::new(),
    })
}

/// Shape and type of the array of this name, of which no value is read.
///
/// # Errors
/// As [`read`].
pub(crate) fn header(path: &Path, name: &str) -> Result<Header, DataError> {
    read_by(path, name, |file| Header::read(file))
}

/// Hands the values of the array of this name to `take`, in the order of the file, in parts and in single precision, so
/// that no more of them are in memory than `take` keeps.
///
/// # Errors
/// As [`read`], and what `take` says is wrong.
pub(crate) fn values(
    path: &Path,
    name: &str,
    take: &mut dyn FnMut(&[f32]) -> Result<(), String>,
) -> Result<(), DataError> {
    read_by(path, name, |file| Header::read(file)?.values(file, take))
}

/// Reads the array of this name, in single precision, from `.npz`; or the only array, from `.npy`.
///
/// # Errors
/// [`DataError`], naming the file and the arrays that it has, or what is wrong with the one it was asked for.
pub fn read(path: impl AsRef<Path>, name: &str) -> Result<Array, DataError> {
    read_by(path.as_ref(), name, npy::read)
}

fn read_by<T>(
    path: &Path,
    name: &str,
    read: impl FnOnce(&mut dyn Read) -> Result<T, String>,
) -> Result<T, DataError> {
    let wrong =
        |reason: String| DataError::Array { path: path.to_owned(), name: name.to_owned(), reason };
    let mut archive = match open(path, name)? {
        Opened::One(mut file) => return read(&mut file).map_err(wrong),
        Opened::Many(archive) => archive,
    };
    let names: Vec<String> = names_in(&archive).take(8).collect();
    match archive.by_name(&format!("{name}.npy")) {
        Ok(mut entry) => read(&mut entry).map_err(wrong),
        Err(ZipError::FileNotFound) => {
            Err(wrong(format!("there is none; the file has `{}`", names.join("`, `"))))
        }
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Writes arrays under their names as `.npz`; a file of that name is replaced at once or not at all.
///
/// # Errors
/// [`DataError::Write`].
pub fn write(path: impl AsRef<Path>, arrays: &[(&str, &Array)]) -> Result<(), DataError> {
    let path = path.as_ref();
    let archive = || {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, array) in arrays {
            let large = array.values.len() >= 1 << 29;
            archive.start_file(format!("{name}.npy"), options.large_file(large))?;
            npy::write(&mut archive, array)?;
        }
        archive.finish()
    };
    let written = archive().map_err(std::io::Error::other);
    written
        .and_then(|bytes| atomic_file::write(path, bytes.get_ref()))
        .map_err(|source| DataError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_found_by_name_and_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arrays.npz");
        let x = Array { shape: vec![2, 1, 2], values: vec![1.0, -2.5, 3.0, f32::MIN_POSITIVE] };
        let y = Array { shape: vec![2], values: vec![0.0, 9.0] };
        write(&path, &[("x", &x), ("y", &y)]).unwrap();
        assert_eq!(read(&path, "x").unwrap(), x);
        assert_eq!(read(&path, "y").unwrap(), y);
        let message = read(&path, "z").unwrap_err().to_string();
        assert!(message.contains("array `z`: there is none; the file has `x`, `y`"), "{message}");
        let whole = std::fs::read(&path).unwrap();
        for (file, expected) in [
            (&b"x, y\n1, 2\n"[..], "is no archive of NumPy"),
            (&whole[..whole.len() / 2], "is no archive of NumPy"),
            (b"\x93NUMPY", "ends before its values"),
            (b"", "is empty"),
        ] {
            std::fs::write(&path, file).unwrap();
            let message = read(&path, "x").unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
            assert!(message.contains("arrays.npz"), "{message}");
        }
    }
}
