//! The store as a place to copy from and to.

use super::{Node, Sink, Source, Taken};
use crate::images::workers::{Outcome, Watched};
use crate::{Engine, EngineError, Result};
use oci::{Descriptor, Digest, Document, ImageConfig, Manifest, Reference};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// An image of the store.
pub(in crate::images) struct FromStore<'a> {
    engine: &'a Engine,
    name: String,
}

impl<'a> FromStore<'a> {
    pub(in crate::images) fn new(engine: &'a Engine, name: &str) -> FromStore<'a> {
        FromStore { engine, name: name.to_owned() }
    }
}

impl Source for FromStore<'_> {
    fn root(&self) -> Result<Node> {
        let image = self.engine.store().image(&self.name)?;
        let (descriptor, bytes) = self.engine.store().manifest_of(&image)?;
        Node::new(descriptor, bytes)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Node> {
        let root = self.root()?;
        if root.descriptor.digest == descriptor.digest {
            return Ok(root);
        }
        Err(EngineError::Invalid(format!("{}: its manifest is {} by now", self.name, root.descriptor.digest)))
    }

    fn blob(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read>> {
        Ok(self.engine.store().open_blob(blob, offset)?)
    }
}

/// The store as it gets an image: its layers are unpacked on the way.
pub(super) struct ToStore<'a> {
    engine: &'a Engine,
    name: Reference,
    /// By layer: what it unpacks to.
    diff_ids: Mutex<BTreeMap<Digest, Digest>>,
    config: Mutex<Vec<u8>>,
}

impl<'a> ToStore<'a> {
    pub(super) fn new(engine: &'a Engine, name: &str) -> Result<ToStore<'a>> {
        let name: Reference = name.parse().map_err(store::StoreError::from)?;
        if name.digest().is_some() {
            return Err(EngineError::Invalid(format!("{} is no name to give: a tag is", name.familiar())));
        }
        Ok(ToStore { engine, name, diff_ids: Mutex::default(), config: Mutex::default() })
    }
}

impl Sink for ToStore<'_> {
    fn image(&self, manifest: &Manifest, config: Option<&[u8]>) -> Result<()> {
        let Some(bytes) = config else {
            let kind = &manifest.config.media_type;
            return Err(EngineError::Invalid(format!("it is no container image but an artifact of type {kind}")));
        };
        let config: ImageConfig = serde_json::from_slice(bytes)
            .map_err(|e| EngineError::Invalid(format!("malformed image config {}: {e}", manifest.config.digest)))?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let text = format!("{}: its config and its manifest have other layers", manifest.config.digest);
            return Err(EngineError::Invalid(text));
        }
        let pairs = manifest.layers.iter().map(|layer| layer.digest.clone()).zip(config.rootfs.diff_ids);
        self.diff_ids.lock().unwrap_or_else(PoisonError::into_inner).extend(pairs);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
        Ok(())
    }

    fn blob(
        &self,
        blob: &Descriptor,
        source: &dyn Source,
        outcome: &Arc<Outcome>,
        done: &dyn Fn(u64),
    ) -> Result<Taken> {
        let diff_id = self.diff_ids.lock().unwrap_or_else(PoisonError::into_inner).get(&blob.digest).cloned();
        let Some(diff_id) = diff_id else { return Ok(Taken::Existing) }; // the config: it comes with the manifest
        if self.engine.store().has_layer(&diff_id) {
            return Ok(Taken::Existing);
        }
        let mut open = |offset| -> io::Result<Box<dyn Read>> {
            let inner = source.blob(blob, offset).map_err(|error| match error {
                EngineError::Registry(error) => outcome.note(error),
                other => io::Error::other(other.to_string()),
            })?;
            Ok(Box::new(Watched { inner, outcome: outcome.clone() }))
        };
        self.engine.store().ingest_layer(blob, &diff_id, &mut open, done)?;
        Ok(Taken::Copied)
    }

    fn manifest(&self, node: &Node, _is_last: bool) -> Result<()> {
        let Document::Manifest(_) = &node.document else {
            return Err(EngineError::Invalid("the store holds single images: name a platform".to_owned()));
        };
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let names = [self.name.clone()];
        self.engine.store().put_pulled_image(&names, &node.descriptor, &node.bytes, &config)?;
        Ok(self.engine.store().sync()?)
    }

    fn takes_indexes(&self) -> bool {
        false
    }
}
