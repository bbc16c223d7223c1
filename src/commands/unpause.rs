//! `ctr unpause`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Let frozen containers go on
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    context.for_each(&args.containers, |context, name| {
        context.engine()?.unpause(name)?;
        Ok(Some(name.to_owned()))
    })
}
