//! The command line as a whole.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::Parser;

use crate::{
    commands::Command,
    terminal::{exit_code, interrupt, output::printed},
};

/// Widest help; narrower terminals get narrower help.
const HELP_WIDTH: usize = 80;

/// Find how many bits each layer of a neural network needs
///
/// An agent chooses bitwidths, the network is quantized and retrained, and the agent is rewarded for accuracy first and
/// low cost second (ReLeQ, arXiv 1811.01704).
#[derive(Debug, Parser)]
#[command(
    name = "releq",
    version,
    max_term_width = HELP_WIDTH,
    after_help = "Examples:
  releq search
  releq search simplenet --data cifar10 --weights simplenet.pth --minutes 30
  releq resume runs/lenet-digits-1
  releq train lenet --data digits --output lenet.safetensors
  releq evaluate lenet --data digits --weights lenet.safetensors --bits 2,2,3,2
  releq cost lenet --bits 2,2,3,2
  releq import model.onnx --explain
  releq export runs/lenet-digits-1 --output lenet.onnx
  releq list networks

Results go to standard output, everything else to standard error. Exit codes:
0 done, 2 usage, 130 after Ctrl-C, 143 after SIGTERM, 1 anything else.
Set NO_COLOR to disable colors."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program with these arguments, of which the first is its own name, as if they had been typed. Results go
/// to standard output and errors to standard error.
#[must_use]
pub fn run<A: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = A>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => exit_code(|| -> Result<ExitCode> {
            interrupt::exit_at_once()?;
            cli.command.run()
        }),
        Err(error) => exit_code(|| -> Result<ExitCode> {
            let written = error.print();
            // Mistakes go to standard error, where it does not matter whether anybody reads them.
            if !error.use_stderr() {
                printed(written)?;
            }
            Ok(u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from))
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The same word takes the same kind of value in every command.
    #[test]
    fn options_mean_the_same_in_every_command() {
        let command = Cli::command();
        let mut seen = std::collections::BTreeMap::new();
        let nested = command.get_subcommands().flat_map(|command| command.get_subcommands());
        for subcommand in command.get_subcommands().chain(nested) {
            for argument in subcommand.get_arguments() {
                let Some(long) = argument.get_long() else { continue };
                let value = (
                    argument.get_value_parser().type_id(),
                    argument.get_value_names().map(<[_]>::to_vec),
                );
                let (first, expected) =
                    seen.entry(long.to_owned()).or_insert((subcommand.get_name(), value.clone()));
                assert_eq!(*expected, value, "--{long} of {first} and {}", subcommand.get_name());
            }
        }
        assert!(seen.len() > 30);
    }
}
