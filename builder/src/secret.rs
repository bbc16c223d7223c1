//! What RUN steps may use without it ever entering a layer, a cache key or the history: secrets, ssh agents.

use std::path::PathBuf;

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
#[error("invalid --{flag} {text:?}: {reason}")]
pub struct SecretParseError {
    flag: &'static str,
    text: String,
    reason: String,
}

impl Secret {
    /// Parses `--secret id=ID[,src=FILE|,env=NAME][,type=file|env]`; `env` looks a variable up.
    /// Without a source it is the variable named ID where that is set, else the file ID.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, SecretParseError> {
        let error = |reason: String| SecretParseError { flag: "secret", text: text.to_owned(), reason };
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

/// An ssh agent that RUN steps may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAgent {
    /// What RUN asks for; `default` where it says nothing.
    pub id: String,
    /// The agent's socket.
    pub socket: PathBuf,
}

impl SshAgent {
    /// Parses `--ssh default|ID[=SOCKET]`; without a socket it is the one of SSH_AUTH_SOCK.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<SshAgent, SecretParseError> {
        let error = |reason: &str| SecretParseError { flag: "ssh", text: text.to_owned(), reason: reason.to_owned() };
        let (id, socket) = text.split_once('=').map_or((text, None), |(id, path)| (id, Some(path.to_owned())));
        let id = if id.is_empty() { "default" } else { id };
        let socket = socket.or_else(|| env("SSH_AUTH_SOCK")).filter(|path| !path.is_empty());
        let socket = socket.ok_or_else(|| error("no agent: SSH_AUTH_SOCK is not set; start one: eval $(ssh-agent)"))?;
        let socket = PathBuf::from(socket);
        let is_socket = |meta: &std::fs::Metadata| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type());
        match std::fs::metadata(&socket) {
            Ok(meta) if is_socket(&meta) => Ok(SshAgent { id: id.to_owned(), socket }),
            Ok(_) => Err(error("keys are forwarded by an agent only: ssh-add the file, then --ssh default")),
            Err(why) => Err(error(&format!("{}: {}", socket.display(), why.kind()))),
        }
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
