//! The program `releq`.

use std::process::ExitCode;

/// The agent allocates many tensors of some hundred kilobytes, whose memory the C library's allocator gives back to the
/// system after each use: a quarter of its time went into page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    releq_cli::main()
}
