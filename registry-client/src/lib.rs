//! A client of the OCI distribution API: names go in, verified bytes come out (and the other way
//! round). It knows registries, not images: what a manifest means and where a layer is unpacked is
//! for the crates above.
//!
//! A [`Registry`] is made once per command and shared between threads: it holds the connection pool, the
//! tokens and what has been learnt about each host. Everything it needs from outside – files,
//! values of environment variables, the resolver of host names – is handed in with [`ClientConfig`].
//!
//! Three rules hold everywhere in here:
//! - **credentials stay with their host**: redirects are followed by us, and a request to another
//!   origin goes out bare;
//! - **every wait ends**: resolving, connecting and each read and write have a limit, retries too;
//! - **every body is bounded**: manifests, tokens and error texts by a constant, blobs by the size
//!   their descriptor names.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// The README's program is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod auth;
mod blob;
mod challenge;
mod config;
mod credentials;
mod download;
mod error;
mod helper;
mod http;
mod proxy;
mod referrers;
mod registry;
mod rules;
mod slots;
mod tls;
mod upload;
mod url;

pub use blob::BlobReader;
pub use config::{ClientConfig, Proxies, Resolve, TlsFiles};
pub use credentials::{
    Credential, CredentialError, CredentialFiles, CredentialPaths, Credentials, Kept, NoCredentials,
};
pub use download::{Download, Validators, file_name_of};
pub use error::{Cause, RegistryError};
pub use registry::{ManifestResponse, Registry};
pub use rules::{RuleFiles, Rules, RulesError};
pub use upload::BlobPush;

/// Reads the value of a `WWW-Authenticate` header.
#[cfg(fuzzing)]
pub fn parse_challenges_for_fuzzing(value: &str) {
    let challenges = challenge::parse(value);
    assert!(challenges.len() <= value.len(), "more challenges than characters");
}
