//! `ctr volume rm`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Remove volumes that no container uses
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// A missing one is no error
    #[arg(short, long)]
    force: bool,
    /// The volumes
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    context.for_each(&args.volumes, |context, name| match context.engine()?.store().remove_volume(name) {
        Ok(()) => Ok(Some(name.to_owned())),
        Err(error) if args.force && error.is_not_found() => Ok(Some(name.to_owned())),
        Err(error) => Err(error.into()),
    })
}
