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
    /// Options of the host's ps, whose table is to have a column PID; without any it is that of ps -ef
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    ps_options: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let top = context.engine()?.top(&args.container, &args.ps_options)?;
    let mut table = Table::new(top.titles);
    for row in top.processes {
        table.row(row);
    }
    let width = context.width();
    context.out().write_all(table.render(width).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
