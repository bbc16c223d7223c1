//! What the client's tests share: a resolver that knows one name, and clients with short patience.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use oci::{Descriptor, MediaType};
use registry_client::{ClientConfig, Credential, CredentialError, Credentials, Registry, Resolve};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use test_support::http::Server;

/// Every name is this machine.
pub struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])
    }
}

/// The same credential for every registry.
pub struct Login(pub Credential);

impl Login {
    pub fn basic(username: &str, password: &str) -> Login {
        Login(Credential::Basic { username: username.to_owned(), password: password.to_owned() })
    }
}

impl Credentials for Login {
    fn get(&self, _: &str, _: &str) -> Result<Option<Credential>, CredentialError> {
        Ok(Some(self.0.clone()))
    }
}

/// A configuration that retries soon. Its waits are long enough for a machine under load.
pub fn quick() -> ClientConfig {
    ClientConfig {
        connect_timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(20),
        backoff: Duration::from_millis(5),
        retries: 3,
        ..ClientConfig::new(Arc::new(Loopback))
    }
}

/// A client with that configuration.
pub fn client() -> Registry {
    Registry::new(quick())
}

/// A client that logs in.
pub fn client_as(credentials: impl Credentials + 'static) -> Registry {
    Registry::new(ClientConfig { credentials: Arc::new(credentials), ..quick() })
}

/// A manifest without layers, and how it is served.
pub const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}"#;
pub const OCI: &str = "Content-Type: application/vnd.oci.image.manifest.v1+json";

/// A layer of some content.
pub fn blob_of(content: &[u8]) -> Descriptor {
    Descriptor::of(MediaType::OCI_LAYER_GZIP, content)
}

/// Some content that is its own proof of order.
pub fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// Fetches a blob.
pub fn read_all(registry: &Registry, server: &Server, blob: &Descriptor) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = registry.blob(&server.image("a"), blob, 0).map_err(std::io::Error::other)?;
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}
