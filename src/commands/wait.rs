//! `ctr wait`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use engine::WaitCondition;
use std::process::ExitCode;

/// Wait until containers stop, then print their exit codes
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    context.for_each(&args.containers, |context, name| {
        let status = context.engine()?.wait(name, WaitCondition::NotRunning, None)?;
        let code = status.map(|status| status.code.to_string());
        // One may wait for the next: what is known is shown at once.
        if let Some(code) = &code {
            context.print(code)?;
            context.flush()?;
        }
        Ok(None)
    })
}
