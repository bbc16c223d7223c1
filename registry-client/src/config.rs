//! What a client needs from outside. Nothing in this crate reads the environment or guesses a home
//! directory: the values come from the command line's owner.

use crate::{Credentials, NoCredentials, Rules};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Turns a host name into addresses. A trait because the C library's resolver is never linked
/// (a static glibc loads a second one for it); the engine hands in its own DNS client.
pub trait Resolve: Send + Sync {
    /// The addresses of `host` (a name, or an IP address as text), each with `port`; best first.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

impl<F: Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync> Resolve for F {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self(host, port)
    }
}

/// Everything a [`crate::Registry`] is made of.
pub struct ClientConfig {
    /// Looks up host names.
    pub resolver: Arc<dyn Resolve>,
    /// Who we are, per host.
    pub credentials: Arc<dyn Credentials>,
    /// False accepts any certificate and plain http, for every host.
    pub tls_verify: bool,
    /// Hosts (`host`, `host:port` or `*.domain`) for which any certificate and plain http are accepted.
    pub insecure: Vec<String>,
    /// Mirrors, other locations, what is blocked.
    pub rules: Rules,
    /// Where certificates come from.
    pub tls: TlsFiles,
    /// Proxies by scheme.
    pub proxies: Proxies,
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// The longest wait for name resolution, and for connecting with the TLS handshake.
    pub connect_timeout: Duration,
    /// The longest silence in the middle of an exchange.
    pub idle_timeout: Duration,
    /// The longest wait for a registry's verdict on an upload: it may have to move gigabytes inside.
    pub commit_timeout: Duration,
    /// How many times a request is sent again after a transient failure.
    pub retries: u32,
    /// The first pause between two attempts; it doubles each time, with jitter.
    pub backoff: Duration,
}

impl ClientConfig {
    /// The defaults, with a resolver: strict TLS, anonymous, no proxies.
    pub fn new(resolver: Arc<dyn Resolve>) -> ClientConfig {
        ClientConfig {
            resolver,
            credentials: Arc::new(NoCredentials),
            tls_verify: true,
            insecure: Vec::new(),
            rules: Rules::default(),
            tls: TlsFiles::default(),
            proxies: Proxies::default(),
            user_agent: concat!("ctr/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(600),
            retries: 5,
            backoff: Duration::from_millis(500),
        }
    }
}

/// Where certificate authorities and client certificates are looked for. Files are read when the
/// first https connection is made, not before.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// SSL_CERT_FILE: a PEM bundle used instead of the system's.
    pub cert_file: Option<PathBuf>,
    /// SSL_CERT_DIR: directories of PEM files used instead of the system's.
    pub cert_dirs: Vec<PathBuf>,
    /// `certs.d` directories, each with one directory a registry: `<host[:port]>/{*.crt,*.cert,*.key}`.
    pub certs_d: Vec<PathBuf>,
}

/// Values of the proxy variables.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// HTTP_PROXY.
    pub http: Option<String>,
    /// HTTPS_PROXY.
    pub https: Option<String>,
    /// NO_PROXY: hosts, domains (`.example.org`), addresses and CIDR ranges, comma-separated; `*` is all.
    pub no_proxy: Option<String>,
}
