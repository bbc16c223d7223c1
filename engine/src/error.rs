//! Why an engine operation failed, the exit code that goes with it, and what the user can do.

use std::io;
use std::path::{Path, PathBuf};

/// The result of every engine operation.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Why an operation failed. Each reads as one line.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The container is not running.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The container runs, so it can't be removed.
    #[error(
        "cannot remove container \"{0}\": container is running: stop the container before removing or force remove"
    )]
    Running(String),
    /// The container's state forbids it: `container x is already paused`.
    #[error("{0}")]
    State(String),
    /// The container could not be made or its program not be run; the code is docker's 125, 126 or 127.
    #[error("{message}")]
    Start {
        /// What to exit with.
        exit_code: u8,
        /// One line.
        message: String,
    },
    /// The monitor is gone or does not answer.
    #[error("container {id}: {reason}")]
    Monitor {
        /// The container.
        id: String,
        /// What it did not do.
        reason: String,
    },
    /// The network.
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
    /// Images, layers, containers, volumes.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// A registry that does not give an image away, or does not have it: they don't tell which.
    #[error("pull access denied for {name}, repository does not exist or may require a login: {source}")]
    PullDenied {
        /// The repository as people write it.
        name: String,
        /// What the registry said.
        source: Box<registry_client::RegistryError>,
    },
    /// A registry.
    #[error(transparent)]
    Registry(#[from] registry_client::RegistryError),
    /// The files that say where registries' names lead.
    #[error("cannot use {0}")]
    Rules(#[from] registry_client::RulesError),
    /// The files that logins are kept in.
    #[error(transparent)]
    Credentials(#[from] registry_client::CredentialError),
    /// A system call.
    #[error(transparent)]
    Call(#[from] linux::CallError),
    /// A file of the engine's own state.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// The verb.
        operation: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl EngineError {
    /// What `run`, `create`, `exec` and `start -a` exit with: 125, or 126 and 127 where the program is to blame.
    pub fn exit_code(&self) -> u8 {
        match self {
            EngineError::Start { exit_code, .. } => *exit_code,
            EngineError::Runtime(error) => error.exit_code(),
            _ => 125,
        }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&str> {
        match self {
            EngineError::Registry(error) => error.hint(),
            EngineError::PullDenied { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// The image is not in the store: it may be in a registry.
    pub fn is_missing_image(&self) -> bool {
        matches!(self, EngineError::Store(store::StoreError::NoSuchImage(_)))
    }

    pub(crate) fn io(operation: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> EngineError {
        EngineError::Io { operation, path: path.as_ref().to_owned(), source: source.into() }
    }
}
