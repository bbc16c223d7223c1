//! `ctr volume inspect`.

use super::inspection;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Show everything about volumes
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, or a template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    inspection::print(context, &args.names, args.format.as_deref(), inspection::volume)
}
