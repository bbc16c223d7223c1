//! `--build-context NAME=…`: what stands for a stage or an image of that name.

use crate::fetch::{GitContext, is_url};
use std::path::PathBuf;

/// Where a named context comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A folder of this machine.
    Folder(PathBuf),
    /// An image, by its name.
    Image(String),
    /// An image in a folder of OCI's layout.
    Layout {
        /// The folder.
        folder: PathBuf,
        /// Its tag or digest in there; empty for the only one.
        reference: String,
    },
    /// A git repository.
    Git(GitContext),
    /// A tar at an http or https address.
    Url(String),
}

/// Why a `--build-context` text is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid --build-context {text:?}: {reason}")]
pub struct ContextParseError {
    text: String,
    reason: &'static str,
}

impl NamedContext {
    /// Parses `NAME=FOLDER|docker-image://IMAGE|oci-layout://FOLDER[:TAG|@DIGEST]|URL`.
    pub fn parse(text: &str) -> Result<(String, NamedContext), ContextParseError> {
        let error = |reason| ContextParseError { text: text.to_owned(), reason };
        let (name, value) = text.split_once('=').ok_or_else(|| error("expected NAME=VALUE"))?;
        if name.is_empty() || value.is_empty() {
            return Err(error("expected NAME=VALUE"));
        }
        let image = ["docker-image://", "container-image://", "docker://"];
        let image = image.iter().find_map(|scheme| value.strip_prefix(scheme));
        let context = if let Some(image) = image {
            NamedContext::Image(image.to_owned())
        } else if let Some(rest) = value.strip_prefix("oci-layout://") {
            // A digest holds a colon itself.
            let (folder, reference) = match rest.split_once('@') {
                Some((folder, digest)) => (folder.rsplit_once(':').map_or(folder, |(folder, _)| folder), digest),
                None => rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((rest, "")),
            };
            NamedContext::Layout { folder: PathBuf::from(folder), reference: reference.to_owned() }
        } else if let Some(repository) = GitContext::parse(value) {
            NamedContext::Git(repository)
        } else if is_url(value) {
            NamedContext::Url(value.to_owned())
        } else if value.contains("://") {
            return Err(error("expected a folder, docker-image://, oci-layout://, a git repository or a URL"));
        } else {
            NamedContext::Folder(PathBuf::from(value))
        };
        Ok((name.to_owned(), context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_of_many_kinds() {
        let layout = |folder: &str, reference: &str| NamedContext::Layout {
            folder: PathBuf::from(folder),
            reference: reference.to_owned(),
        };
        for (text, expected) in [
            ("a=../x", NamedContext::Folder("../x".into())),
            ("a=docker-image://alpine:3", NamedContext::Image("alpine:3".into())),
            ("a=oci-layout:///x/y", layout("/x/y", "")),
            ("a=oci-layout://x/y:v1", layout("x/y", "v1")),
            ("a=oci-layout://x:v1@sha256:12", layout("x", "sha256:12")),
            ("a=https://h/x.tgz", NamedContext::Url("https://h/x.tgz".into())),
        ] {
            assert_eq!(NamedContext::parse(text), Ok(("a".to_owned(), expected)), "{text}");
        }
        assert!(matches!(NamedContext::parse("a=https://h/x.git"), Ok((_, NamedContext::Git(_)))));
        for bad in ["", "a", "=x", "a=", "a=ftp://x"] {
            assert!(NamedContext::parse(bad).is_err(), "{bad}");
        }
    }
}
