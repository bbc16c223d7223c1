//! Asking the user: a line, or a password that does not show.

use crate::error::CliError;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};

/// Asks for a line on the terminal.
pub(crate) fn line(question: &str) -> Result<String, CliError> {
    let terminal = open(question)?;
    ask(&terminal, question)
}

/// The same, without showing what is typed.
pub(crate) fn password(question: &str) -> Result<String, CliError> {
    let terminal = open(question)?;
    let hidden = Hidden::enter(terminal);
    let answer = ask(&hidden.terminal, question);
    let _ = writeln!(&hidden.terminal);
    answer
}

/// The terminal itself: standard input may be something else.
fn open(question: &str) -> Result<File, CliError> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        CliError::new(format!("cannot ask for {}: no terminal", question.trim_end_matches([':', ' '])))
            .with_hint("give it by a flag, a password by --password-stdin")
    })
}

fn ask(terminal: &File, question: &str) -> Result<String, CliError> {
    let fail = |e: io::Error| CliError::io("read from", "the terminal", &e);
    let mut out = terminal;
    out.write_all(question.as_bytes()).map_err(fail)?;
    let mut answer = String::new();
    if BufReader::new(terminal).read_line(&mut answer).map_err(fail)? == 0 {
        return Err(CliError::new("nothing was typed"));
    }
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not echo, put right again on drop.
struct Hidden {
    terminal: File,
    before: Option<Termios>,
}

impl Hidden {
    fn enter(terminal: File) -> Hidden {
        let before = tcgetattr(&terminal).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            // ctrl-C while it is hidden must not leave the shell without echo: then it is a plain key that ends the line.
            quiet.local_modes.remove(LocalModes::ISIG);
            let _ = tcsetattr(&terminal, OptionalActions::Flush, &quiet);
        }
        Hidden { terminal, before }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.terminal, OptionalActions::Flush, before);
        }
    }
}

/// Asks whether to go on; anything but `y` is no.
pub(crate) fn confirm(warning: &str) -> Result<bool, CliError> {
    let mut out = io::stderr();
    write!(out, "{warning}\nAre you sure you want to continue? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|e| CliError::io("read from", "standard input", &e))?;
    Ok(answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes"))
}
