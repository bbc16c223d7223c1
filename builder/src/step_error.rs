//! Why a step failed, before it is known which line of the Containerfile it stands on.

use crate::error::{BuildError, SourceLine};
use crate::expand::ExpandError;
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything a step does.
pub(crate) type StepResult<T> = Result<T, StepError>;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("{message}")]
    Wrong { message: String, hint: Option<String> },
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Expand(#[from] ExpandError),
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    #[error(transparent)]
    Call(#[from] linux::CallError),
    #[error("process {command:?} did not complete successfully: exit code: {code}")]
    Run { command: String, code: i32, output_tail: Vec<String> },
    /// Files are asked of layers of which no more is known than what they are; nobody sees it, the stage is built.
    #[error("its files are not here")]
    NotHere,
    /// It already knows its line.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Another stage failed; that error is the one to show.
    #[error("cancelled: another stage failed")]
    Cancelled,
}

impl StepError {
    pub(crate) fn wrong(message: impl Into<String>) -> StepError {
        StepError::Wrong { message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> StepError {
        StepError::Wrong { message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn io(operation: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> StepError {
        StepError::Io { operation, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// The error a user sees, with the line it happened on.
    pub(crate) fn at(self, line: SourceLine) -> BuildError {
        match self {
            StepError::Build(error) => error,
            StepError::Run { command, code, output_tail } => BuildError::Run { command, code, at: line, output_tail },
            StepError::Wrong { message, hint } => BuildError::Step { message, at: line, hint },
            StepError::Engine(error) => {
                let hint = error.hint().map(str::to_owned);
                BuildError::Step { message: error.to_string(), at: line, hint }
            }
            other => BuildError::Step { message: other.to_string(), at: line, hint: None },
        }
    }
}
