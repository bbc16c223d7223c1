//! `ctr image inspect`.

use super::inspection;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Show everything about images
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, or a template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    names: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    inspection::print(context, &args.names, args.format.as_deref(), inspection::image)
}
