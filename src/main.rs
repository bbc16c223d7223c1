//! The `ctr` command. Everything that faces the user is here – arguments, the environment, the terminal, output and
//! exit codes – and nothing else is: what a command *does* stands in the crates it calls.
//!
//! The way of a command: [`dispatch`] finds its entry in the table of [`commands`] by the first words of the line;
//! [`arguments`] rewrites the words into a form without ambiguity; clap makes the command's `Args` of them; the
//! command's `run` calls the engine and writes to the [`context::Context`]. Only the one command's definition is
//! built on the way: a full tree of forty would cost half a millisecond of each `ctr run`.

mod arguments;
mod commands;
mod context;
mod dispatch;
mod error;
mod init;
mod options;
mod output;
mod terminal;

use context::Context;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = engine::hidden_mode(&words) {
        return exit_code(code);
    }
    let mut context = Context::new();
    let result =
        dispatch::run(words.get(1..).unwrap_or_default(), &mut context).and_then(|code| context.flush().map(|()| code));
    context.sweep();
    match result {
        Ok(code) => code,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // Whatever was printed before belongs before the error.
            let _ = context.flush();
            context.report(&error);
            ExitCode::from(error.code())
        }
    }
}

/// A process's exit code as our own.
fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}
