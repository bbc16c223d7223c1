//! `ctr rename`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Give a container another name
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The container
    container: String,
    /// Its new name
    new_name: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    context.engine()?.rename(&args.container, &args.new_name)?;
    Ok(ExitCode::SUCCESS)
}
