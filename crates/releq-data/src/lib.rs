#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod augment;
#[cfg(any(test, feature = "testing"))]
mod check;
mod dataset;
mod error;
mod files;
mod fingerprint;
mod image_set;
mod normalization;
mod sets;
mod subset;
mod with_labels;

pub use augment::Augmentation;
#[cfg(any(test, feature = "testing"))]
pub use check::check_dataset;
pub use dataset::{Dataset, DatasetInfo, Label, Splits};
pub use error::DataError;
pub use files::{
    bundle,
    cache::Cache,
    decode::{BadImage, ImageSize},
    download::{Download, DownloadProgress, download},
    idx, npz,
    planes::Color,
};
pub use fingerprint::fingerprint;
pub use image_set::ImageSet;
pub use normalization::Normalization;
pub use sets::{
    arrays, cifar10,
    class_names::class_names,
    digits,
    image_folder::{self, BadImages, ImageFolder, ImageFolderConfig, LeftOut, LoadedImages},
    mnist,
    open::{DataKind, detect, find, open},
    svhn,
};
pub use subset::Subset;
pub use with_labels::WithLabels;
