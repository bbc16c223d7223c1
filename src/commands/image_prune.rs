//! `ctr image prune`.

use super::pruning;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Remove images that have no name
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// All images that no container uses, not just those without a name
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let what =
        if args.all { "all images without at least one container associated to them" } else { "all dangling images" };
    pruning::prune(context, args.force, &[what], |context| pruning::images(context, args.all))
}
