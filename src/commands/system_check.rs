//! `ctr system check`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use engine::ListFilter;
use std::process::ExitCode;
use store::Store;

/// Look for damage in what is kept on the disk: reads and hashes all of it
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Mend what can be mended; remove what cannot be used any more
    #[arg(long)]
    repair: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    // Not the engine: it would not open a damaged database.
    let config = context.enter()?;
    let findings = Store::check(&config.root, &config.store, args.repair)?;
    for finding in &findings {
        context.print(format_args!("{}{}", finding.what, if finding.repaired { " (repaired)" } else { "" }))?;
    }
    let left = findings.iter().filter(|finding| !finding.repaired).count();
    if left == 0 {
        // Listing them settles the containers whose monitor was lost.
        context.engine()?.list(&ListFilter { all: true, size: false })?;
        context.print(if findings.is_empty() { "Nothing is wrong." } else { "All of it was repaired." })?;
        return Ok(ExitCode::SUCCESS);
    }
    let error = CliError::new(format!("{left} of {} findings are not repaired", findings.len()));
    Err(if args.repair { error } else { error.with_hint("ctr system check --repair mends what can be mended") })
}
