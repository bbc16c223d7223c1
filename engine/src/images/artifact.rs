//! What lies in a registry beside images: the builder's cache, and single parts of images.

use crate::{Engine, EngineError, Result};
use oci::{Descriptor, Digest, Document, MAX_CONFIG_BYTES, Manifest, MediaType, Platform, Reference};
use std::collections::BTreeMap;
use std::io::{self, Read};

impl Engine {
    /// The manifest a reference names; of an index the one for `platform`.
    pub fn remote_manifest(&self, reference: &Reference, platform: &Platform) -> Result<Manifest> {
        let registry = self.registry(true)?;
        match registry.manifest(reference)?.document {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(index) => {
                let none = || EngineError::Invalid(format!("nothing for {platform} in {}", reference.familiar()));
                let chosen = index.select(platform).ok_or_else(none)?;
                match registry.manifest(&reference.at_digest(chosen.digest.clone()))?.document {
                    Document::Manifest(manifest) => Ok(manifest),
                    Document::Index(_) => Err(none()),
                }
            }
        }
    }

    /// A small blob of a repository, its digest checked.
    pub fn remote_document(&self, reference: &Reference, blob: &Descriptor) -> Result<Vec<u8>> {
        Ok(self.registry(true)?.blob_bytes(reference, blob, MAX_CONFIG_BYTES)?)
    }

    /// Takes one layer of a repository into the store.
    pub fn fetch_remote_layer(&self, reference: &Reference, blob: &Descriptor, diff_id: &Digest) -> Result<()> {
        let registry = self.registry(true)?;
        let mut open = |offset| -> io::Result<Box<dyn Read>> {
            Ok(Box::new(registry.blob(reference, blob, offset).map_err(io::Error::other)?))
        };
        self.store().ingest_layer(blob, diff_id, &mut open, &|_| {})?;
        Ok(())
    }

    /// Sends layers of the store with a document about them, as a manifest of that type, under a reference.
    pub fn push_artifact(
        &self,
        reference: &Reference,
        document: &[u8],
        media_type: &str,
        layers: Vec<Descriptor>,
    ) -> Result<Digest> {
        let registry = self.registry(true)?;
        let config = Descriptor::of(media_type, document);
        let bytes = document.to_vec();
        let mut open = |offset: u64| -> io::Result<Box<dyn Read>> {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Ok(Box::new(io::Cursor::new(bytes[start..].to_vec())))
        };
        registry.push_blob(reference, &config, &[], &mut open, &|_| {})?;
        for layer in &layers {
            registry.push_blob(reference, layer, &[], &mut |offset| self.open_blob(layer, offset), &|_| {})?;
        }
        let manifest = Manifest { annotations: BTreeMap::new(), ..Manifest::oci(config, layers) };
        let bytes = serde_json::to_vec(&manifest).map_err(|e| EngineError::Invalid(e.to_string()))?;
        Ok(registry.push_manifest(reference, MediaType::OCI_MANIFEST, &bytes)?)
    }
}
