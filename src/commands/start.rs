//! `ctr start`.

use super::foreground::{exit_code, warn};
use crate::context::{Context, with_exit_code};
use crate::error::CliError;
use crate::terminal::{DetachKeys, Session};
use clap::Parser;
use std::process::ExitCode;

/// Start containers that don't run
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Attach to its output and pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Attach to its input
    #[arg(short, long)]
    interactive: bool,
    /// Keys that leave the container running: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on to the container's program
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", hide = true)]
    sig_proxy: bool,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let keys = DetachKeys::parse(args.detach_keys.as_deref()).map_err(CliError::flag)?;
    if !args.attach && !args.interactive {
        return context.for_each(&args.containers, |context, name| {
            let started = context.engine()?.start(name, None)?;
            warn(context, &started.warnings);
            Ok(Some(name.to_owned()))
        });
    }
    let [name] = &args.containers[..] else {
        return Err(CliError::new("you cannot start and attach multiple containers at once"));
    };
    let config = super::inspection::container(context, name, false)?;
    let has = |field: &str| config["Config"][field].as_bool().unwrap_or_default();
    let mut session = Session::new(args.interactive && has("OpenStdin"), has("Tty"), args.sig_proxy, keys)?;
    session.catch_signals()?;
    let started = context.engine()?.start(name, Some(session.options(true, true))).map_err(with_exit_code)?;
    warn(context, &started.warnings);
    match started.attached {
        Some(attached) => exit_code(session.run(attached, context)?),
        None => Ok(ExitCode::SUCCESS),
    }
}
