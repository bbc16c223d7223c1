//! Why a container could not be made, and the exit code that goes with it.

use linux::CallError;
use std::io;
use std::path::PathBuf;

/// Why the runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The caller has threads; a forked copy of it could hang on their locks.
    #[error("a container can be made by a single-threaded process only (this one has {0} threads)")]
    Threads(usize),
    /// The spec asks for something that is wrong or not supported.
    #[error("invalid container spec: {0}")]
    Spec(String),
    /// The program is not there: docker's exit code 127.
    #[error("{0}")]
    NotFound(String),
    /// The program is there but can't be executed: docker's exit code 126.
    #[error("{0}")]
    NotExecutable(String),
    /// The container's init failed while it set itself up.
    #[error("container init: {0}")]
    Init(String),
    /// systemd could not be asked, or would not.
    #[error("systemd: {0}")]
    Systemd(String),
    /// A system call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A file could not be read or written.
    #[error("{operation} {}: {source}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A user or group could not be resolved.
    #[error(transparent)]
    User(#[from] crate::user::UserError),
}

impl RuntimeError {
    /// Docker's exit code for it: 127 not found, 126 not executable, 125 everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            RuntimeError::NotFound(_) => 127,
            RuntimeError::NotExecutable(_) => 126,
            _ => 125,
        }
    }

    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        RuntimeError::File { operation, path: path.into(), source: source.into() }
    }
}
