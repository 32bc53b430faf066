//! Weights in files beside the model.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use super::proto::StringEntry;

/// Where the values of a tensor are, in another file than the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// The file, as the model names it: a path relative to the model's folder. It comes from outside and may name
    /// anything.
    pub location: String,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// Reads values from another file.
pub(super) type ReadExternal<'a> = dyn FnMut(&External) -> io::Result<Vec<u8>> + 'a;

impl External {
    /// The entries of a tensor of `length` bytes.
    pub(super) fn of(entries: &[StringEntry], length: u64) -> Result<Self, String> {
        let entry = |key: &str| {
            entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
        };
        let number = |key: &str| {
            let number = entry(key).map(|text| text.parse::<u64>().map_err(|_| (key, text)));
            number.transpose().map_err(|(key, text)| {
                format!("is in another file, with a {key} of `{text}`, which is no number of bytes")
            })
        };
        let Some(location) = entry("location") else {
            return Err("is in another file that is not named".to_owned());
        };
        if let Some(stated) = number("length")?.filter(|&stated| stated != length) {
            return Err(format!(
                "takes {length} bytes, but is said to be {stated} in `{location}`"
            ));
        }
        let offset = number("offset")?.unwrap_or(0);
        Ok(Self { location: location.to_owned(), offset, length })
    }
}

/// A file of the folder, and where it is, however it was named.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    file: File,
}

/// Hands out parts of the files in one folder and below, and of no others.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The file that was read last, since all weights are in one as a rule.
    open: Option<(String, Found)>,
    /// How many bytes of each file were handed out.
    read: HashMap<PathBuf, u64>,
}

impl Folder {
    /// The folder that the file `model` is in.
    pub(super) fn of(model: &Path) -> Self {
        let parent = model.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self { path: parent.unwrap_or(Path::new(".")).to_owned(), open: None, read: HashMap::new() }
    }

    pub(super) fn read(&mut self, place: &External) -> io::Result<Vec<u8>> {
        let file = match self.open.take() {
            Some((location, file)) if location == place.location => file,
            _ => self.find(&place.location)?,
        };
        let (_, Found { path, file }) = self.open.insert((place.location.clone(), file));
        let size = file.metadata()?.len();
        let end = place.offset.checked_add(place.length).filter(|&end| end <= size);
        let Some(length) = end.and(usize::try_from(place.length).ok()) else {
            return Err(io::Error::other(format!(
                "{} bytes from byte {} on go beyond its {size} bytes",
                place.length, place.offset
            )));
        };
        // A file of a few bytes may name a large one a thousand times.
        let read = self.read.entry(path.clone()).or_default();
        *read = read.saturating_add(place.length);
        if *read > size.saturating_mul(2) {
            return Err(io::Error::other("the same bytes are the values of many tensors"));
        }
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(place.offset))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file of the folder. Neither its name nor a link may lead out of it.
    fn find(&self, location: &str) -> io::Result<Found> {
        let outside = || io::Error::other("only files in the folder of the model are read");
        let relative = Path::new(location);
        let mut parts = relative.components();
        if location.is_empty()
            || location.contains('\0')
            || !parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(outside());
        }
        let folder = fs::canonicalize(&self.path)?;
        let path = fs::canonicalize(folder.join(relative))?;
        if !path.starts_with(&folder) {
            return Err(outside());
        }
        // Opening a pipe, or reading a device, may never end.
        match fs::metadata(&path)?.is_file() {
            true => Ok(Found { file: File::open(&path)?, path }),
            false => Err(io::Error::other("it is no file")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_files_in_the_folder_are_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("models");
        fs::create_dir_all(inside.join("weights")).unwrap();
        fs::write(inside.join("model.data"), b"abcdef").unwrap();
        fs::write(inside.join("weights/part"), b"xyz").unwrap();
        fs::write(folder.path().join("secret"), b"secret").unwrap();
        let mut files = Folder::of(&inside.join("model.onnx"));
        let mut read = |location: &str, offset, length| {
            let place = External { location: location.to_owned(), offset, length };
            files.read(&place).map_err(|error| error.to_string())
        };
        assert_eq!(read("model.data", 1, 3).unwrap(), b"bcd");
        assert_eq!(read("./model.data", 6, 0).unwrap(), b"");
        assert_eq!(read("weights/part", 0, 3).unwrap(), b"xyz");
        assert!(read("model.data", 4, 3).unwrap_err().contains("beyond its 6 bytes"));
        assert!(read("model.data", u64::MAX, 3).unwrap_err().contains("beyond its 6 bytes"));
        assert!(read("model.data", 0, u64::MAX).unwrap_err().contains("beyond its 6 bytes"));
        let secret = folder.path().join("secret").display().to_string();
        for outside in ["../secret", "weights/../../secret", &secret, "", "a\0b"] {
            assert!(read(outside, 0, 1).unwrap_err().contains("only files in the folder"));
        }
        for _ in 0..2 {
            assert_eq!(read("weights/part", 1, 1).unwrap(), b"y");
        }
        assert!(read("./weights/part", 1, 2).unwrap_err().contains("the values of many tensors"));
        assert!(read("weights", 0, 1).is_err());
        assert!(read("absent", 0, 1).is_err());
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
            std::os::unix::fs::symlink("model.data", inside.join("kept")).unwrap();
            assert!(read("link", 0, 1).unwrap_err().contains("only files in the folder"));
            assert_eq!(read("kept", 0, 1).unwrap(), b"a");
        }
    }

    #[test]
    fn entries_are_numbers_that_agree_with_the_tensor() {
        let of = |entries: &[(&str, &str)]| {
            let entry = |&(key, value): &(&str, &str)| StringEntry {
                key: key.to_owned(),
                value: value.to_owned(),
            };
            External::of(&entries.iter().map(entry).collect::<Vec<_>>(), 8)
        };
        let place = of(&[("location", "a"), ("offset", "4096"), ("length", "8")]).unwrap();
        assert_eq!(place, External { location: "a".to_owned(), offset: 4096, length: 8 });
        assert_eq!(of(&[("location", "a")]).unwrap().length, 8);
        assert!(of(&[("offset", "1")]).unwrap_err().contains("not named"));
        assert!(of(&[("location", "a"), ("offset", "-1")]).unwrap_err().contains("offset of `-1`"));
        assert!(of(&[("location", "a"), ("length", "9")]).unwrap_err().contains("said to be 9"));
    }
}
