//! File formats of data sets, the cache and downloads.

mod budget;
pub mod bundle;
pub(crate) mod cache;
pub(crate) mod decode;
pub(crate) mod download;
pub mod idx;
mod jpeg;
pub(crate) mod matlab;
pub mod npz;
pub(crate) mod open;
pub(crate) mod pickle;
pub(crate) mod planes;
mod resize;
mod webp;
