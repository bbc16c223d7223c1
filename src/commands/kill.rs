//! `ctr kill`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Send a signal to running containers
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    context.for_each(&args.containers, |context, name| {
        context.engine()?.kill(name, &args.signal)?;
        Ok(Some(name.to_owned()))
    })
}
