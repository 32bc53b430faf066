//! `releq completions`: what a shell needs to complete our options.

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, terminal::output::print};

/// Print the completions of a shell
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq completions bash > ~/.local/share/bash-completion/completions/releq
  releq completions zsh > ~/.zfunc/_releq
  releq completions fish > ~/.config/fish/completions/releq.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "releq", &mut script);
        print(String::from_utf8(script)?.trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}
