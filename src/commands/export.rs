//! `ctr export`.

use super::save;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write the files of a container as a tar
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The container, running or not
    container: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    save::write(args.output.as_deref(), |out| Ok(context.engine()?.export(&args.container, out)?))
}
