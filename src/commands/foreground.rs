//! What `run`, `start -a`, `attach` and `exec` share: how a foreground session ends.

use crate::context::Context;
use crate::error::{CliError, ENGINE_FAILED};
use crate::terminal::Ended;
use std::process::ExitCode;

/// The command's own exit code for the way a session ended.
pub(crate) fn exit_code(ended: Ended) -> Result<ExitCode, CliError> {
    match ended {
        Ended::Exit(status) if !status.error.is_empty() => {
            Err(CliError::new(status.error).with_code(u8::try_from(status.code).unwrap_or(ENGINE_FAILED)))
        }
        Ended::Exit(status) => Ok(crate::exit_code(status.code)),
        Ended::Detached | Ended::OutputClosed => Ok(ExitCode::SUCCESS),
        Ended::Lost => Err(CliError::new("the connection to the container was lost: its monitor is gone")
            .with_hint("see 'ctr ps -a' for what became of it")
            .with_code(ENGINE_FAILED)),
    }
}

/// Warnings of the engine, where the user sees them.
pub(crate) fn warn(context: &Context, warnings: &[String]) {
    for warning in warnings {
        context.warn(warning);
    }
}
