//! `ctr attach`.

use super::foreground::exit_code;
use crate::context::Context;
use crate::error::CliError;
use crate::terminal::{DetachKeys, Session};
use clap::Parser;
use std::process::ExitCode;

/// Attach to a running container's input and output
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Don't attach to its input
    #[arg(long)]
    no_stdin: bool,
    /// Keys that leave the container running: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on to the container's program
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true")]
    sig_proxy: bool,
    /// The container
    container: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let keys = DetachKeys::parse(args.detach_keys.as_deref()).map_err(CliError::flag)?;
    let config = super::inspection::container(context, &args.container, false)?;
    if config["State"]["Paused"].as_bool() == Some(true) {
        return Err(CliError::new("You cannot attach to a paused container, unpause it first"));
    }
    if config["State"]["Running"].as_bool() == Some(false) {
        return Err(CliError::new("You cannot attach to a stopped container, start it first"));
    }
    let has = |field: &str| config["Config"][field].as_bool().unwrap_or_default();
    let stdin = !args.no_stdin && has("OpenStdin");
    let mut session = Session::new(stdin, has("Tty"), args.sig_proxy && !has("Tty"), keys)?;
    session.catch_signals()?;
    let attached = context.engine()?.attach(&args.container, session.options(true, true))?;
    exit_code(session.run(attached, context)?)
}
