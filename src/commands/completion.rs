//! `ctr completion`.

use crate::context::Context;
use crate::dispatch::full_tree;
use crate::error::CliError;
use clap::Parser;
use clap_complete::Shell;
use std::io::Write;
use std::process::ExitCode;

/// Print a shell's completion script
///
/// To be loaded by the shell, for example: ctr completion bash > /etc/bash_completion.d/ctr
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let shell = match args.shell.as_str() {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut full_tree(), "ctr", &mut script);
    context.out().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
