//! What a build is asked for: everything the command line says, already parsed.

use crate::BuildError;
use oci::{Platform, Reference};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A build, wholly described. `BuildRequest::new` gives the defaults.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The folder COPY and ADD read from.
    pub context: PathBuf,
    /// The recipe.
    pub containerfile: Containerfile,
    /// Names for the image; none is fine.
    pub tags: Vec<Reference>,
    /// `--build-arg NAME=VALUE`; the caller has resolved a bare NAME from its environment (or left it out).
    pub build_args: Vec<(String, String)>,
    /// The stage to build, by name or index; the last where none is given.
    pub target: Option<String>,
    /// Run every step anew, looking nothing up (results are still recorded).
    pub no_cache: bool,
    /// Whether base images are fetched though they are there.
    pub pull: PullPolicy,
    /// Labels laid over the image's own.
    pub labels: Vec<(String, String)>,
    /// What to build for; the host's platform where none is given.
    pub platform: Option<Platform>,
    /// The network of RUN steps that say nothing else.
    pub network: BuildNetwork,
    /// Secrets that `RUN --mount=type=secret` may ask for, by id.
    pub secrets: Vec<Secret>,
    /// `name:ip` lines for the hosts file of RUN steps.
    pub add_hosts: Vec<(String, String)>,
    /// `SOURCE_DATE_EPOCH`: seconds since 1970 that no time in new layers or in the config exceeds.
    pub source_date_epoch: Option<i64>,
    /// Proxy variables of the caller (`HTTP_PROXY`, …): they reach RUN, stay out of cache keys and history.
    pub proxies: Vec<(String, String)>,
}

impl BuildRequest {
    /// A request with every option at its default.
    pub fn new(context: impl Into<PathBuf>, containerfile: Containerfile) -> BuildRequest {
        BuildRequest {
            context: context.into(),
            containerfile,
            tags: Vec::new(),
            build_args: Vec::new(),
            target: None,
            no_cache: false,
            pull: PullPolicy::Missing,
            labels: Vec::new(),
            platform: None,
            network: BuildNetwork::Default,
            secrets: Vec::new(),
            add_hosts: Vec::new(),
            source_date_epoch: None,
            proxies: Vec::new(),
        }
    }
}

/// A Containerfile's text and the name error messages give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containerfile {
    /// As the user knows it: `Containerfile`, `docker/web.Dockerfile`, `-`.
    pub name: String,
    /// The whole text, as read.
    pub text: Vec<u8>,
    /// Where it was read from: `<path>.dockerignore` is looked for beside it.
    pub path: Option<PathBuf>,
}

/// The largest Containerfile read, in bytes.
pub(crate) const MAX_CONTAINERFILE_BYTES: u64 = 4 << 20;

impl Containerfile {
    /// A recipe that came from elsewhere than a file, such as standard input.
    pub fn from_text(name: impl Into<String>, text: impl Into<Vec<u8>>) -> Containerfile {
        Containerfile { name: name.into(), text: text.into(), path: None }
    }

    /// Reads `file`, or what a build in `context` uses where no file is named: `Containerfile`, else `Dockerfile`.
    ///
    /// As docker has it, a relative `file` is relative to the caller's directory.
    pub fn find(context: &Path, file: Option<&Path>) -> Result<Containerfile, BuildError> {
        let folder_file = |name| context.join(name);
        let Some(path) = file else {
            for name in ["Containerfile", "Dockerfile"] {
                if let Some(text) = read_bounded(&folder_file(name))? {
                    return Ok(Containerfile { name: name.to_owned(), text, path: Some(folder_file(name)) });
                }
            }
            let message = format!(
                "failed to read Containerfile: neither Containerfile nor Dockerfile is in {}: name one with -f",
                context.display()
            );
            return Err(BuildError::NoContainerfile { message });
        };
        let text = read_bounded(path)?.ok_or_else(|| {
            let message = format!("failed to read Containerfile: open {}: no such file or directory", path.display());
            BuildError::NoContainerfile { message }
        })?;
        Ok(Containerfile { name: path.display().to_string(), text, path: Some(path.to_owned()) })
    }
}

/// The file's bytes; None where there is no file.
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, BuildError> {
    let fail = |source| BuildError::Io { operation: "read", path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut text = Vec::new();
    file.take(MAX_CONTAINERFILE_BYTES + 1).read_to_end(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_CONTAINERFILE_BYTES {
        return Err(fail(io::Error::other(format!("larger than {MAX_CONTAINERFILE_BYTES} bytes"))));
    }
    Ok(Some(text))
}

/// When a base image is fetched from its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Where the store has none.
    #[default]
    Missing,
    /// Each time (`--pull`).
    Always,
    /// Never: a missing image is an error.
    Never,
}

/// The network a RUN step sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildNetwork {
    /// The engine's default bridge.
    #[default]
    Default,
    /// Loopback alone.
    None,
    /// The host's own.
    Host,
}

/// A secret a build may use without it ever entering a layer, a cache key or the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// What RUN asks for.
    pub id: String,
    /// Where the bytes are.
    pub source: SecretSource,
}

/// Where a secret's bytes are.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, read when a step first asks for it.
    File(PathBuf),
    /// The bytes themselves (from an environment variable).
    Value(Vec<u8>),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SecretSource::File(path) => write!(f, "File({path:?})"),
            SecretSource::Value(_) => f.write_str("Value(…)"),
        }
    }
}

/// Why a `--secret` text is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid --secret {text:?}: {reason}")]
pub struct SecretParseError {
    text: String,
    reason: String,
}

impl Secret {
    /// Parses `--secret id=ID[,src=FILE|,env=NAME][,type=file|env]`; `env` looks a variable up.
    /// Without a source it is the variable named ID where that is set, else the file ID.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, SecretParseError> {
        let error = |reason: String| SecretParseError { text: text.to_owned(), reason };
        let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
        for field in text.split(',') {
            let (key, value) = field.split_once('=').ok_or_else(|| error(format!("{field:?} is not key=value")))?;
            match key.to_ascii_lowercase().as_str() {
                "id" => id = Some(value.to_owned()),
                "src" | "source" => file = Some(value.to_owned()),
                "env" => variable = Some(value.to_owned()),
                "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
                "type" => return Err(error(format!("unknown type {value:?}: expected file or env"))),
                _ => return Err(error(format!("unknown key {key:?}: expected id, src, env or type"))),
            }
        }
        let id = id.filter(|id| !id.is_empty()).ok_or_else(|| error("no id: expected id=ID,src=FILE".to_owned()))?;
        if kind.as_deref() == Some("env") && variable.is_none() {
            variable = Some(file.take().unwrap_or_else(|| id.clone()));
        }
        let source = match (file, variable) {
            (Some(file), None) => SecretSource::File(PathBuf::from(file)),
            (None, Some(name)) => {
                let value = env(&name).ok_or_else(|| error(format!("the environment variable {name:?} is not set")))?;
                SecretSource::Value(value.into_bytes())
            }
            (Some(_), Some(_)) => return Err(error("src and env exclude each other".to_owned())),
            (None, None) => match env(&id).filter(|_| kind.is_none()) {
                Some(value) => SecretSource::Value(value.into_bytes()),
                None => SecretSource::File(PathBuf::from(&id)),
            },
        };
        Ok(Secret { id, source })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn secrets_come_from_a_file_or_a_variable() {
        let env = |name: &str| (name == "TOKEN").then(|| "t0p".to_owned());
        let parse = |text: &str| Secret::parse(text, &env);
        assert_eq!(parse("id=ca,src=/x/ca.pem").unwrap().source, SecretSource::File("/x/ca.pem".into()));
        assert_eq!(parse("id=a,env=TOKEN").unwrap().source, SecretSource::Value(b"t0p".to_vec()));
        assert_eq!(parse("id=TOKEN").unwrap().source, SecretSource::Value(b"t0p".to_vec()));
        assert_eq!(parse("id=file").unwrap().source, SecretSource::File("file".into()));
        assert_eq!(parse("type=env,id=TOKEN").unwrap().source, SecretSource::Value(b"t0p".to_vec()));
        for bad in ["", "src=x", "id=a,env=NOPE", "id=a,type=z", "id=a,colour=red", "id=a,src=x,env=TOKEN"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
