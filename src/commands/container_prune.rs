//! `ctr container prune`.

use crate::context::Context;
use crate::error::CliError;
use crate::terminal::prompt;
use clap::Parser;
use engine::ListFilter;
use std::process::ExitCode;

/// Remove all stopped containers
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    if !args.force && !prompt::confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(ExitCode::SUCCESS);
    }
    let list = context.engine()?.list(&ListFilter { all: true, size: true })?;
    let stopped: Vec<_> = list.iter().filter(|c| !c.status.is_active()).collect();
    let mut freed = 0;
    let ids: Vec<String> = stopped.iter().map(|c| c.id.clone()).collect();
    if !ids.is_empty() {
        context.print("Deleted Containers:")?;
    }
    let code = context.for_each(&ids, |context, id| {
        context.engine()?.remove(id, false, false)?;
        freed += stopped.iter().find(|c| c.id == id).and_then(|c| c.size_bytes).unwrap_or(0);
        Ok(Some(id.to_owned()))
    })?;
    if !ids.is_empty() {
        context.print("")?;
    }
    context.print(format_args!("Total reclaimed space: {}", crate::output::units::size(freed)))?;
    Ok(code)
}
