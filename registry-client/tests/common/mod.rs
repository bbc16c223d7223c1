//! What the client's tests share: a resolver that knows one name, and clients with short patience.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part of this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use registry_client::{ClientConfig, Credential, CredentialError, Credentials, Registry, Resolve};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

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
