//! Networks, data sets and training for bitwidth search.

pub mod data;
pub mod networks;
pub mod train;
