//! The operations of the distribution API.

use crate::{ClientConfig, Credential, RegistryError};
use oci::{Descriptor, Digest, Reference};
use std::io::{self, Read};
use std::sync::Arc;

/// A client of any number of registries. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Registry {
    #[allow(dead_code)]
    inner: Arc<ClientConfig>,
}

/// A manifest or index as the registry holds it.
#[derive(Clone, Debug)]
pub struct ManifestResponse {
    /// The raw bytes: what the digest is of, never to be serialised anew.
    pub bytes: Vec<u8>,
    /// The `Content-Type`.
    pub media_type: String,
    /// The digest of `bytes`, checked against the one asked for.
    pub digest: Digest,
}

/// How a blob came to be in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobPush {
    /// It was there.
    Existing,
    /// The registry took it over from another of its repositories.
    Mounted(String),
    /// We sent it.
    Uploaded,
}

/// A blob's bytes from some offset on. A broken connection is resumed inside; whoever reads checks the digest.
pub struct BlobReader {}

impl Read for BlobReader {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}

impl Registry {
    /// A client; no connection is made and no file read yet.
    pub fn new(config: ClientConfig) -> Registry {
        Registry { inner: Arc::new(config) }
    }

    /// The manifest or index a reference names (its digest if it has one, else its tag).
    pub fn manifest(&self, _reference: &Reference) -> Result<ManifestResponse, RegistryError> {
        todo!()
    }

    /// The descriptor of what a reference names, by HEAD; none if the registry has no such thing.
    pub fn head_manifest(&self, _reference: &Reference) -> Result<Option<Descriptor>, RegistryError> {
        todo!()
    }

    /// A blob's bytes from `offset` on.
    pub fn blob(&self, _repository: &Reference, _blob: &Descriptor, _offset: u64) -> Result<BlobReader, RegistryError> {
        todo!()
    }

    /// A small blob as a whole, at most `limit` bytes, digest checked.
    pub fn blob_bytes(
        &self,
        _repository: &Reference,
        _blob: &Descriptor,
        _limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        todo!()
    }

    /// Whether the repository has this blob.
    pub fn blob_exists(&self, _repository: &Reference, _digest: &Digest) -> Result<bool, RegistryError> {
        todo!()
    }

    /// Brings a blob into a repository: skipped if it is there, mounted from one of `mount_from` (repository
    /// paths of the same registry) if one has it, else sent. `open` gives the content from its start and is called
    /// again for each attempt; `progress` is told the bytes sent so far in this attempt.
    pub fn push_blob(
        &self,
        _repository: &Reference,
        _blob: &Descriptor,
        _mount_from: &[String],
        _open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
        _progress: &dyn Fn(u64),
    ) -> Result<BlobPush, RegistryError> {
        todo!()
    }

    /// Stores a manifest or index under the reference's tag (or digest).
    pub fn push_manifest(
        &self,
        _reference: &Reference,
        _media_type: &str,
        _bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        todo!()
    }

    /// The repository's tags, at most 10,000.
    pub fn tags(&self, _repository: &Reference) -> Result<Vec<String>, RegistryError> {
        todo!()
    }

    /// Asks a registry (a domain such as `docker.io` or `localhost:5000`) whether it accepts a credential.
    pub fn verify_login(&self, _domain: &str, _credential: &Credential) -> Result<(), RegistryError> {
        todo!()
    }

    /// What registries warned about (`Warning: 299`) since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        todo!()
    }
}
