//! `ctr create`.

use super::foreground::warn;
use super::pulling::create_or_pull;
use crate::context::Context;
use crate::error::CliError;
use crate::options::container::ContainerOptions;
use clap::Parser;
use std::process::ExitCode;

/// Create a container without starting it
#[derive(Parser, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    #[command(flatten)]
    options: ContainerOptions,
    /// The image, then the command and its arguments
    #[arg(value_names = ["IMAGE", "COMMAND"], required = true, num_args = 1..)]
    words: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let spec = args.options.spec(&args.words, false, context)?;
    let created = create_or_pull(context, &spec, &args.options)?;
    warn(context, &created.warnings);
    context.print(&created.id)?;
    Ok(ExitCode::SUCCESS)
}
