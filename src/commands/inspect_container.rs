//! `ctr container inspect`.

use super::inspection;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Show everything about containers
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, or a template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Compute sizes
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let sizes = args.size;
    inspection::print(context, &args.names, args.format.as_deref(), |context, name| inspection::container(context, name, sizes))
}
