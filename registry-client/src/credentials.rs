//! Who we are, per registry.

use std::path::PathBuf;

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
pub struct CredentialError(String);

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

/// Credentials in docker's and podman's files.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    #[allow(dead_code)]
    paths: CredentialPaths,
}

impl CredentialFiles {
    /// Uses the files that these values lead to.
    pub fn new(paths: CredentialPaths) -> CredentialFiles {
        CredentialFiles { paths }
    }

    /// Keeps a credential for a registry; returns the file (or helper) it went to.
    pub fn store(&self, _domain: &str, _credential: &Credential) -> Result<String, CredentialError> {
        todo!()
    }

    /// Forgets a registry's credential; false if there was none.
    pub fn erase(&self, _domain: &str) -> Result<bool, CredentialError> {
        todo!()
    }
}

impl Credentials for CredentialFiles {
    fn get(&self, _domain: &str, _repository: &str) -> Result<Option<Credential>, CredentialError> {
        todo!()
    }
}
