//! Tiny ImageNet's list of the classes of its validation images, which are all in one folder.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use unicode_normalization::UnicodeNormalization;

use super::listing::check_count;
use crate::DataError;

/// Name of the list.
pub(super) const ANNOTATIONS: &str = "val_annotations.txt";
/// Name of the folder.
pub(super) const ANNOTATED: &str = "images";
/// Largest list that is read; Tiny ImageNet's has 260 KB.
const LARGEST_LIST: u64 = 1 << 26;

/// The files of each class that Tiny ImageNet's list names, with the offset of their line, and the path
/// of the list.
pub(super) type Annotations = (PathBuf, BTreeMap<String, BTreeMap<String, u64>>);

/// Reads the list in `root`.
pub(super) fn annotations(root: &Path) -> Result<Annotations, DataError> {
    let path = root.join(ANNOTATIONS);
    let fail = |source| DataError::Read { path: path.clone(), source };
    let damaged = |offset, problem| DataError::Format {
        path: path.clone(),
        format: "class list",
        offset,
        problem,
    };
    let mut text = String::new();
    let file = fs::File::open(&path).map_err(fail)?;
    file.take(LARGEST_LIST + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > LARGEST_LIST {
        return Err(damaged(LARGEST_LIST, format!("the list has more than {LARGEST_LIST} bytes")));
    }
    let (mut classes, mut seen, mut offset) = (BTreeMap::new(), HashSet::new(), 0);
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len() as u64;
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let separator = |c: char| if line.contains('\t') { c == '\t' } else { c == ' ' };
        let mut fields = line.split(separator);
        let (Some(file), Some(class)) = (fields.next(), fields.next()) else {
            return Err(damaged(start, format!("`{line}` is not an image and its class")));
        };
        // Nothing outside of the folder.
        if Path::new(file).file_name() != Some(OsStr::new(file)) {
            return Err(damaged(start, format!("`{file}` is not the name of a file")));
        }
        if !seen.insert(file) {
            return Err(damaged(start, format!("`{file}` is in the list twice")));
        }
        let class: String = class.nfc().collect();
        classes.entry(class).or_insert_with(BTreeMap::new).insert(file.to_owned(), start);
    }
    check_count(root, classes.len())?;
    Ok((path, classes))
}
