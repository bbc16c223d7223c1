//! `ctr container prune`.

use super::pruning;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Remove all stopped containers
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    pruning::prune(context, args.force, &["all stopped containers"], pruning::containers)
}
