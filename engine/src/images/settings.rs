//! What the environment says about registries. The values are handed in: the engine reads no variables.

use crate::{Engine, Result};
use oci::{Descriptor, Reference};
use registry_client::{
    ClientConfig, CredentialFiles, CredentialPaths, Proxies, Registry, Resolve, RuleFiles, Rules, TlsFiles,
};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Where certificates, proxies and logins come from.
#[derive(Clone, Debug, Default)]
pub struct RegistrySettings {
    /// Where logins are kept; `--authfile` goes in here.
    pub credentials: CredentialPaths,
    /// Mirrors, blocked registries and the like: `registries.conf`.
    pub rules: RuleFiles,
    /// Certificate authorities.
    pub tls: TlsFiles,
    /// Proxies.
    pub proxies: Proxies,
    /// Registries (`host` or `host:port`) for which any certificate and plain http are accepted.
    pub insecure: Vec<String>,
}

impl RegistrySettings {
    /// Takes the values of the variables that docker, podman and OpenSSL know, by asking `variable` for each.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> RegistrySettings {
        let filled = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| filled(name).map(PathBuf::from);
        let text = |name: &str| filled(name).and_then(|value| value.into_string().ok());
        let paths = |name: &str| filled(name).map(|value| split(&value)).unwrap_or_default();
        let home = path("HOME");
        let config_home = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let mut certs_d: Vec<PathBuf> = config_home.iter().map(|dir| dir.join("containers/certs.d")).collect();
        certs_d.extend(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from));
        let mut conf = path("CONTAINERS_REGISTRIES_CONF").map(|file| vec![file]).unwrap_or_default();
        let mut drop_ins = Vec::new();
        if conf.is_empty() {
            let folders = config_home.iter().map(|dir| dir.join("containers"));
            let folders: Vec<PathBuf> = folders.chain([PathBuf::from("/etc/containers")]).collect();
            conf.extend(folders.iter().map(|folder| folder.join("registries.conf")));
            // The user's own come last: they count.
            drop_ins.extend(folders.iter().rev().map(|folder| folder.join("registries.conf.d")));
        }
        RegistrySettings {
            rules: RuleFiles { files: conf, drop_ins },
            credentials: CredentialPaths {
                authfile: None,
                registry_auth_file: path("REGISTRY_AUTH_FILE"),
                xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
                xdg_config_home: path("XDG_CONFIG_HOME"),
                docker_config: path("DOCKER_CONFIG"),
                home,
                path: paths("PATH"),
            },
            tls: TlsFiles { cert_file: path("SSL_CERT_FILE"), cert_dirs: paths("SSL_CERT_DIR"), certs_d },
            // The lower-case names are the older ones and win, as in curl.
            proxies: Proxies {
                http: text("http_proxy").or_else(|| text("HTTP_PROXY")),
                https: text("https_proxy").or_else(|| text("HTTPS_PROXY")),
                no_proxy: text("no_proxy").or_else(|| text("NO_PROXY")),
            },
            insecure: Vec::new(),
        }
    }
}

/// The folders of a list like PATH.
fn split(list: &OsStr) -> Vec<PathBuf> {
    let folders = list.as_bytes().split(|b| *b == b':').filter(|folder| !folder.is_empty());
    folders.map(|folder| PathBuf::from(OsStr::from_bytes(folder))).collect()
}

/// Our own DNS client, as the registry client asks for names.
struct HostNames;

impl Resolve for HostNames {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses = network::dns::resolve(host)?;
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

impl Engine {
    /// The files that logins are kept in.
    pub(super) fn credential_files(&self) -> CredentialFiles {
        CredentialFiles::new(self.config().registries.credentials.clone())
    }

    /// What `registries.conf` says.
    pub(super) fn registry_rules(&self) -> Result<Rules> {
        Ok(Rules::read(&self.config().registries.rules)?)
    }

    /// The names that a short one (`busybox`) stands for by `unqualified-search-registries` and aliases of
    /// `registries.conf`; none where docker's own rule holds.
    pub fn short_names(&self, text: &str) -> Result<Vec<Reference>> {
        Ok(self.registry_rules()?.short_names(text))
    }

    /// A client for one operation; it connects to nothing yet.
    pub(super) fn registry(&self, tls_verify: bool) -> Result<Registry> {
        self.config().registries.client(tls_verify)
    }
}

impl RegistrySettings {
    fn client(&self, tls_verify: bool) -> Result<Registry> {
        Ok(Registry::new(ClientConfig {
            credentials: Arc::new(CredentialFiles::new(self.credentials.clone())),
            tls_verify,
            insecure: self.insecure.clone(),
            tls: self.tls.clone(),
            proxies: self.proxies.clone(),
            rules: Rules::read(&self.rules)?,
            ..ClientConfig::new(Arc::new(HostNames))
        }))
    }

    /// For the store: blobs that it does not keep.
    pub(crate) fn refetch(&self) -> Arc<dyn store::Refetch> {
        Arc::new(FromRegistries { settings: self.clone(), client: OnceLock::new() })
    }
}

/// Blobs of pulled layers, once more from where they were pulled from.
struct FromRegistries {
    settings: RegistrySettings,
    /// Made when first needed: one set of connections for all of them.
    client: OnceLock<Registry>,
}

impl fmt::Debug for FromRegistries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromRegistries").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl store::Refetch for FromRegistries {
    fn open(&self, repository: &str, blob: &Descriptor, offset: u64) -> io::Result<Box<dyn Read>> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let made = self.settings.client(true).map_err(|e| io::Error::other(e.to_string()))?;
                self.client.get_or_init(|| made)
            }
        };
        let reference: Reference = repository.parse().map_err(io::Error::other)?;
        Ok(Box::new(client.blob(&reference, blob, offset).map_err(io::Error::other)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn variables_become_settings() {
        let settings = RegistrySettings::from_variables(|name| match name {
            "HOME" => Some("/home/me".into()),
            "SSL_CERT_DIR" => Some("/a:/b".into()),
            "HTTPS_PROXY" => Some("http://big:1".into()),
            "https_proxy" => Some("http://small:1".into()),
            "NO_PROXY" | "DOCKER_CONFIG" => Some("".into()),
            _ => None,
        });
        assert_eq!(settings.tls.certs_d[0], PathBuf::from("/home/me/.config/containers/certs.d"));
        assert_eq!(settings.tls.cert_dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(settings.proxies.https.unwrap(), "http://small:1");
        assert_eq!(settings.proxies.no_proxy, None, "empty is unset");
        assert_eq!(settings.credentials.docker_config, None);
        let places = ["/home/me/.config/containers/registries.conf", "/etc/containers/registries.conf"];
        assert_eq!(settings.rules.files, places.map(PathBuf::from));
        assert_eq!(settings.rules.drop_ins[0], PathBuf::from("/etc/containers/registries.conf.d"));
        let one = RegistrySettings::from_variables(|name| {
            (name == "CONTAINERS_REGISTRIES_CONF").then(|| "/x/registries.conf".into())
        });
        assert_eq!(one.rules.files, [PathBuf::from("/x/registries.conf")]);
        assert!(one.rules.drop_ins.is_empty());
    }
}
