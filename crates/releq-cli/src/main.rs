//! The program `releq`.

use std::process::ExitCode;

fn main() -> ExitCode {
    releq_cli::main()
}
