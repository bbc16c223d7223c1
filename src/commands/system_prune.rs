//! `ctr system prune`.

use super::pruning;
use crate::context::Context;
use crate::error::CliError;
use builder::CachePrune;
use clap::Parser;
use std::process::ExitCode;

/// Remove what nothing uses: stopped containers, images without a name, the build cache
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// All images that no container uses, and all of the build cache
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
    /// Anonymous volumes too
    #[arg(long)]
    volumes: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    pruning::prune(context, args.force, &what(&args), |context| {
        pruning::containers(context)?;
        if args.volumes {
            pruning::volumes(context, false)?;
        }
        pruning::images(context, args.all)?;
        pruning::build_cache(context, &CachePrune { all: args.all, ..CachePrune::default() }, &|_| true)
    })
}

fn what(args: &Args) -> Vec<&'static str> {
    let mut lines = vec!["all stopped containers"];
    if args.volumes {
        lines.push("all anonymous volumes not used by at least one container");
    }
    lines.push(match args.all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    });
    lines.push(if args.all { "all build cache" } else { "unused build cache" });
    lines
}
