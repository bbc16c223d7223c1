//! copy: an image from one place to another – registries, archives, layouts, the store – as it is: no byte of a manifest
//! changes, and nothing is unpacked but what goes into the store.
//!
//! A place to read is a [`Source`], one to write a [`Sink`]. What lies between them is the same for all: the documents
//! from the top down, the blobs side by side, the documents again from the bottom up – so that a name never stands for
//! what is not there yet.

mod archives;
mod layout;
mod place;
mod registries;
mod stores;

pub use place::{Place, PlaceError};
pub(super) use registries::{FromRegistry, ToRegistry};
pub(super) use stores::FromStore;

use super::workers::{Outcome, Watched};
use super::{CopyEvent, CopyState, LayerInfo};
use crate::{Engine, EngineError, Result};
use oci::{Descriptor, Digest, Document, Hasher, Index, MAX_CONFIG_BYTES, Manifest, MediaType, Platform};
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;

/// Indexes may name indexes.
const MAX_DEPTH: usize = 3;
/// Manifests of one copy.
const MAX_MANIFESTS: usize = 1000;

pub(super) type Progress<'a> = &'a (dyn Fn(CopyEvent) + Sync);

/// What to copy.
#[derive(Clone, Debug)]
pub struct CopyRequest {
    /// From where.
    pub from: Place,
    /// To where.
    pub to: Place,
    /// Which of an index's images.
    pub platforms: Platforms,
    /// False accepts any certificate and plain http, where it is copied from.
    pub from_tls_verify: bool,
    /// The same where it is copied to.
    pub to_tls_verify: bool,
}

/// Which images of an index are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platforms {
    /// The index with all it names.
    All,
    /// The one image for a platform.
    One(Platform),
}

/// What a copy brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Of the manifest or index.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// A manifest or index: what names it, its bytes, and what they say.
pub(super) struct Node {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
    pub(super) document: Document,
}

impl Node {
    pub(super) fn new(descriptor: Descriptor, bytes: Vec<u8>) -> Result<Node> {
        if !descriptor.digest.matches(&bytes) {
            let (expected, got) = (descriptor.digest, Digest::sha256(&bytes));
            return Err(store::StoreError::DigestMismatch { what: "manifest", expected, got }.into());
        }
        let document = Document::parse(&bytes, Some(&descriptor.media_type)).map_err(store::StoreError::from)?;
        Ok(Node { descriptor, bytes, document })
    }
}

/// Where an image comes from.
pub(super) trait Source: Sync {
    /// What the place's name stands for.
    fn root(&self) -> Result<Node>;
    /// What an index names.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Node>;
    /// A blob's bytes from an offset on. Digests are checked by whoever copies.
    fn blob(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read>>;
    /// The registry and the repository in it that has a blob, so that it need not be sent.
    fn repository(&self, _blob: &Descriptor) -> Option<(&str, &str)> {
        None
    }
}

/// Where an image goes to.
pub(super) trait Sink: Sync {
    /// Told of each image before its blobs come. `config` is for images, none for artifacts.
    fn image(&self, _manifest: &Manifest, _config: Option<&[u8]>) -> Result<()> {
        Ok(())
    }
    /// Takes a blob, unless it is there.
    fn blob(&self, blob: &Descriptor, source: &dyn Source, outcome: &Arc<Outcome>, done: &dyn Fn(u64))
    -> Result<Taken>;
    /// Takes a manifest or index, after all it names. The last one is what the place's name is to stand for.
    fn manifest(&self, node: &Node, is_last: bool) -> Result<()>;
    /// All is there.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
    /// Whether the place takes indexes.
    fn takes_indexes(&self) -> bool {
        true
    }
}

/// What became of a blob.
pub(super) enum Taken {
    Copied,
    Existing,
    Mounted(String),
}

impl Engine {
    /// Copies an image as it is.
    pub fn copy(&self, request: &CopyRequest, progress: Progress<'_>) -> Result<Copied> {
        let from = self.registry(request.from_tls_verify)?;
        let to = self.registry(request.to_tls_verify)?;
        let copied = self.copy_with(request, &from, &to, progress);
        for warning in from.take_warnings().into_iter().chain(to.take_warnings()) {
            progress(CopyEvent::Warning(warning));
        }
        copied
    }

    fn copy_with(
        &self,
        request: &CopyRequest,
        from: &registry_client::Registry,
        to: &registry_client::Registry,
        progress: Progress<'_>,
    ) -> Result<Copied> {
        let source: Box<dyn Source> = match &request.from {
            Place::Registry(reference) => Box::new(FromRegistry::new(from, reference)),
            Place::Layout { folder, name } => Box::new(layout::FromLayout::open(folder, name.as_deref())?),
            Place::OciArchive { file, name } | Place::DockerArchive { file, name } => {
                Box::new(archives::FromArchive::open(self, file, name.as_deref())?)
            }
            Place::Store(name) => Box::new(FromStore::new(self, name)),
        };
        let root = source.root()?;
        let nodes = chosen(&*source, root, &request.platforms)?;
        let sink: Box<dyn Sink> = match &request.to {
            Place::Registry(reference) => Box::new(ToRegistry::new(to, reference)),
            Place::Layout { folder, name } => Box::new(layout::ToLayout::open(folder, name.as_deref())?),
            Place::OciArchive { file, name } => {
                Box::new(archives::ToArchive::create(file, name.as_deref(), store::ArchiveFormat::Oci)?)
            }
            Place::DockerArchive { file, name } => {
                Box::new(archives::ToArchive::create(file, name.as_deref(), store::ArchiveFormat::Docker)?)
            }
            Place::Store(name) => Box::new(stores::ToStore::new(self, name)?),
        };
        transfer(&*source, &*sink, &nodes, progress)
    }
}

/// The documents to copy, the lowest first.
pub(super) fn chosen(source: &dyn Source, root: Node, platforms: &Platforms) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    match platforms {
        Platforms::All => collect(source, root, &mut nodes, 0)?,
        Platforms::One(platform) => nodes.push(one_image(source, root, platform)?),
    }
    Ok(nodes)
}

fn one_image(source: &dyn Source, mut node: Node, wanted: &Platform) -> Result<Node> {
    for _ in 0..=MAX_DEPTH {
        let Document::Index(index) = &node.document else { return Ok(node) };
        let nested = || index.manifests.iter().find(|m| MediaType::is_index(&m.media_type) && m.platform.is_none());
        let entry = index.select(wanted).or_else(nested).ok_or_else(|| {
            let has: Vec<String> =
                index.manifests.iter().filter_map(|m| Some(m.platform.as_ref()?.to_string())).collect();
            EngineError::Invalid(format!("no matching manifest for {wanted} in the index: it has {}", has.join(", ")))
        })?;
        node = source.manifest(entry)?;
    }
    Err(EngineError::Invalid(format!("indexes within indexes, more than {MAX_DEPTH} deep")))
}

fn collect(source: &dyn Source, node: Node, nodes: &mut Vec<Node>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH || nodes.len() >= MAX_MANIFESTS {
        return Err(EngineError::Invalid(format!(
            "an index of indexes more than {MAX_DEPTH} deep, or of more than {MAX_MANIFESTS} manifests"
        )));
    }
    if nodes.iter().any(|known| known.descriptor.digest == node.descriptor.digest) {
        return Ok(());
    }
    if let Document::Index(Index { manifests, .. }) = &node.document {
        for entry in manifests {
            collect(source, source.manifest(entry)?, nodes, depth + 1)?;
        }
    }
    nodes.push(node);
    Ok(())
}

/// Blobs side by side, then the documents.
pub(super) fn transfer(source: &dyn Source, sink: &dyn Sink, nodes: &[Node], progress: Progress<'_>) -> Result<Copied> {
    if !sink.takes_indexes() && nodes.len() > 1 {
        return Err(EngineError::Invalid("the destination holds single images: name a platform".to_owned()));
    }
    let blobs = blobs_of(source, sink, nodes)?;
    let info = |blob: &Descriptor| LayerInfo { id: blob.digest.short().to_owned(), size_bytes: blob.size };
    progress(CopyEvent::Blobs(blobs.iter().map(info).collect()));
    let outcome = Arc::new(Outcome::default());
    outcome.run(&blobs, |blob| {
        let event = |state| progress(CopyEvent::Blob { id: blob.digest.short().to_owned(), state });
        let done = |done_bytes| event(CopyState::Copying { done_bytes });
        event(match sink.blob(blob, source, &outcome, &done)? {
            Taken::Copied => CopyState::Copied,
            Taken::Existing => CopyState::AlreadyExists,
            Taken::Mounted(from) => CopyState::Mounted { from },
        });
        Ok(())
    })?;
    for (index, node) in nodes.iter().enumerate() {
        sink.manifest(node, index + 1 == nodes.len())?;
    }
    sink.finish()?;
    let last = nodes.last().ok_or_else(|| EngineError::Invalid("there is nothing to copy".to_owned()))?;
    let size_bytes = u64::try_from(last.bytes.len()).unwrap_or(u64::MAX);
    Ok(Copied { digest: last.descriptor.digest.clone(), size_bytes })
}

/// Every blob once, the largest first. Layers that are to be had elsewhere (`urls`) stay there.
fn blobs_of(source: &dyn Source, sink: &dyn Sink, nodes: &[Node]) -> Result<Vec<Descriptor>> {
    let mut seen = BTreeSet::new();
    let mut blobs: Vec<Descriptor> = Vec::new();
    for node in nodes {
        let Document::Manifest(manifest) = &node.document else { continue };
        let config = match is_image(manifest) {
            true => Some(small_blob(source, &manifest.config)?),
            false => None,
        };
        sink.image(manifest, config.as_deref())?;
        let all = manifest.layers.iter().filter(|layer| layer.urls.is_empty()).chain([&manifest.config]);
        blobs.extend(all.filter(|blob| seen.insert(blob.digest.clone())).cloned());
    }
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    Ok(blobs)
}

pub(super) fn is_image(manifest: &Manifest) -> bool {
    matches!(manifest.config.media_type.as_str(), MediaType::OCI_CONFIG | MediaType::DOCKER_CONFIG)
}

pub(super) fn small_blob(source: &dyn Source, blob: &Descriptor) -> Result<Vec<u8>> {
    if blob.size > MAX_CONFIG_BYTES {
        let text = format!("the config {} of {} bytes is over the limit", blob.digest, blob.size);
        return Err(EngineError::Invalid(text));
    }
    let mut bytes = Vec::new();
    let mut reader = Verified::new(source.blob(blob, 0)?, blob);
    reader.read_to_end(&mut bytes).map_err(|e| EngineError::io("read", blob.digest.as_str(), e))?;
    Ok(bytes)
}

/// Content that is what its descriptor says, or ends in an error.
pub(super) struct Verified<R> {
    inner: R,
    expected: Digest,
    hasher: Option<Hasher>,
    left: u64,
}

impl<R: Read> Verified<R> {
    pub(super) fn new(inner: R, blob: &Descriptor) -> Verified<R> {
        Verified { inner, expected: blob.digest.clone(), hasher: Some(blob.digest.hasher()), left: blob.size }
    }

    fn end(&mut self) -> io::Result<usize> {
        let bad = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        if self.left > 0 {
            return Err(bad(format!("{} ends {} bytes early", self.expected, self.left)));
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(got) if got != self.expected => {
                Err(bad(format!("the content's digest is {got}, expected {}", self.expected)))
            }
            _ => Ok(0),
        }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let count = if part.is_empty() { 0 } else { self.inner.read(part)? };
        if count == 0 {
            return if buffer.is_empty() { Ok(0) } else { self.end() };
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(part.get(..count).unwrap_or_default());
        }
        self.left = self.left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

/// A source's blob as sinks read it: verified, and ending when another blob has failed.
pub(super) fn content(
    source: &dyn Source,
    blob: &Descriptor,
    outcome: &Arc<Outcome>,
) -> Result<Verified<Watched<Box<dyn Read>>>> {
    let inner = Watched { inner: source.blob(blob, 0)?, outcome: outcome.clone() };
    Ok(Verified::new(inner, blob))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn content_is_held_to_its_descriptor() {
        let blob = Descriptor::of("x", b"expected");
        let read = |bytes: &'static [u8]| {
            let mut out = Vec::new();
            Verified::new(bytes, &blob).read_to_end(&mut out).map(|_| out).map_err(|e| e.to_string())
        };
        assert_eq!(read(b"expected").unwrap(), b"expected");
        assert_eq!(read(b"expected and more").unwrap(), b"expected", "no more than was promised");
        assert!(read(b"short").unwrap_err().contains("ends 3 bytes early"));
        assert!(read(b"eXpected").unwrap_err().contains("expected sha256"));
    }
}
