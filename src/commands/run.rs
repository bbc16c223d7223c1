//! `ctr run`.

use super::foreground::{exit_code, warn};
use super::pulling::create_or_pull;
use crate::context::{Context, with_exit_code};
use crate::error::{CliError, ENGINE_FAILED};
use crate::options::container::ContainerOptions;
use crate::terminal::{DetachKeys, Ended, Session};
use clap::Parser;
use std::process::ExitCode;

/// Create a container from an image and run a command in it
#[derive(Parser, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the container running: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass signals on to the container's program
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true")]
    sig_proxy: bool,
    #[command(flatten)]
    options: ContainerOptions,
    /// The image, then the command and its arguments
    #[arg(value_names = ["IMAGE", "COMMAND"], required = true, num_args = 1..)]
    words: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    if args.detach && !args.options.attach.is_empty() {
        return Err(CliError::flag("conflicting options: cannot specify both --attach and --detach"));
    }
    let spec = args.options.spec(&args.words, args.detach, context)?;
    let keys = DetachKeys::parse(args.detach_keys.as_deref()).map_err(CliError::flag)?;
    let [stdin, stdout, stderr] = spec.attach;
    let session = match args.detach {
        true => None,
        false => Some(Session::new(stdin, spec.tty, args.sig_proxy, keys).map_err(|e| e.with_code(1))?),
    };
    let created = create_or_pull(context, &spec, &args.options)?;
    warn(context, &created.warnings);
    let Some(mut session) = session else {
        let started = context.engine()?.start(&created.id, None).map_err(|e| undo(context, &args, &created.id, e))?;
        warn(context, &started.warnings);
        context.print(&created.id)?;
        return Ok(ExitCode::SUCCESS);
    };
    session.catch_signals()?;
    let attach = session.options(stdout, stderr);
    let started = context.engine()?.start(&created.id, Some(attach)).map_err(|e| undo(context, &args, &created.id, e))?;
    warn(context, &started.warnings);
    let Some(attached) = started.attached else {
        return Err(CliError::new("the engine did not attach to the container").with_code(ENGINE_FAILED));
    };
    let ended = session.run(attached, context).map_err(|e| match e.to_string().is_empty() {
        true => e,
        false => e.with_code(ENGINE_FAILED),
    })?;
    if matches!(ended, Ended::OutputClosed) && args.options.rm {
        // Nobody can see its output any more, and nobody would remove it: as a pipe's end would, this ends it.
        let _ = context.engine()?.remove(&created.id, true, true);
    }
    exit_code(ended)
}

/// A container that could not be started stays, as docker's does, unless it was to be removed anyway.
fn undo(context: &Context, args: &Args, id: &str, error: engine::EngineError) -> CliError {
    // A container whose program was never tried (a taken port, a missing source) is half made; one whose program is at
    // fault stays to be looked at, as docker has it.
    let half_made = error.exit_code() == 125;
    if (args.options.rm || half_made) && let Ok(engine) = context.engine() {
        // It may be gone already.
        let _ = engine.remove(id, true, true);
    }
    let made = with_exit_code(error);
    if made.code() == 1 { made.with_code(ENGINE_FAILED) } else { made }
}
