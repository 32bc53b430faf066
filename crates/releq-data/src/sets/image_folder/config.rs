//! How image folders are read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Cache, Color, DataError, ImageSize, files::decode::LARGEST_SIDE};

/// Most threads that decode.
const MOST_THREADS: usize = 1024;

/// What to do with image files that give no image: damaged ones, broken links, files that may not be read, and what a
/// list names that is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadImages {
    /// Loading fails and names them.
    #[default]
    Refuse,
    /// They are left out, logged and listed in [`LoadedImages::skipped`](super::LoadedImages::skipped).
    Skip,
}

/// How to read an image folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct ImageFolderConfig {
    /// The size that images are brought to.
    pub size: ImageSize,
    /// The channels of the images.
    pub color: Color,
    /// A file that says which number each class has, for folders or names that are not all classes of a network, or are in
    /// another order: a table with columns `index` and names, JSON as Keras and torchvision write it, or one name on each
    /// line, with its number or in the order of the numbers. Without it, classes are numbered in the order of their names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_list: Option<PathBuf>,
    /// What to do with images that do not decode.
    pub bad_images: BadImages,
    /// Where decoded images are cached.
    pub cache: Cache,
    /// Memory in bytes that the pixels of one folder or one array may take; 3 GiB by default.
    pub max_bytes: u64,
    /// Threads that decode, at most 1024; 0, the default, stands for one per processor.
    pub threads: usize,
}

releq_core::named_fields!(ImageFolderConfig);

impl Default for ImageFolderConfig {
    fn default() -> Self {
        Self {
            size: ImageSize::default(),
            color: Color::default(),
            class_list: None,
            bad_images: BadImages::default(),
            cache: Cache::default(),
            max_bytes: 3 << 30,
            threads: 0,
        }
    }
}

impl ImageFolderConfig {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let wrong = |field, found: String, expected| {
            Err(DataError::Parameter { of: "image folder", field, found, expected })
        };
        if let ImageSize::ResizeCrop { resize, crop } = self.size {
            if !(1..=LARGEST_SIDE).contains(&resize) {
                return wrong("size.resize", resize.to_string(), "1 to 16384");
            }
            if !(1..=resize).contains(&crop) {
                return wrong("size.crop", crop.to_string(), "1 to `size.resize`");
            }
        }
        if self.threads > MOST_THREADS {
            return wrong("threads", self.threads.to_string(), "0 to 1024");
        }
        Ok(())
    }
}
