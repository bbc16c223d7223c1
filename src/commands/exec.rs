//! `ctr exec`.

use super::foreground::exit_code;
use crate::context::{Context, with_exit_code};
use crate::error::{CliError, ENGINE_FAILED};
use crate::options::env;
use crate::terminal::{DetachKeys, Session};
use clap::Parser;
use engine::ExecSpec;
use std::process::ExitCode;

/// Run a command in a running container
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the command running: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set an environment variable, or take it from the caller's (NAME alone)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command every privilege
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run as this user: name|uid[:group|gid]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The container, then the command and its arguments
    #[arg(value_names = ["CONTAINER", "COMMAND"], required = true, num_args = 2..)]
    words: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let Some((container, command)) = args.words.split_first() else {
        return Err(CliError::new("a container and a command are required"));
    };
    let keys = DetachKeys::parse(args.detach_keys.as_deref()).map_err(CliError::flag)?;
    let spec = ExecSpec {
        command: command.to_vec(),
        env: env::variables(&args.env_file, &args.env, &|name| context.env(name))?,
        user: args.user,
        workdir: args.workdir,
        tty: args.tty,
        open_stdin: args.interactive,
        privileged: args.privileged,
    };
    if args.detach {
        context.engine()?.exec(container, &spec, None).map_err(explained)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Without a terminal ctrl-C reaches us, not the program: unlike docker's, it is passed on and leaves nothing running.
    let mut session = Session::new(args.interactive, args.tty, !args.tty, keys)?;
    session.catch_signals()?;
    let attach = session.options(true, true);
    let handle =
        context.engine()?.exec(container, &spec, Some(attach)).map_err(explained)?;
    match handle.attached {
        Some(attached) => exit_code(session.run(attached, context)?),
        None => Err(CliError::new("the engine did not attach to the command").with_code(ENGINE_FAILED)),
    }
}

/// As docker: a container that is not there or not running is exit code 1, a program that can't run 126 or 127.
fn explained(error: engine::EngineError) -> CliError {
    let code = error.exit_code();
    let made = with_exit_code(error);
    if code == ENGINE_FAILED { made.with_code(1) } else { made }
}
