//! `ctr restart`.

use super::stop::side_by_side;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Stop containers and start them again
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds to wait before killing it; -1 waits without end
    #[arg(short, long, alias = "time", value_name = "SECONDS")]
    timeout: Option<i64>,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    side_by_side(context, &args.containers, |engine, name| engine.restart(name, args.signal.as_deref(), args.timeout))
}
