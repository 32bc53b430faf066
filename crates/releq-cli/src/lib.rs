#![doc = include_str!("../README.md")]

pub mod args;
mod cli;
mod commands;
pub mod page;
pub mod plot;
pub mod tensorboard;
pub mod terminal;

pub use cli::{main, run};
