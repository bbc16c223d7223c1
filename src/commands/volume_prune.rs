//! `ctr volume prune`.

use crate::context::Context;
use crate::error::CliError;
use crate::terminal::prompt;
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
    let what = if args.all { "all volumes" } else { "anonymous local volumes" };
    let warning = format!("WARNING! This will remove {what} not used by at least one container.");
    if !args.force && !prompt::confirm(&warning)? {
        return Ok(ExitCode::SUCCESS);
    }
    let store = context.engine()?.store();
    let mut names = Vec::new();
    for volume in store.volumes()? {
        if (args.all || volume.anonymous) && store.volume_users(&volume.name)?.is_empty() {
            names.push(volume.name);
        }
    }
    if !names.is_empty() {
        context.print("Deleted Volumes:")?;
    }
    context.for_each(&names, |context, name| {
        context.engine()?.store().remove_volume(name)?;
        Ok(Some(name.to_owned()))
    })
}
