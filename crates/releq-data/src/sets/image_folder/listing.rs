//! Finds the images of a folder and their classes, without reading an image.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use md5::{Digest, Md5};
use unicode_normalization::UnicodeNormalization;

use super::{
    LeftOut,
    annotations::{ANNOTATED, ANNOTATIONS, annotations},
};
use crate::{DataError, Label, files::download::hex};

/// Names of image files end with one of these, as in torchvision; the contents decide how a file is
/// decoded.
pub(crate) const EXTENSIONS: [&str; 9] =
    ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];

/// What systems and programs leave in folders, beside everything whose name begins with a dot.
const JUNK: [&str; 10] = [
    "__MACOSX",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "Icon\r",
    "@eaDir",
    "@Recycle",
    "#recycle",
    "$RECYCLE.BIN",
    "lost+found",
];

/// One image file.
#[derive(Debug, Clone)]
pub(super) struct ImageFile {
    /// Within the root folder.
    pub(super) path: PathBuf,
    pub(super) class: Label,
}

/// The images of a folder.
#[derive(Debug)]
pub(super) struct Listing {
    /// None where the images have no classes.
    pub(super) classes: Vec<String>,
    /// Class by class; within a class by folder, then by name.
    pub(super) files: Vec<ImageFile>,
    pub(super) left_out: LeftOut,
    /// Of names, classes and stamps of all files. It is another for a copy of the folder.
    pub(super) fingerprint: String,
}

impl Listing {
    pub(super) fn read(root: &Path) -> Result<Self, DataError> {
        let entries = entries(root)?;
        let mut builder = Builder::default();
        let classes = if is_annotated(root, &entries) {
            builder.annotated(root)?
        } else if is_flat(&entries) {
            builder.flat(&entries)?;
            Vec::new()
        } else {
            builder.folders(root, &entries)?
        };
        let Builder { files, left_out, digest } = builder;
        Ok(Self { classes, files, left_out, fingerprint: hex(digest.finalize().as_slice()) })
    }
}

/// Names of the classes in `root`, in order.
pub(super) fn class_names(root: &Path) -> Result<Vec<String>, DataError> {
    let entries = entries(root)?;
    if is_annotated(root, &entries) {
        return Ok(annotations(root)?.1.into_keys().collect());
    }
    if is_flat(&entries) {
        return Ok(Vec::new());
    }
    Ok(class_folders(root, &entries)?.into_keys().collect())
}

/// Whether `root` holds images and no folders: they have no classes.
pub(super) fn has_images_alone(root: &Path) -> bool {
    entries(root).is_ok_and(|entries| is_flat(&entries))
}

fn is_flat(entries: &[Entry]) -> bool {
    let is_folder = |entry: &Entry| entry.path.is_dir();
    entries.iter().any(|entry| is_image(&entry.name)) && !entries.iter().any(is_folder)
}

/// Whether the images of `root` have no classes: all are in one folder called `images`.
pub(super) fn is_unlabelled(root: &Path) -> bool {
    entries(root).is_ok_and(|entries| only_images(&entries) && !is_annotated(root, &entries))
}

fn only_images(entries: &[Entry]) -> bool {
    let mut folders = entries.iter().filter(|entry| entry.path.is_dir());
    folders.next().is_some_and(|folder| folder.name == ANNOTATED) && folders.next().is_none()
}

fn is_annotated(root: &Path, entries: &[Entry]) -> bool {
    only_images(entries) && root.join(ANNOTATIONS).is_file()
}

#[derive(Default)]
struct Builder {
    files: Vec<ImageFile>,
    left_out: LeftOut,
    digest: Md5,
}

impl Builder {
    /// One folder for each class. Returns the names of the classes.
    fn folders(&mut self, root: &Path, entries: &[Entry]) -> Result<Vec<String>, DataError> {
        let classes = class_folders(root, entries)?;
        let beside = entries.iter().filter(|entry| entry.path.is_file() && is_image(&entry.name));
        self.left_out.outside = beside.count();
        for (class, (name, folder)) in (0..=Label::MAX).zip(&classes) {
            self.digest.update(format!("{name}/\n"));
            let mut found = walk(root, folder, &mut self.left_out)?;
            if found.is_empty() {
                return Err(DataError::EmptyClass { folder: root.join(folder) });
            }
            // By folder and then by name, as torchvision does.
            found.sort_by(|(a, _), (b, _)| {
                (a.parent().map(Path::as_os_str), a.file_name())
                    .cmp(&(b.parent().map(Path::as_os_str), b.file_name()))
            });
            found.into_iter().for_each(|(path, stamp)| self.push(path, class, &stamp));
        }
        Ok(classes.into_keys().collect())
    }

    /// Images without classes.
    fn flat(&mut self, entries: &[Entry]) -> Result<(), DataError> {
        let mut found: Vec<_> = Vec::new();
        for Entry { name, path } in entries {
            if is_image(name) {
                let unreadable = || DataError::Read {
                    path: path.clone(),
                    source: io::Error::other("it is no file"),
                };
                found.push((PathBuf::from(name), Stamp::read(path).ok_or_else(unreadable)?));
            } else {
                self.left_out.push(name);
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.into_iter().for_each(|(path, stamp)| self.push(path, 0, &stamp));
        Ok(())
    }

    /// All images in one folder, and a list that names their classes. Returns the names of the classes.
    fn annotated(&mut self, root: &Path) -> Result<Vec<String>, DataError> {
        let (list, classes) = annotations(root)?;
        let images = entries(&root.join(ANNOTATED))?;
        let count = images.iter().filter(|entry| is_image(&entry.name)).count();
        images.iter().filter(|entry| !is_image(&entry.name)).for_each(|entry| {
            self.left_out.push(&entry.name);
        });
        for (class, (name, files)) in (0..=Label::MAX).zip(&classes) {
            self.digest.update(format!("{name}/\n"));
            for (file, offset) in files {
                let path = Path::new(ANNOTATED).join(file);
                let stamp = Stamp::read(&root.join(&path)).ok_or_else(|| DataError::Format {
                    path: list.clone(),
                    format: "class list",
                    offset: *offset,
                    problem: format!("there is no image `{}`", path.display()),
                })?;
                self.push(path, class, &stamp);
            }
        }
        self.left_out.outside = count.saturating_sub(self.files.len());
        Ok(classes.into_keys().collect())
    }

    fn push(&mut self, path: PathBuf, class: Label, stamp: &Stamp) {
        self.digest.update(path.as_os_str().as_encoded_bytes());
        let Stamp { length, changed, entry: [time, number] } = stamp;
        self.digest.update(format!("\n{length} {changed} {time} {number}\n"));
        self.files.push(ImageFile { path, class });
    }
}

/// The folders of the classes in `root`, within it, by the names of the classes.
fn class_folders(root: &Path, entries: &[Entry]) -> Result<BTreeMap<String, OsString>, DataError> {
    let mut classes = BTreeMap::new();
    for entry in entries {
        match fs::metadata(&entry.path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => continue,
            // Without the class that a link was to be, the others would have other numbers.
            Err(_) if is_image(&entry.name) => continue,
            Err(source) => return Err(DataError::Read { path: entry.path.clone(), source }),
        }
        // Systems store one name in different Unicode forms; a class has one number everywhere.
        let name: String = printable(&entry.name).nfc().collect();
        if classes.insert(name.clone(), entry.name.clone()).is_some() {
            return Err(DataError::SameClass { folder: root.to_owned(), name });
        }
    }
    check_count(root, classes.len())?;
    Ok(classes)
}

pub(super) fn check_count(root: &Path, found: usize) -> Result<(), DataError> {
    match found {
        0 => Err(DataError::NoClasses { folder: root.to_owned() }),
        1..=65_536 => Ok(()),
        _ => Err(DataError::InvalidClasses { name: root.display().to_string(), found }),
    }
}

/// All images in `root/class` and the folders within it, as paths within `root`.
///
/// No folder is read twice, whatever links lead to it, nor any that contains `root`.
fn walk(
    root: &Path,
    class: &OsStr,
    left_out: &mut LeftOut,
) -> Result<Vec<(PathBuf, Stamp)>, DataError> {
    let canonical = |path: &Path| {
        fs::canonicalize(path).map_err(|source| DataError::Read { path: path.to_owned(), source })
    };
    let (whole, first) = (canonical(root)?, canonical(&root.join(class))?);
    if whole.starts_with(&first) {
        let source = io::Error::other("it is a link to a folder that contains it");
        return Err(DataError::Read { path: root.join(class), source });
    }
    let above = [&whole, &first].into_iter().flat_map(|path| path.ancestors());
    let mut seen: HashSet<PathBuf> = above.map(Path::to_owned).collect();
    seen.remove(&first);
    // Folders before links to them.
    let (mut folders, mut links) = (vec![(PathBuf::from(class), first)], Vec::new());
    let mut found = Vec::new();
    while let Some((folder, place)) = folders.pop().or_else(|| links.pop()) {
        if !seen.insert(place.clone()) {
            continue;
        }
        for Entry { name, path, .. } in entries(&root.join(&folder))? {
            let within = folder.join(&name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    if path.is_symlink() {
                        links.push((within, canonical(&path)?));
                    } else {
                        folders.push((within, place.join(&name)));
                    }
                }
                Ok(metadata) if metadata.is_file() && is_image(&name) => {
                    found.push((within, Stamp::of(&metadata)));
                }
                Ok(_) => left_out.push(&name),
                // What cannot be read is counted with the images that do not decode.
                Err(_) if path.is_symlink() && is_image(&name) => {
                    found.push((within, Stamp::default()));
                }
                Err(_) if path.is_symlink() => left_out.push(&name),
                Err(source) => return Err(DataError::Read { path, source }),
            }
        }
    }
    Ok(found)
}

/// What tells that a file has changed.
#[derive(Default)]
struct Stamp {
    length: u64,
    /// Nanoseconds since 1970. Programs set it as they like: archives give every file the time that it had.
    changed: u128,
    /// What the system alone sets, see [`entry`].
    entry: [i128; 2],
}

/// When the entry of a file in the file system has changed, in nanoseconds since 1970, and its number.
#[cfg(unix)]
fn entry(metadata: &fs::Metadata) -> [i128; 2] {
    use std::os::unix::fs::MetadataExt;

    let time = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    [time, metadata.ino().into()]
}

/// Other systems tell of no such thing.
#[cfg(not(unix))]
fn entry(_: &fs::Metadata) -> [i128; 2] {
    [0; 2]
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self { length: metadata.len(), changed, entry: entry(metadata) }
    }

    /// Of a file or of a link that cannot be followed, which counts with the images that do not decode.
    fn read(path: &Path) -> Option<Self> {
        match fs::metadata(path) {
            Ok(metadata) => metadata.is_file().then(|| Self::of(&metadata)),
            Err(_) => path.is_symlink().then(Self::default),
        }
    }
}

/// Something in a folder.
struct Entry {
    name: OsString,
    path: PathBuf,
}

/// What is in `folder`, but for what is hidden or left there by systems and programs.
fn entries(folder: &Path) -> Result<Vec<Entry>, DataError> {
    let fail = |source| DataError::Read { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        if !is_junk(&name) {
            entries.push(Entry { name, path: entry.path() });
        }
    }
    Ok(entries)
}

fn is_junk(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
        || JUNK.iter().any(|junk| name.eq_ignore_ascii_case(junk))
}

/// Whether a file is an image by its name, as it is in an [`ImageFolder`](super::ImageFolder).
#[must_use]
pub fn is_image(name: impl AsRef<Path>) -> bool {
    let extension = name.as_ref().extension().unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// A name as text; bytes that are not UTF-8 become escapes, so that different names stay different.
pub(super) fn printable(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn other_contents_of_the_same_size_and_time_are_another_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let write = |path: &Path, text: &str| {
            fs::write(path, text).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH).unwrap();
        };
        let fingerprint = || Listing::read(folder.path()).unwrap().fingerprint;
        write(&path, "old");
        let old = fingerprint();
        assert_eq!(fingerprint(), old);
        // In place of it.
        let beside = folder.path().join("new");
        write(&beside, "new");
        fs::rename(&beside, &path).unwrap();
        let new = fingerprint();
        assert_ne!(new, old);
        // The same file, later than the clock of the file system ticks.
        std::thread::sleep(Duration::from_millis(50));
        write(&path, "odd");
        assert_ne!(fingerprint(), new);
    }
}
