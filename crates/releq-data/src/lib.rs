#![doc = include_str!("../README.md")]

mod augment;
mod dataset;
mod error;
mod files;
mod image_set;
mod parallel;
mod sets;

pub use augment::Augmentation;
pub use dataset::{Dataset, Label};
pub use error::DataError;
pub use files::{
    cache::Cache,
    decode::{BadImage, Color, ImageSize},
    download::{Download, DownloadProgress, download},
    idx,
};
pub use image_set::{DataSet, ImageSet, Normalization};
pub use sets::{
    cifar10, digits,
    image_folder::{self, BadImages, ImageFolder, ImageFolderConfig, LoadedImages},
    mnist,
    open::{DataKind, detect, find, open},
    svhn,
};
