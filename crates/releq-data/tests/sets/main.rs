//! Every data set from its files, whole, damaged and foreign.
//!
//! What needs real files is skipped where `RELEQ_DATA_DIR` is not set.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail loudly")]

mod cifar10;
mod image_folder;
mod image_listing;
mod mnist;
mod open;
mod svhn;
