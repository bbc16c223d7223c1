//! push: the config, then layers side by side, the manifest last – so that a name never points at what is not there.

use super::pace::{Pace, Paced};
use super::workers::{Outcome, Watched};
use super::{LayerInfo, PushEvent, PushRequest, PushState, Pushed};
use crate::{Engine, EngineError, Result};
use oci::{Descriptor, Digest, Document, Manifest, Reference};
use registry_client::{BlobPush, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::Arc;
use store::{Image, ImageSummary};

type Progress<'a> = &'a (dyn Fn(PushEvent) + Sync);

/// Repositories that a layer may be mounted from; more are not tried.
const MAX_MOUNT_SOURCES: usize = 4;

/// A layer on its way to the registry.
struct Layer<'a> {
    diff_id: &'a Digest,
    /// Where the image has a manifest already: the blob it names.
    blob: Option<Descriptor>,
    mount_from: Vec<String>,
}

impl Layer<'_> {
    /// 0 where it has to be compressed first.
    fn size_bytes(&self) -> u64 {
        self.blob.as_ref().map_or(0, |blob| blob.size)
    }
}

impl Engine {
    /// Sends a local image to the registry its name says: layers side by side, skipping what is there.
    pub fn push(&self, request: &PushRequest, progress: Progress<'_>) -> Result<Pushed> {
        let registry = self.registry(request.tls_verify)?;
        let pushed = self.push_to(&registry, &request.reference, progress);
        for warning in registry.take_warnings() {
            progress(PushEvent::Warning(warning));
        }
        pushed
    }

    /// Sends images of several platforms under one name: each by its digest, then the index of them.
    pub fn push_index(
        &self,
        images: &[Digest],
        request: &PushRequest,
        annotations: &BTreeMap<String, String>,
        progress: Progress<'_>,
    ) -> Result<Pushed> {
        let (registry, reference) = (self.registry(request.tls_verify)?, &request.reference);
        progress(PushEvent::Started { repository: reference.repository() });
        let images = images.iter().map(|id| self.store().image(id.as_str())).collect::<Result<Vec<_>, _>>()?;
        for image in &images {
            let (descriptor, bytes) = self.send_blobs(&registry, image, reference, progress)?;
            let by_digest = reference.at_digest(descriptor.digest.clone());
            registry.push_manifest(&by_digest, &descriptor.media_type, &bytes)?;
        }
        let (descriptor, bytes) = self.store().index_of(&images, annotations)?;
        let digest = registry.push_manifest(reference, &descriptor.media_type, &bytes)?;
        registry.take_warnings().into_iter().for_each(|warning| progress(PushEvent::Warning(warning)));
        Ok(Pushed { digest, size_bytes: descriptor.size })
    }

    fn push_to(&self, registry: &Registry, reference: &Reference, progress: Progress<'_>) -> Result<Pushed> {
        let image = self.store().image(&reference.to_string())?;
        progress(PushEvent::Started { repository: reference.repository() });
        let (descriptor, bytes) = self.send_blobs(registry, &image, reference, progress)?;
        let digest = registry.push_manifest(reference, &descriptor.media_type, &bytes)?;
        self.store().add_repo_digest(&image.id, &reference.at_digest(digest.clone()))?;
        Ok(Pushed { digest, size_bytes: descriptor.size })
    }

    /// All of an image but its manifest, which is returned.
    fn send_blobs(
        &self,
        registry: &Registry,
        image: &Image,
        reference: &Reference,
        progress: Progress<'_>,
    ) -> Result<(Descriptor, Vec<u8>)> {
        let layers = self.layers_of(image, reference)?;
        let info =
            |layer: &Layer<'_>| LayerInfo { id: layer.diff_id.short().to_owned(), size_bytes: layer.size_bytes() };
        progress(PushEvent::Layers(layers.iter().map(info).collect()));
        // The small one first: who may not push hears so before minutes of compression.
        self.send_config(registry, reference, &image.id)?;
        let mut seen = BTreeSet::new();
        let mut unique: Vec<&Layer<'_>> = layers.iter().filter(|layer| seen.insert(layer.diff_id)).collect();
        unique.sort_by_key(|layer| std::cmp::Reverse(layer.size_bytes()));
        let pace = Pace::new(unique.iter().map(|layer| layer.size_bytes()));
        let outcome = Arc::new(Outcome::default());
        outcome.run(&unique, |layer| self.send_layer(registry, reference, layer, (&outcome, &pace), progress))?;
        Ok(self.store().manifest_of(image)?)
    }

    /// An image's id is its config's digest.
    fn send_config(&self, registry: &Registry, to: &Reference, id: &Digest) -> Result<()> {
        let file = self.store().blob(id)?;
        let size = file.metadata().map_err(|e| EngineError::io("look at the config", id.as_str(), e))?.len();
        let config = Descriptor::new(oci::MediaType::OCI_CONFIG, id.clone(), size);
        registry.push_blob(to, &config, &[], &mut |offset| self.open_blob(&config, offset), &|_| {})?;
        Ok(())
    }

    /// The image's layers, lowest first, with where else on that registry each may be.
    fn layers_of<'a>(&self, image: &'a Image, to: &Reference) -> Result<Vec<Layer<'a>>> {
        let blobs = match &image.manifest {
            Some(_) => {
                let (descriptor, bytes) = self.store().manifest_of(image)?;
                parse_manifest(to, &descriptor, &bytes)?.layers.into_iter().map(Some).collect()
            }
            None => vec![None; image.config.rootfs.diff_ids.len()],
        };
        let others = self.store().images()?;
        let layer = |(diff_id, blob)| Layer { diff_id, blob, mount_from: mount_sources(&others, to, diff_id) };
        Ok(image.config.rootfs.diff_ids.iter().zip(blobs).map(layer).collect())
    }

    fn send_layer(
        &self,
        registry: &Registry,
        to: &Reference,
        layer: &Layer<'_>,
        (outcome, pace): (&Arc<Outcome>, &Arc<Pace>),
        progress: Progress<'_>,
    ) -> Result<()> {
        let event = |state| progress(PushEvent::Layer { id: layer.diff_id.short().to_owned(), state });
        let blob = match &layer.blob {
            Some(blob) => blob.clone(),
            None => {
                event(PushState::Preparing);
                self.store().layer_blob(layer.diff_id)?
            }
        };
        let sent = |done_bytes| event(PushState::Pushing { done_bytes, total_bytes: blob.size });
        let mut open = |offset| {
            let inner = self.open_blob(&blob, offset)?;
            let inner = Paced::new(Watched { inner, outcome: outcome.clone() }, pace, blob.size);
            Ok(Box::new(inner) as Box<dyn Read>)
        };
        let mut mount_from = layer.mount_from.clone();
        for source in self.sources_at(to, &blob.digest)? {
            if mount_from.len() < MAX_MOUNT_SOURCES && !mount_from.contains(&source) {
                mount_from.push(source);
            }
        }
        let how = registry.push_blob(to, &blob, &mount_from, &mut open, &sent)?;
        event(match how {
            BlobPush::Existing => PushState::AlreadyExists,
            BlobPush::Mounted(from) => PushState::Mounted { from },
            BlobPush::Uploaded => PushState::Pushed,
        });
        Ok(())
    }

    /// Other repositories of the same registry that the blob came from or went to.
    fn sources_at(&self, to: &Reference, blob: &Digest) -> Result<Vec<String>> {
        let known = self.store().blob_sources(blob)?;
        let names = known.iter().filter_map(|name| name.parse::<Reference>().ok());
        let there = names.filter(|name| name.domain() == to.domain() && name.path() != to.path());
        Ok(there.map(|name| name.path().to_owned()).collect())
    }

    pub(super) fn open_blob(&self, blob: &Descriptor, offset: u64) -> io::Result<Box<dyn Read>> {
        self.store().open_blob(blob, offset).map_err(io::Error::other)
    }
}

/// Repositories of the same registry that are known to have the layer: images pulled from or pushed to there.
fn mount_sources(images: &[ImageSummary], to: &Reference, diff_id: &Digest) -> Vec<String> {
    let with_layer = images.iter().filter(|image| image.diff_ids.contains(diff_id));
    let mut sources: Vec<String> = with_layer
        .flat_map(|image| &image.repo_digests)
        .filter(|name| name.domain() == to.domain() && name.path() != to.path())
        .map(|name| name.path().to_owned())
        .collect();
    sources.sort();
    sources.dedup();
    sources.truncate(MAX_MOUNT_SOURCES);
    sources
}

fn parse_manifest(reference: &Reference, descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest> {
    match Document::parse(bytes, Some(&descriptor.media_type)).map_err(store::StoreError::from)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => {
            Err(EngineError::Invalid(format!("{}: an index where an image's manifest should be", reference.familiar())))
        }
    }
}
