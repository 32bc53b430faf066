//! Searches the bitwidths of LeNet: pretrains it, runs the agent, and retrains what it found.
//!
//! ```text
//! cargo run --example lenet_mnist
//! cargo run --example lenet_mnist -- --evaluations 30
//! ```
//!
//! This is `releq search lenet` with the options given: `-- --help` lists them. It looks for MNIST in the folder that
//! `RELEQ_DATA_DIR` names and in the user's cache folder; `--download` fetches it. Without MNIST it draws digits. The
//! run is kept in a folder under `runs/`: interrupted or killed, the same command goes on.

use std::{env, ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let command = ["releq", "search", "lenet"].map(OsString::from);
    releq_cli::run(command.into_iter().chain(env::args_os().skip(1)))
}
