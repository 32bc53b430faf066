#![doc = include_str!("../README.md")]

mod access;
mod blobs;
mod connection;
mod engine;
mod error;
mod layout;
mod lease;
mod message;
mod retrains;
mod roster;
mod worker;

pub use access::{Access, Credentials};
pub use error::RemoteError;
pub use message::{Doing, PROTOCOL, Step, WorkerStatus, machine_kind};
pub use retrains::{RemoteConfig, RemoteWorkers};
pub use roster::{Roster, roster};
pub use worker::{Worker, WorkerConfig, WorkerEvent};
