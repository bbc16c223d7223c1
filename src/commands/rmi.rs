//! `ctr rmi`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use engine::ListFilter;
use std::collections::BTreeSet;
use std::process::ExitCode;
use store::Removed;

/// Remove images
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Remove it though stopped containers use it or it has several names; a missing one is no error
    #[arg(short, long)]
    force: bool,
    /// Keep layers that nothing uses any more
    #[arg(long)]
    no_prune: bool,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let running: BTreeSet<String> = running(context)?;
    let code = context.for_each(&args.images, |context, name| {
        let removed = context.engine()?.store().remove_image(name, args.force, &|id| running.contains(id));
        match removed {
            Ok(removed) => {
                print_removed(context, &removed)?;
                Ok(None)
            }
            Err(error) if args.force && error.is_not_found() => {
                context.flush()?;
                context.report(&error.into());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })?;
    if !args.no_prune {
        context.flush()?;
        context.engine()?.store().collect_garbage()?;
    }
    Ok(code)
}

/// The ids of the containers that run.
pub(crate) fn running(context: &Context) -> Result<BTreeSet<String>, CliError> {
    let list = context.engine()?.list(&ListFilter { all: false, size: false })?;
    Ok(list.into_iter().filter(|c| c.status.is_active()).map(|c| c.id).collect())
}

/// Docker's lines for what went.
pub(crate) fn print_removed(context: &mut Context, removed: &[Removed]) -> Result<(), CliError> {
    for one in removed {
        match one {
            Removed::Untagged(name) => context.print(format_args!("Untagged: {name}"))?,
            Removed::Deleted(digest) => context.print(format_args!("Deleted: {digest}"))?,
        }
    }
    Ok(())
}
