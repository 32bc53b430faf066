//! Where data sets can be downloaded, and their checksums.

use super::{cifar10, mnist, svhn};
use crate::DataKind;

/// The files of a published data set.
pub(crate) struct Published {
    /// Addresses of folders that contain all files.
    pub(crate) mirrors: &'static [&'static str],
    pub(crate) files: &'static [RemoteFile],
}

/// One file.
pub(crate) struct RemoteFile {
    /// Its name, on the server and on disk.
    pub(crate) name: &'static str,
    pub(crate) md5: Checksum,
}

/// An MD5 checksum in hexadecimal digits.
pub(crate) enum Checksum {
    /// Of the file itself.
    File(&'static str),
    /// Of the decompressed contents, since mirrors may compress differently.
    Content(&'static str),
}

/// Where a data set is published; `None` for image folders.
pub(crate) fn published(kind: DataKind) -> Option<&'static Published> {
    match kind {
        DataKind::Mnist => Some(&mnist::MNIST),
        DataKind::FashionMnist => Some(&mnist::FASHION_MNIST),
        DataKind::Cifar10 => Some(&cifar10::PUBLISHED),
        DataKind::Svhn => Some(&svhn::PUBLISHED),
        DataKind::ImageFolder | DataKind::ImageList | DataKind::Arrays => None,
    }
}
