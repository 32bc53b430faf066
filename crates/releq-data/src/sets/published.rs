//! Where the published data sets are on the net, and their checksums.

use super::{cifar10, mnist, svhn};
use crate::DataKind;

/// A data set's files on the net.
pub(crate) struct Published {
    /// Folders that have all of them.
    pub(crate) mirrors: &'static [&'static str],
    pub(crate) files: &'static [RemoteFile],
}

/// One file on the net.
pub(crate) struct RemoteFile {
    /// Its name there and, once it is here, here.
    pub(crate) name: &'static str,
    pub(crate) md5: Checksum,
}

/// An MD5 checksum in hexadecimal digits.
pub(crate) enum Checksum {
    /// Of the file as it is.
    File(&'static str),
    /// Of what the file decompresses to; mirrors may compress it in their own way.
    Content(&'static str),
}

/// Where a data set is published; `None` for a folder of one's own.
pub(crate) fn published(kind: DataKind) -> Option<&'static Published> {
    match kind {
        DataKind::Mnist => Some(&mnist::MNIST),
        DataKind::FashionMnist => Some(&mnist::FASHION_MNIST),
        DataKind::Cifar10 => Some(&cifar10::PUBLISHED),
        DataKind::Svhn => Some(&svhn::PUBLISHED),
        DataKind::ImageFolder => None,
    }
}
