//! login and logout: a credential is tried at the registry before it is kept.

use crate::{Engine, Result};
use registry_client::{Credential, Kept};

/// Who logs in, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// `docker.io`, `localhost:5000`: a registry, not an image.
    pub registry: String,
    /// User name.
    pub username: String,
    /// Password or access token.
    pub password: String,
    /// False accepts any certificate, and plain http.
    pub tls_verify: bool,
}

impl Engine {
    /// Tries a user name and password at a registry and, if it accepts them, keeps them.
    pub fn login(&self, request: &LoginRequest) -> Result<Kept> {
        let domain = registry_domain(&request.registry);
        let credential = Credential::Basic { username: request.username.clone(), password: request.password.clone() };
        self.registry(request.tls_verify)?.verify_login(&domain, &credential)?;
        Ok(self.credential_files().store(&domain, &credential)?)
    }

    /// Forgets what is kept for a registry; false if nothing was.
    pub fn logout(&self, registry: &str) -> Result<bool> {
        Ok(self.credential_files().erase(&registry_domain(registry))?)
    }

    /// The user name that is kept for a registry, to be offered at the next login.
    pub fn logged_in_as(&self, registry: &str) -> Result<Option<String>> {
        use registry_client::Credentials;
        Ok(match self.credential_files().get(&registry_domain(registry), "")? {
            Some(Credential::Basic { username, .. }) => Some(username),
            _ => None,
        })
    }
}

/// What people type – a URL, the hub's other names – as a registry's name.
fn registry_domain(text: &str) -> String {
    let bare = text.trim().trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or(bare);
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::registry_domain;

    #[test]
    fn registries_are_named_in_many_ways() {
        for (typed, meant) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("https://r.io:5000/v2/", "r.io:5000"),
            ("r.io/team", "r.io"),
            ("localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(registry_domain(typed), meant);
        }
    }
}
