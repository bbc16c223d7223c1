//! Registries as places to copy from and to.

use super::{Node, Sink, Source, Taken};
use crate::Result;
use crate::images::workers::{Outcome, Watched};
use oci::{Descriptor, Reference};
use registry_client::{BlobPush, ManifestResponse, Registry};
use std::io::{self, Read};
use std::sync::Arc;

/// An image at a registry.
pub(in crate::images) struct FromRegistry<'a> {
    registry: &'a Registry,
    reference: Reference,
}

impl<'a> FromRegistry<'a> {
    pub(in crate::images) fn new(registry: &'a Registry, reference: &Reference) -> FromRegistry<'a> {
        FromRegistry { registry, reference: reference.clone() }
    }
}

fn node(found: ManifestResponse) -> Node {
    let size = u64::try_from(found.bytes.len()).unwrap_or(u64::MAX);
    let descriptor = Descriptor::new(&found.media_type, found.digest, size);
    Node { descriptor, bytes: found.bytes, document: found.document }
}

impl Source for FromRegistry<'_> {
    fn root(&self) -> Result<Node> {
        Ok(node(self.registry.manifest(&self.reference)?))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Node> {
        Ok(node(self.registry.manifest(&self.reference.at_digest(descriptor.digest.clone()))?))
    }

    fn blob(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read>> {
        Ok(Box::new(self.registry.blob(&self.reference, blob, offset)?))
    }

    fn repository(&self, _blob: &Descriptor) -> Option<(&str, &str)> {
        Some((self.reference.domain(), self.reference.path()))
    }
}

/// A registry that gets an image.
pub(in crate::images) struct ToRegistry<'a> {
    registry: &'a Registry,
    reference: Reference,
}

impl<'a> ToRegistry<'a> {
    pub(in crate::images) fn new(registry: &'a Registry, reference: &Reference) -> ToRegistry<'a> {
        ToRegistry { registry, reference: reference.clone() }
    }
}

impl Sink for ToRegistry<'_> {
    fn blob(
        &self,
        blob: &Descriptor,
        source: &dyn Source,
        outcome: &Arc<Outcome>,
        done: &dyn Fn(u64),
    ) -> Result<Taken> {
        let near = source.repository(blob).filter(|(domain, _)| *domain == self.reference.domain());
        let mount_from: Vec<String> = near.map(|(_, path)| path.to_owned()).into_iter().collect();
        let mut open = |offset| -> io::Result<Box<dyn Read>> {
            let inner = source.blob(blob, offset).map_err(|error| match error {
                crate::EngineError::Registry(error) => outcome.note(error),
                other => io::Error::other(other.to_string()),
            })?;
            Ok(Box::new(Watched { inner, outcome: outcome.clone() }))
        };
        Ok(match self.registry.push_blob(&self.reference, blob, &mount_from, &mut open, done)? {
            BlobPush::Existing => Taken::Existing,
            BlobPush::Mounted(from) => Taken::Mounted(from),
            BlobPush::Uploaded => Taken::Copied,
        })
    }

    fn manifest(&self, node: &Node, is_last: bool) -> Result<()> {
        let to = match is_last {
            true => self.reference.clone(),
            false => self.reference.at_digest(node.descriptor.digest.clone()),
        };
        self.registry.push_manifest(&to, &node.descriptor.media_type, &node.bytes)?;
        Ok(())
    }
}
