#![doc = include_str!("../README.md")]

pub mod checkpoint;
pub mod data;
pub mod networks;
pub mod train;
