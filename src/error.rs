//! What a command fails with: one line of what and why, perhaps a hint, and the exit code.
//! `main` alone prints it.

use std::fmt;
use std::io;

/// The engine failed before the container's process ran; also every bad flag.
pub(crate) const ENGINE_FAILED: u8 = 125;
/// Libraries hand the kernel's words on from many depths; the advice is the same for all.
const FULL_DISK_HINT: &str =
    "free some space, with ctr rm, ctr image rm or ctr image prune, or keep the data elsewhere with --root";

/// A failed command. Displayed it is one line without a prefix.
#[derive(Debug)]
pub(crate) struct CliError {
    message: String,
    hint: Option<String>,
    code: u8,
    broken_pipe: bool,
    not_found: bool,
}

impl CliError {
    /// An error of exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> CliError {
        CliError { message: without_numbers(message.into()), hint: None, code: 1, broken_pipe: false, not_found: false }
    }

    /// A flag that is unknown or has a bad value: exit code 125.
    pub(crate) fn flag(message: impl Into<String>) -> CliError {
        CliError::new(message).with_code(ENGINE_FAILED)
    }

    /// `operation` on `subject` failed: `cannot read /x: No such file or directory`.
    pub(crate) fn io(operation: &str, subject: impl fmt::Display, error: &io::Error) -> CliError {
        let mut made = CliError::new(format!("cannot {operation} {subject}: {error}"));
        made.broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        made
    }

    /// Everything that had to be said was said already; only the exit code is left.
    pub(crate) fn reported(code: u8) -> CliError {
        CliError::new("").with_code(code)
    }

    /// With what the user can do about it.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> CliError {
        self.hint = Some(hint.into());
        self
    }

    /// With another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> CliError {
        self.code = code;
        self
    }

    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<&str> {
        let full = ["No space left on device", "Disk quota exceeded", "database or disk is full"];
        let is_full = || full.iter().any(|words| self.message.contains(words));
        self.hint.as_deref().or_else(|| is_full().then_some(FULL_DISK_HINT))
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// What was asked for by name is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.not_found
    }

    /// Whoever read our output has gone: nothing to complain about.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.broken_pipe
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The text without Rust's ` (os error 2)`, which says the same again.
pub(crate) fn without_numbers(mut text: String) -> String {
    while let Some(start) = text.find(" (os error ")
        && let Some(length) = text[start..].find(')')
    {
        text.replace_range(start..=start + length, "");
    }
    text
}

/// Writing to standard output or standard error failed.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> CliError {
        CliError::io("write to", "the output", &error)
    }
}

impl From<store::StoreError> for CliError {
    fn from(error: store::StoreError) -> CliError {
        CliError { not_found: error.is_not_found(), ..CliError::new(error.to_string()) }
    }
}

impl From<engine::EngineError> for CliError {
    /// As every command but run, create and exec has it: exit code 1.
    fn from(error: engine::EngineError) -> CliError {
        let mut made = CliError::new(error.to_string());
        made.not_found = matches!(&error, engine::EngineError::Store(error) if error.is_not_found());
        made.hint = error.hint().map(str::to_owned);
        made
    }
}
