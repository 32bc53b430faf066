#![doc = include_str!("../README.md")]

pub mod args;
mod cli;
mod commands;
pub mod terminal;

pub use cli::{main, run};
