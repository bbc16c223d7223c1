//! `ctr top`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::table::Table;
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

/// Show a container's processes
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The container
    container: String,
    /// Options of ps
    #[arg(value_name = "PS OPTIONS", allow_hyphen_values = true, hide = true)]
    ps_options: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    if !args.ps_options.is_empty() {
        return Err(CliError::flag("options of ps are not supported: the columns are those of 'ps -ef'"));
    }
    let top = context.engine()?.top(&args.container)?;
    let mut table = Table::new(top.titles);
    for row in top.processes {
        table.row(row);
    }
    let width = context.width();
    context.out().write_all(table.render(width).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
