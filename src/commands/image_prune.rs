//! `ctr image prune`.

use super::rmi::{print_removed, running};
use crate::context::Context;
use crate::error::CliError;
use crate::output::units;
use crate::terminal::prompt;
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
    let what = if args.all { "all images without at least one container associated to them" } else { "all dangling images" };
    if !args.force && !prompt::confirm(&format!("WARNING! This will remove {what}."))? {
        return Ok(ExitCode::SUCCESS);
    }
    let running = running(context)?;
    let images = context.engine()?.store().images()?;
    for image in images.iter().filter(|i| i.containers == 0 && (args.all || i.is_dangling())) {
        let store = context.engine()?.store();
        let removed = store.remove_image(image.id.as_str(), true, &|id| running.contains(id))?;
        print_removed(context, &removed)?;
    }
    let freed = context.engine()?.store().collect_garbage()?;
    context.print(format_args!("Total reclaimed space: {}", units::size(freed.bytes)))?;
    Ok(ExitCode::SUCCESS)
}
