//! File formats of data sets, the cache and downloads.

pub(crate) mod budget;
pub(crate) mod cache;
pub(crate) mod decode;
pub(crate) mod download;
pub mod idx;
pub(crate) mod matlab;
pub(crate) mod pickle;
pub(crate) mod planes;
pub(crate) mod resize;
