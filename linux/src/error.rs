//! The error of a failed system call: which call, on what, and the kernel's answer.

use rustix::io::Errno;
use std::path::Path;

/// A system call that failed. Reads `mount_setattr /dev/null: Operation not permitted (os error 1)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}{}{target}: {errno}", if target.is_empty() { "" } else { " " })]
pub struct CallError {
    /// The system call's name.
    pub call: &'static str,
    /// What it was called on: a path, an option, or nothing.
    pub target: String,
    /// The kernel's answer.
    pub errno: Errno,
}

impl CallError {
    /// `call` on `target` answered `errno`.
    pub fn new(call: &'static str, target: impl Into<String>, errno: Errno) -> CallError {
        CallError { call, target: target.into(), errno }
    }

    /// `call` on a path answered `errno`.
    pub fn path(call: &'static str, path: impl AsRef<Path>, errno: Errno) -> CallError {
        CallError::new(call, path.as_ref().to_string_lossy(), errno)
    }

    /// The error of the raw call that just returned -1.
    pub(crate) fn last(call: &'static str, target: impl Into<String>) -> CallError {
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        CallError::new(call, target, Errno::from_raw_os_error(code))
    }
}

impl From<CallError> for std::io::Error {
    fn from(error: CallError) -> std::io::Error {
        std::io::Error::new(std::io::Error::from(error.errno).kind(), error)
    }
}
