//! One error type: the host, what it was asked for, why that failed, and a hint where there is one.

use oci::{Digest, ManifestError, Platform};
use std::fmt;

/// A failed operation on a registry.
#[derive(Debug)]
pub struct RegistryError {
    host: Box<str>,
    what: Box<str>,
    cause: Cause,
    hint: Option<Box<str>>,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The registry answered with an error status.
    #[error("{}", describe(*.status, .code.as_deref(), .message))]
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
    /// The certificate is signed by nobody we trust, has expired, or is for another name.
    #[error("its certificate is not trusted: {0}")]
    Certificate(String),
    /// Plain http where https was spoken.
    #[error("the registry answered in plain http to an https request")]
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
    /// The configuration forbids it.
    #[error("the registry is blocked in {}", .0.display())]
    Blocked(std::path::PathBuf),
    /// An index that names nothing for the platform.
    #[error("no matching manifest for {wanted} in the manifest list entries: it has {has}")]
    Platform {
        /// Asked for.
        wanted: Box<Platform>,
        /// What there is, in words.
        has: String,
    },
    /// The credentials could not be read.
    #[error(transparent)]
    Credentials(#[from] crate::CredentialError),
    /// The answer breaks the protocol, or asks for what is refused.
    #[error("{0}")]
    Protocol(String),
    /// Our own side of an upload could not be read.
    #[error("reading the content to send: {0}")]
    Source(std::io::Error),
    /// Our own side of a download could not be written.
    #[error("writing the content: {0}")]
    Sink(std::io::Error),
}

impl RegistryError {
    pub(crate) fn new(host: &str, what: &str, cause: Cause) -> RegistryError {
        let hint = hint(host, &cause).map(String::into_boxed_str);
        RegistryError { host: host.into(), what: what.into(), cause, hint }
    }

    pub(crate) fn with_hint(mut self, hint: String) -> RegistryError {
        self.hint = Some(hint.into());
        self
    }

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
        // Most references name their registry already.
        if !self.what.contains(&*self.host) {
            write!(f, "{}: ", self.host)?;
        }
        write!(f, "cannot {}: {}", self.what, self.cause)
    }
}

impl std::error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Source(error) | Cause::Sink(error) => Some(error),
            _ => None,
        }
    }
}

fn hint(host: &str, cause: &Cause) -> Option<String> {
    match cause {
        Cause::PlainHttp => Some(format!("if {host} is meant to speak plain http, use --tls-verify=false")),
        Cause::Certificate(why) if why.contains("UnknownIssuer") => Some(format!(
            "put the certificate of its authority into /etc/containers/certs.d/{host}/ca.crt, or use --tls-verify=false"
        )),
        Cause::Status { status: 401, .. } => Some(format!("log in first: ctr login {host}")),
        Cause::Status { status: 429, .. } => {
            Some(format!("the registry limits how often it is asked: wait, or log in: ctr login {host}"))
        }
        _ => None,
    }
}

fn describe(status: u16, code: Option<&str>, message: &str) -> String {
    let name = match status {
        400 => "bad request",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not found",
        405 => "not supported",
        413 => "too large",
        429 => "too many requests",
        500..=599 => "server error",
        _ => "unexpected answer",
    };
    match (code, message) {
        (None, "") => format!("{name} ({status})"),
        (None, message) => format!("{name} ({status}): {message}"),
        (Some(code), "") => format!("{name} ({status} {code})"),
        (Some(code), message) => format!("{name} ({status} {code}): {message}"),
    }
}

/// Text from outside made fit for one line of a terminal: control characters and runs of white space become
/// one space, and it ends after `limit` characters.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for character in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if character == ' ' && (out.is_empty() || out.ends_with(' ')) {
            continue;
        }
        if out.chars().count() >= limit {
            out.push('…');
            break;
        }
        out.push(character);
    }
    out.trim_end().to_owned()
}

/// Finds code and message in an error answer: the distribution API's list, or what token services send.
pub(crate) fn status_cause(status: u16, body: &[u8]) -> Cause {
    #[derive(serde::Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(default)]
        details: Option<String>,
        #[serde(default)]
        error: Option<String>,
        #[serde(default)]
        error_description: Option<String>,
        #[serde(default)]
        message: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(answer) = serde_json::from_slice::<Errors>(body) else {
        return Cause::Status { status, code: None, message: String::new() };
    };
    let (code, message) = match answer.errors.into_iter().next() {
        Some(first) => (Some(first.code), first.message),
        None => {
            let words = answer.error_description.or(answer.details).or(answer.message);
            (answer.error, words.unwrap_or_default())
        }
    };
    let code = code.map(|c| one_line(&c, 60)).filter(|c| !c.is_empty());
    Cause::Status { status, code, message: one_line(&message, 300) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_words_come_through_on_one_line() {
        let body = br#"{"errors":[{"code":"DENIED","message":"requested access\n\u001b[31mto the resource is denied","detail":[]}]}"#;
        assert_eq!(
            status_cause(403, body).to_string(),
            "forbidden (403 DENIED): requested access [31mto the resource is denied"
        );
        assert_eq!(
            status_cause(401, br#"{"details":"incorrect username or password"}"#).to_string(),
            "unauthorized (401): incorrect username or password"
        );
        assert_eq!(status_cause(502, b"<html>").to_string(), "server error (502)");
        assert_eq!(status_cause(404, br#"{"errors":[]}"#).to_string(), "not found (404)");
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(one_line("aaa bbb", 3), "aaa…");
        assert_eq!(one_line("  a \r\n b ", 10), "a b");
    }
}
