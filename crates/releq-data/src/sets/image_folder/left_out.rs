//! Counts the files that are not read.

use std::{collections::BTreeMap, ffi::OsStr, fmt, ops::Add, path::Path};

use super::listing::printable;

/// Files in an image folder that are not read as images. Hidden files and what systems leave in folders,
/// such as `Thumbs.db`, do not count.
///
/// # Examples
///
/// ```
/// let left_out = releq_data::LeftOut {
///     by_extension: [("gif".to_owned(), 2), (String::new(), 1)].into(),
///     outside: 0,
/// };
/// assert_eq!(left_out.to_string(), "3 files that are not images (2 .gif, 1 without extension)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// Number of files in the folders of the classes by their extension in lower case, without the
    /// dot; the extension tells that they are not images.
    pub by_extension: BTreeMap<String, usize>,
    /// Images that belong to no class, such as those beside the folders of the classes.
    pub outside: usize,
}

impl LeftOut {
    /// Number of files left out.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_extension.values().sum::<usize>() + self.outside
    }

    /// Whether every file is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    pub(super) fn push(&mut self, name: &OsStr) {
        let extension = Path::new(name).extension().unwrap_or_default();
        *self.by_extension.entry(printable(extension).to_lowercase()).or_default() += 1;
    }
}

impl Add<&LeftOut> for LeftOut {
    type Output = Self;

    fn add(mut self, other: &Self) -> Self {
        for (extension, count) in &other.by_extension {
            *self.by_extension.entry(extension.clone()).or_default() += count;
        }
        self.outside += other.outside;
        self
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let others = self.count() - self.outside;
        if others > 0 || self.outside == 0 {
            let files =
                if others == 1 { "file that is not an image" } else { "files that are not images" };
            write!(f, "{others} {files}")?;
        }
        let mut kinds: Vec<(&String, usize)> =
            self.by_extension.iter().map(|(extension, &count)| (extension, count)).collect();
        kinds.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        for (place, (extension, count)) in kinds.iter().take(SHOWN).enumerate() {
            let separator = if place == 0 { " (" } else { ", " };
            match extension.as_str() {
                "" => write!(f, "{separator}{count} without extension")?,
                extension => write!(f, "{separator}{count} .{extension}")?,
            }
        }
        if !kinds.is_empty() {
            f.write_str(if kinds.len() > SHOWN { ", ...)" } else { ")" })?;
        }
        if self.outside > 0 {
            let separator = if others > 0 { ", " } else { "" };
            let images = if self.outside == 1 { "image" } else { "images" };
            write!(f, "{separator}{} {images} of no class", self.outside)?;
        }
        Ok(())
    }
}
