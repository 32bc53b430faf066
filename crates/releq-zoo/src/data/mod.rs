//! Labelled images: data sets from disk or the net, and one that is drawn on the spot.
//!
//! - [`open`] reads whatever data set a folder holds; [`find`] and [`download`] bring it there.
//! - [`mnist`], [`cifar10`], [`svhn`] and [`image_folder`] read one kind each; [`idx`] is the file format
//!   of MNIST.
//! - [`digits`] draws handwriting-like digits; it needs no file and no network.
//! - [`Dataset`] is the seam for data of your own, [`ImageSet`] its form in memory.
//! - [`Augmentation`] changes training images at random.
//!
//! # Examples
//!
//! ```
//! use releq_zoo::data::{Dataset, Normalization, digits};
//!
//! let config = digits::DigitsConfig { train: 200, test: 50, ..Default::default() };
//! let data = digits::generate(&config)?;
//! let (train, validation) = data.train.split(40, 7)?;
//! let normalization = Normalization::measured(&train);
//!
//! let (mut images, mut labels) = (Vec::new(), Vec::new());
//! validation.gather(&[0, 1, 2], &normalization, &mut images, &mut labels)?;
//! assert_eq!((images.len(), labels.len()), (3 * 28 * 28, 3));
//! # Ok::<(), releq_zoo::data::DataError>(())
//! ```

mod augment;
mod cache;
pub mod cifar10;
mod dataset;
mod decode;
pub mod digits;
mod download;
mod error;
pub mod idx;
pub mod image_folder;
mod image_set;
mod matlab;
pub mod mnist;
mod open;
mod parallel;
mod pickle;
pub mod svhn;

pub use augment::Augmentation;
pub use cache::Cache;
pub use dataset::{Dataset, Label};
pub use decode::{BadImage, Color, ImageSize};
pub use download::{Download, DownloadProgress, download};
pub use error::DataError;
pub use image_folder::{BadImages, ImageFolder, ImageFolderConfig, LoadedImages};
pub use image_set::{DataSet, ImageSet, Normalization};
pub use open::{DataKind, detect, find, open};
