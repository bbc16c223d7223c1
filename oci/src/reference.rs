//! Image references: `[host[:port]/]path[:tag][@digest]`, with docker's defaults.

use crate::{Digest, DigestError};
use std::fmt;
use std::str::FromStr;

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Repository names (host and path) end here: distribution's own limit.
const MAX_NAME_LEN: usize = 255;
const MAX_TAG_LEN: usize = 128;

/// A normalised image reference: the domain and, for docker.io, `library/` are always filled in,
/// and there is always a tag or a digest. [`fmt::Display`] is the canonical text
/// (`docker.io/library/busybox:latest`), [`Reference::familiar`] what people type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing at all.
    #[error("invalid reference format: the name is empty")]
    Empty,
    /// The repository has capitals.
    #[error("invalid reference format: repository name ({0}) must be lowercase: try {1:?}")]
    UpperCase(String, String),
    /// A part is not of the grammar.
    #[error("invalid reference format: {0:?}: {1}")]
    Format(String, &'static str),
    /// The part after `@`.
    #[error("invalid reference format: {0}")]
    Digest(#[from] DigestError),
}

impl Reference {
    /// The registry's name: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The host to connect to: docker.io answers at registry-1.docker.io.
    pub fn registry_host(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN { "registry-1.docker.io" } else { &self.domain }
    }

    /// The repository inside the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Domain and path: `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if one was given or defaulted.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest; where there is one it decides, and the tag is for display.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn tag_or_digest(&self) -> &str {
        match &self.digest {
            Some(digest) => digest.as_str(),
            None => self.tag.as_deref().unwrap_or(DEFAULT_TAG),
        }
    }

    /// The same repository at a digest, without a tag.
    pub fn at_digest(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), tag: None, ..self.clone() }
    }

    /// The repository as people write it: `busybox`, `user/app`, `localhost:5000/app`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        match self.path.strip_prefix("library/") {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as people write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.repository()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let format = |why| ReferenceError::Format(text.chars().take(MAX_NAME_LEN).collect(), why);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && !tag.contains(']') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(format("a tag is up to 128 letters, digits, '_', '.' and '-', the first no '.' or '-'"));
        }
        let (domain, path) = split_domain(name);
        if !is_domain(&domain) {
            return Err(format("the registry is no host name with an optional port"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::UpperCase(path.clone(), text.replacen(name, &name.to_lowercase(), 1)));
        }
        if path.is_empty() || !path.split('/').all(is_path_component) {
            return Err(format(
                "a repository is lower-case letters and digits, separated by '.', '_', '__', '-' or '/'",
            ));
        }
        if domain.len() + 1 + path.len() > MAX_NAME_LEN {
            return Err(format("the repository is longer than 255 characters"));
        }
        if name.len() == 64 && rest == text && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format("a repository may not look like an image id"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Reference { domain, path, tag, digest })
    }
}

/// Splits a name into its normalised domain and path.
fn split_domain(name: &str) -> (String, String) {
    let is_host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if matches!(domain, "index.docker.io" | "registry-1.docker.io") { DEFAULT_DOMAIN } else { domain };
    let official = domain == DEFAULT_DOMAIN && !path.contains('/');
    (domain.to_owned(), if official { format!("library/{path}") } else { path.to_owned() })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !tag.is_empty()
        && tag.len() <= MAX_TAG_LEN
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        && tag.bytes().next().is_some_and(word)
}

/// `host`, `host:port`, `1.2.3.4:port`, `[v6]:port`.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) => {
                return v6.parse::<std::net::Ipv6Addr>().is_ok()
                    && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
            }
            None => return false,
        },
        None => domain.split_once(':').map_or((domain, None), |(h, p)| (h, Some(p))),
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|p| p > 0) && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case alphanumeric runs joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_fine = bytes.first().copied().is_some_and(alphanumeric) && bytes.last().copied().is_some_and(alphanumeric);
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends_fine && separators.into_iter().all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn canonical(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|e| format!("error: {e}"), |r| r.to_string())
    }

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, expected) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("user/app:1", "docker.io/user/app:1"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("Host/app", "Host/app:latest"),
            ("a.b__c-d---e", "docker.io/library/a.b__c-d---e:latest"),
        ] {
            assert_eq!(canonical(text), expected);
        }
        assert_eq!(canonical(&format!("busybox@{DIGEST}")), format!("docker.io/library/busybox@{DIGEST}"));
        assert_eq!(canonical(&format!("busybox:1@{DIGEST}")), format!("docker.io/library/busybox:1@{DIGEST}"));
    }

    #[test]
    fn familiar_names_are_what_people_type() {
        for text in ["busybox:1", "user/app:1", "localhost:5000/app:x"] {
            assert_eq!(text.parse::<Reference>().map(|r| r.familiar()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_no_reference_says_why() {
        for bad in [
            "",
            ":",
            "a:",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a//b",
            "/a",
            "a/",
            "a:-x",
            "a b",
            "http://x/y",
            "x@sha256:12",
            "localhost:99999/x",
            "[zz]/x",
            &"a".repeat(300),
            &format!("a:{}", "t".repeat(129)),
            /* an image id: */ &"a".repeat(64),
        ] {
            let result = bad.parse::<Reference>();
            assert!(result.is_err(), "{bad:?} was taken as {result:?}");
        }
        assert!(canonical("user/App").contains("must be lowercase: try \"user/app\""));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_canonical_text_is_stable(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference.clone()));
                prop_assert_eq!(reference.familiar().parse::<Reference>(), Ok(reference));
            }
        }
    }
}
