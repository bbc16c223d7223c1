//! One error type: the host, what it was asked for, why that failed, and a hint where there is one.

use oci::{Digest, ManifestError};
use std::fmt;

/// A failed operation on a registry.
#[derive(Debug)]
pub struct RegistryError {
    pub(crate) host: String,
    pub(crate) what: String,
    pub(crate) cause: Cause,
    pub(crate) hint: Option<String>,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The registry answered with an error status.
    #[error("{status}{}", describe(.code.as_deref(), .message))]
    Status {
        /// HTTP status.
        status: u16,
        /// The registry's own code, such as `MANIFEST_UNKNOWN`.
        code: Option<String>,
        /// The registry's own words, on one line.
        message: String,
    },
    /// No connection, or a broken one.
    #[error("{0}")]
    Connection(String),
    /// Nothing came for too long.
    #[error("timed out ({0})")]
    Timeout(String),
    /// The certificate is signed by nobody we trust.
    #[error("its certificate is not trusted: {0}")]
    Certificate(String),
    /// Plain http where https was spoken.
    #[error("the registry answered plain http to an https request")]
    PlainHttp,
    /// Content that is not what its digest says.
    #[error("the content's digest is {actual}, expected {expected}")]
    Digest {
        /// Asked for.
        expected: Digest,
        /// Received.
        actual: Digest,
    },
    /// More bytes than allowed.
    #[error("the answer is larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// A manifest that is none.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The credentials could not be read.
    #[error(transparent)]
    Credentials(#[from] crate::CredentialError),
    /// The answer breaks the protocol, or asks for what is refused.
    #[error("{0}")]
    Protocol(String),
    /// Our own side of an upload could not be read.
    #[error("reading the content to send: {0}")]
    Source(std::io::Error),
}

impl RegistryError {
    /// The registry that was asked.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Why it failed.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The HTTP status, if it came to one.
    pub fn status(&self) -> Option<u16> {
        match &self.cause {
            Cause::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The registry has no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The registry wants (other) credentials.
    pub fn is_denied(&self) -> bool {
        matches!(self.status(), Some(401 | 403))
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.host, self.what, self.cause)
    }
}

impl std::error::Error for RegistryError {}

fn describe(code: Option<&str>, message: &str) -> String {
    match (code, message) {
        (None, "") => String::new(),
        (None, message) => format!(" ({message})"),
        (Some(code), "") => format!(" ({code})"),
        (Some(code), message) => format!(" ({code}: {message})"),
    }
}
