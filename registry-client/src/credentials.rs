//! Who we are, per registry: docker's `config.json` and podman's `auth.json`, which have one format, and
//! the `docker-credential-*` programs they may name. Files are read when asked, never cached to disk, and written
//! whole: a new file of mode 0600 takes the old one's place.

use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::helper;

/// The largest credential file read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// docker's key for its own hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How to prove who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password or access token.
    Basic {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// An OAuth2 refresh token, exchanged for access tokens.
    IdentityToken(String),
    /// A bearer token, sent as it is.
    RegistryToken(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(..)") // never in a log
    }
}

/// Why credentials could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(pub(crate) String);

/// Where a login went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Into a file, readable to its owner.
    File(PathBuf),
    /// To a helper program, by its name.
    Helper(String),
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kept::File(path) => path.display().fmt(f),
            Kept::Helper(program) => f.write_str(program),
        }
    }
}

/// A source of credentials.
pub trait Credentials: Send + Sync {
    /// The credential for a repository of a registry, longest matching namespace first.
    fn get(&self, domain: &str, repository: &str) -> Result<Option<Credential>, CredentialError>;
}

/// Always anonymous.
pub struct NoCredentials;

impl Credentials for NoCredentials {
    fn get(&self, _: &str, _: &str) -> Result<Option<Credential>, CredentialError> {
        Ok(None)
    }
}

/// The values that decide where credentials are kept. All come from the command line's owner.
#[derive(Clone, Debug, Default)]
pub struct CredentialPaths {
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// REGISTRY_AUTH_FILE.
    pub registry_auth_file: Option<PathBuf>,
    /// XDG_RUNTIME_DIR.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// XDG_CONFIG_HOME.
    pub xdg_config_home: Option<PathBuf>,
    /// DOCKER_CONFIG, a directory.
    pub docker_config: Option<PathBuf>,
    /// HOME.
    pub home: Option<PathBuf>,
    /// The directories of PATH, for credential helper programs.
    pub path: Vec<PathBuf>,
}

impl CredentialPaths {
    /// The files to look into, first to last. A file given by name is the only one.
    fn reading_order(&self) -> Vec<PathBuf> {
        if let Some(given) = self.authfile.as_ref().or(self.registry_auth_file.as_ref()) {
            return vec![given.clone()];
        }
        let config_home = self.xdg_config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")));
        let containers = |dir: Option<&PathBuf>| Some(dir?.join("containers/auth.json"));
        [containers(self.xdg_runtime_dir.as_ref()), containers(config_home.as_ref()), self.docker_file()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn docker_file(&self) -> Option<PathBuf> {
        let dir = self.docker_config.clone().or_else(|| Some(self.home.as_ref()?.join(".docker")));
        Some(dir?.join("config.json"))
    }

    /// Where a login is kept: the file given by name, else docker's, which outlives a reboot.
    fn writing_place(&self) -> Result<PathBuf, CredentialError> {
        let given = self.authfile.clone().or_else(|| self.registry_auth_file.clone());
        given.or_else(|| self.docker_file()).ok_or_else(|| {
            CredentialError("no place to keep the login: HOME is not set; name a file with --authfile".to_owned())
        })
    }
}

/// Credentials in docker's and podman's files.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    paths: CredentialPaths,
}

impl CredentialFiles {
    /// Uses the files that these values lead to.
    pub fn new(paths: CredentialPaths) -> CredentialFiles {
        CredentialFiles { paths }
    }

    /// Keeps a credential for a registry.
    pub fn store(&self, domain: &str, credential: &Credential) -> Result<Kept, CredentialError> {
        let path = self.paths.writing_place()?;
        let mut file = AuthFile::read(&path)?;
        if let Some(name) = file.helper_for(domain) {
            helper::store(&self.paths.path, &name, key_of(domain), credential)?;
            return Ok(Kept::Helper(format!("docker-credential-{name}")));
        }
        file.set(domain, credential);
        file.write(&path)?;
        Ok(Kept::File(path))
    }

    /// Forgets a registry's credential wherever one is kept; false if there was none.
    pub fn erase(&self, domain: &str) -> Result<bool, CredentialError> {
        let mut erased = false;
        for path in self.paths.reading_order() {
            let mut file = AuthFile::read(&path)?;
            if let Some(name) = file.helper_for(domain) {
                erased |= helper::erase(&self.paths.path, &name, key_of(domain))?;
            }
            if file.remove(domain) {
                file.write(&path)?;
                erased = true;
            }
        }
        Ok(erased)
    }
}

impl Credentials for CredentialFiles {
    fn get(&self, domain: &str, repository: &str) -> Result<Option<Credential>, CredentialError> {
        for path in self.paths.reading_order() {
            let file = AuthFile::read(&path)?;
            if let Some(name) = file.helper_for(domain)
                && let Some(found) = helper::get(&self.paths.path, &name, key_of(domain))?
            {
                return Ok(Some(found));
            }
            if let Some(found) = file.find(domain, repository, &path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// What docker and its helpers call a registry.
fn key_of(domain: &str) -> &str {
    if domain == "docker.io" { HUB_KEY } else { domain }
}

/// Whether a key of a file means `wanted` (a domain, or a domain and a namespace): keys may be
/// URLs with a path, and docker.io has several names.
fn key_matches(key: &str, wanted: &str) -> bool {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let versioned = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match versioned {
        "index.docker.io" | "registry-1.docker.io" => wanted == "docker.io",
        other => other == wanted,
    }
}

/// One file, as it is: what we don't know in it is kept when it is written.
struct AuthFile(Map<String, Value>);

impl AuthFile {
    fn read(path: &Path) -> Result<AuthFile, CredentialError> {
        use std::io::Read;
        let error =
            |e: &dyn std::fmt::Display| CredentialError(format!("read the credentials in {}: {e}", path.display()));
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(AuthFile(Map::new()));
            }
            Err(e) => return Err(error(&e)),
        };
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|e| error(&e))?;
        if text.trim().is_empty() {
            return Ok(AuthFile(Map::new()));
        }
        match serde_json::from_str(&text) {
            Ok(Value::Object(map)) => Ok(AuthFile(map)),
            Ok(_) => Err(error(&"it is no JSON object")),
            Err(e) => Err(error(&e)),
        }
    }

    /// The name of the helper program in charge of a registry.
    fn helper_for(&self, domain: &str) -> Option<String> {
        let helpers = self.0.get("credHelpers").and_then(Value::as_object);
        let own = helpers.and_then(|h| h.iter().find(|(key, _)| key_matches(key, domain)).map(|(_, name)| name));
        let name = own.or_else(|| self.0.get("credsStore")).and_then(Value::as_str)?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The longest namespace that has a credential: `host/a/b`, `host/a`, `host`.
    fn find(&self, domain: &str, repository: &str, path: &Path) -> Result<Option<Credential>, CredentialError> {
        let Some(auths) = self.0.get("auths").and_then(Value::as_object) else { return Ok(None) };
        let full = format!("{domain}/{repository}");
        let mut wanted = full.trim_end_matches('/');
        loop {
            let entries = auths.iter().filter(|(key, _)| key_matches(key, wanted));
            for (key, entry) in entries {
                let found = parse_entry(entry)
                    .map_err(|why| CredentialError(format!("the entry {key:?} of {}: {why}", path.display())))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            match wanted.rsplit_once('/') {
                Some((shorter, _)) => wanted = shorter,
                None => return Ok(None),
            }
        }
    }

    fn set(&mut self, domain: &str, credential: &Credential) {
        self.remove(domain);
        let entry = match credential {
            Credential::Basic { username, password } => {
                let auth = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
                json!({ "auth": auth })
            }
            Credential::IdentityToken(token) => json!({ "identitytoken": token }),
            Credential::RegistryToken(token) => json!({ "registrytoken": token }),
        };
        let auths = self.0.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if !auths.is_object() {
            *auths = Value::Object(Map::new());
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(key_of(domain).to_owned(), entry);
        }
    }

    fn remove(&mut self, domain: &str) -> bool {
        let Some(auths) = self.0.get_mut("auths").and_then(Value::as_object_mut) else { return false };
        let before = auths.len();
        auths.retain(|key, _| !key_matches(key, domain));
        auths.len() < before
    }

    /// Takes the old file's place in one step. A file that is a link stays one: what it points to is replaced.
    fn write(&self, path: &Path) -> Result<(), CredentialError> {
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let error = |e: std::io::Error| CredentialError(format!("write the credentials to {}: {e}", path.display()));
        let dir = path.parent().unwrap_or(Path::new("/"));
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
            .create(dir)
            .map_err(error)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let fresh = dir.join(format!(".{name}.{}", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        let mut text = serde_json::to_vec_pretty(&self.0).map_err(|e| error(e.into()))?;
        text.push(b'\n');
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&fresh, &path));
        written.map_err(|e| {
            let _ = std::fs::remove_file(&fresh);
            error(e)
        })
    }
}

/// `{"auth": base64(user:password), "identitytoken": …}`; an entry without either is docker's mark that a
/// helper has it.
fn parse_entry(entry: &Value) -> Result<Option<Credential>, &'static str> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credential::RegistryToken(token.to_owned())));
    }
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credential::IdentityToken(token.to_owned())));
    }
    if let Some(auth) = text("auth") {
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(auth.trim()).map_err(|_| "its \"auth\" is not base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "its \"auth\" is not text")?;
        let (username, password) = text.split_once(':').ok_or("its \"auth\" is not user:password")?;
        // Old dockers padded with zero bytes.
        let password = password.trim_end_matches('\0');
        return Ok(Some(Credential::Basic { username: username.to_owned(), password: password.to_owned() }));
    }
    Ok(text("username")
        .zip(text("password"))
        .map(|(username, password)| Credential::Basic { username: username.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic { username: username.to_owned(), password: password.to_owned() }
    }

    fn in_home(home: &Path) -> CredentialFiles {
        CredentialFiles::new(CredentialPaths { home: Some(home.to_owned()), ..CredentialPaths::default() })
    }

    #[test]
    fn a_login_is_kept_in_dockers_file_for_the_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let files = in_home(home.path());
        assert!(files.get("r.io:5000", "a").unwrap().is_none());
        let place = files.store("r.io:5000", &basic("me", "se:cret")).unwrap();
        let file = home.path().join(".docker/config.json");
        assert_eq!(place, Kept::File(file.clone()));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(files.get("r.io:5000", "a/b").unwrap() == Some(basic("me", "se:cret")));
        assert!(files.get("r.io", "a/b").unwrap().is_none(), "another port is another registry");
        assert!(files.erase("r.io:5000").unwrap());
        assert!(!files.erase("r.io:5000").unwrap());
        assert!(files.get("r.io:5000", "a").unwrap().is_none());
    }

    #[test]
    fn what_others_wrote_into_the_file_stays() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".docker")).unwrap();
        let file = home.path().join(".docker/config.json");
        std::fs::write(&file, r#"{"auths":{"x.io":{"auth":"YTpi"}},"psFormat":"table"}"#).unwrap();
        in_home(home.path()).store("docker.io", &basic("u", "p")).unwrap();
        let text: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(text["psFormat"], "table");
        assert_eq!(text["auths"]["x.io"]["auth"], "YTpi");
        assert_eq!(text["auths"][HUB_KEY]["auth"], "dTpw");
        assert!(in_home(home.path()).get("docker.io", "library/x").unwrap() == Some(basic("u", "p")));
    }

    #[test]
    fn the_longest_namespace_and_the_first_file_win() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        // a:b is YTpi, c:d is Yzpk, e:f is ZTpm
        write("run/containers/auth.json", r#"{"auths":{"r.io/team/app":{"auth":"YTpi"}}}"#);
        write(
            ".config/containers/auth.json",
            r#"{"auths":{"r.io":{"auth":"Yzpk"},"https://s.io/v2/":{"auth":"ZTpm"}}}"#,
        );
        write(".docker/config.json", r#"{"auths":{"r.io":{"auth":"ZTpm"}}}"#);
        let files = CredentialFiles::new(CredentialPaths {
            xdg_runtime_dir: Some(home.path().join("run")),
            home: Some(home.path().to_owned()),
            ..CredentialPaths::default()
        });
        assert!(files.get("r.io", "team/app").unwrap() == Some(basic("a", "b")));
        assert!(files.get("r.io", "team/app/sub").unwrap() == Some(basic("a", "b")));
        assert!(files.get("r.io", "team/apple").unwrap() == Some(basic("c", "d")));
        assert!(files.get("s.io", "x").unwrap() == Some(basic("e", "f")));
        assert!(files.get("t.io", "x").unwrap().is_none());
    }

    #[test]
    fn a_broken_file_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("auth.json");
        let files =
            CredentialFiles::new(CredentialPaths { authfile: Some(file.clone()), ..CredentialPaths::default() });
        for (text, expected) in [
            ("{", "EOF while parsing"),
            ("[]", "no JSON object"),
            (r#"{"auths":{"r.io":{"auth":"!"}}}"#, "not base64"),
            (r#"{"auths":{"r.io":{"auth":"YWI="}}}"#, "not user:password"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = files.get("r.io", "x").unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("auth.json"), "{error}");
        }
        std::fs::write(&file, r#"{"auths":{"r.io":{}}}"#).unwrap();
        assert!(files.get("r.io", "x").unwrap().is_none());
    }

    #[test]
    fn helper_programs_are_asked_told_and_made_to_forget() {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("bin/docker-credential-box");
        std::fs::create_dir(home.path().join("bin")).unwrap();
        let script = format!(
            "#!/bin/sh\nf={}/kept\ncase $1 in\nstore) cat >$f;;\nget) read -r host; [ -e $f ] && cat $f || {{ echo 'credentials not found in native keychain'; exit 1; }};;\nerase) rm -f $f;;\nesac\n",
            home.path().display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = home.path().join("auth.json");
        std::fs::write(&file, r#"{"credHelpers":{"r.io":"box"}}"#).unwrap();
        let files = CredentialFiles::new(CredentialPaths {
            authfile: Some(file.clone()),
            path: vec![home.path().join("bin")],
            ..CredentialPaths::default()
        });
        assert!(files.get("r.io", "x").unwrap().is_none());
        assert_eq!(files.store("r.io", &basic("u", "p")).unwrap(), Kept::Helper("docker-credential-box".to_owned()));
        assert!(files.get("r.io", "x").unwrap() == Some(basic("u", "p")));
        assert!(!std::fs::read_to_string(&file).unwrap().contains("auths"), "nothing secret in the file");
        assert!(files.erase("r.io").unwrap());
        assert!(files.get("r.io", "x").unwrap().is_none());

        std::fs::write(&file, r#"{"credsStore":"gone"}"#).unwrap();
        let error = files.get("r.io", "x").unwrap_err().to_string();
        assert!(error.contains("docker-credential-gone") && error.contains("PATH"), "{error}");
        std::fs::write(&file, r#"{"credsStore":"../../bin/sh"}"#).unwrap();
        assert!(files.get("r.io", "x").is_err());
    }
}
