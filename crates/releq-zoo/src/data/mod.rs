//! Labelled images: MNIST from disk or the net, and a data set that is drawn on the spot.
//!
//! - [`digits`] draws handwriting-like digits; it needs no file and no network.
//! - [`mnist`] finds, downloads and reads the MNIST files.
//! - [`idx`] reads the file format that MNIST comes in.
//!
//! # Examples
//!
//! ```
//! use releq_zoo::data::{Normalization, digits};
//!
//! let config = digits::DigitsConfig { train: 200, test: 50, ..Default::default() };
//! let data = digits::generate(&config)?;
//! let (train, validation) = data.train.split(40, 7)?;
//! let normalization = Normalization::measured(&train);
//!
//! let (mut images, mut labels) = (Vec::new(), Vec::new());
//! validation.gather(&[0, 1, 2], &normalization, &mut images, &mut labels);
//! assert_eq!((images.len(), labels.len()), (3 * 28 * 28, 3));
//! # Ok::<(), releq_zoo::data::DataError>(())
//! ```

pub mod digits;
mod error;
pub mod idx;
mod image_set;
pub mod mnist;

pub use error::DataError;
pub use image_set::{DataSet, ImageSet, Normalization};
