#![doc = include_str!("../README.md")]

pub mod data;
pub mod networks;
pub mod train;
