//! `ctr volume prune`.

use super::pruning;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Remove volumes that no container uses
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Named volumes too, not just anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let what = match args.all {
        true => "all volumes not used by at least one container",
        false => "anonymous local volumes not used by at least one container",
    };
    pruning::prune(context, args.force, &[what], |context| pruning::volumes(context, args.all))
}
