//! Why a build failed, with the line of the Containerfile that is to blame.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A place in a Containerfile, with the text that stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// The Containerfile's name.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// The line itself.
    pub text: String,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text.trim_end())
    }
}

/// Why a build failed. Displayed it is one line; [`BuildError::source_line`], [`BuildError::hint`] and
/// [`BuildError::output_tail`] are there to be shown below.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Containerfile is wrong: a syntax error, an unknown instruction, a stage that doesn't exist.
    #[error("{at}: {message}", at = Place(.at))]
    Containerfile {
        /// What is wrong.
        message: String,
        /// Where.
        at: Option<SourceLine>,
        /// What to do.
        hint: Option<String>,
    },
    /// A RUN's process failed.
    #[error("{at}: process {command:?} did not complete successfully: exit code: {code}", at = Place(&Some(.at.clone())))]
    Run {
        /// The arguments joined by spaces.
        command: String,
        /// Its exit code; 128+n for a signal.
        code: i32,
        /// The RUN.
        at: SourceLine,
        /// The last lines it wrote.
        output_tail: Vec<String>,
    },
    /// The context could not be fetched.
    #[error("{message}")]
    Context {
        /// What is wrong.
        message: String,
    },
    /// A step could not be carried out: a missing COPY source, an unknown user.
    #[error("{at}: {message}", at = Place(&Some(.at.clone())))]
    Step {
        /// What is wrong.
        message: String,
        /// The instruction.
        at: SourceLine,
        /// What to do.
        hint: Option<String>,
    },
    /// The result, or the cache, could not be written where it was asked for.
    #[error("{message}")]
    Output {
        /// What is wrong.
        message: String,
    },
    /// No recipe to build from.
    #[error("{message}")]
    NoContainerfile {
        /// Names the files looked for.
        message: String,
    },
    /// A file of the host could not be read or written.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// The verb: `read`, `open`.
        operation: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// `file:line` in front of a message, nothing where there is no place.
struct Place<'a>(&'a Option<SourceLine>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => write!(f, "{}:{}", at.file, at.line),
            None => f.write_str("Containerfile"),
        }
    }
}

impl BuildError {
    /// The Containerfile line that is to blame.
    pub fn source_line(&self) -> Option<&SourceLine> {
        match self {
            BuildError::Containerfile { at, .. } => at.as_ref(),
            BuildError::Run { at, .. } | BuildError::Step { at, .. } => Some(at),
            BuildError::NoContainerfile { .. }
            | BuildError::Output { .. }
            | BuildError::Context { .. }
            | BuildError::Io { .. } => None,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            BuildError::Containerfile { hint, .. } | BuildError::Step { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }

    /// The last lines a failed RUN wrote.
    pub fn output_tail(&self) -> &[String] {
        match self {
            BuildError::Run { output_tail, .. } => output_tail,
            _ => &[],
        }
    }
}
