//! The data sets, one file each.

pub mod arrays;
pub mod cifar10;
pub(crate) mod class_names;
pub mod digits;
pub mod image_folder;
pub mod mnist;
pub(crate) mod open;
pub(crate) mod published;
pub mod svhn;

pub(crate) use open::exists;
