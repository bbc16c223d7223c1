//! pull: name → manifest → config → layers, each layer one stream from the socket to its files.

use super::workers::{Outcome, Watched};
use super::{LayerInfo, PullEvent, PullRequest, PullState, Pulled};
use crate::{Engine, EngineError, Result};
use oci::{Descriptor, Digest, ImageConfig, MAX_CONFIG_BYTES, Manifest, MediaType, Platform, Reference};
use registry_client::Registry;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;
use store::StoreError;

type Progress<'a> = &'a (dyn Fn(PullEvent) + Sync);

/// A layer that is to be fetched: what to ask for, and what must come out of it.
struct Layer<'a> {
    blob: &'a Descriptor,
    diff_id: &'a Digest,
}

impl Layer<'_> {
    fn id(&self) -> String {
        self.blob.digest.short().to_owned()
    }
}

impl Engine {
    /// Fetches an image: its layers side by side, largest first, each unpacked while it arrives. What is here is
    /// not fetched again.
    pub fn pull(&self, request: &PullRequest, progress: Progress<'_>) -> Result<Pulled> {
        // What a killed pull left behind may be large; whatever cannot be removed now can wait.
        let _ = self.store().sweep();
        let registry = self.registry(request.tls_verify)?;
        let pulled = self.pull_from(&registry, request, progress);
        for warning in registry.take_warnings() {
            progress(PullEvent::Warning(warning));
        }
        pulled
    }

    /// The tags a repository has at its registry: what `pull --all-tags` goes through.
    pub fn remote_tags(&self, repository: &Reference, tls_verify: bool) -> Result<Vec<String>> {
        self.registry(tls_verify)?.tags(repository).map_err(|error| denied(repository, error))
    }

    fn pull_from(&self, registry: &Registry, request: &PullRequest, progress: Progress<'_>) -> Result<Pulled> {
        let reference = &request.reference;
        let (digest, named) = match self.unchanged(registry, request) {
            Some(digest) => (digest, None),
            None => {
                let named = registry.manifest(reference).map_err(|error| denied(reference, error))?;
                (named.digest.clone(), Some(named))
            }
        };
        let name = match reference.digest() {
            Some(_) => reference.at_digest(digest.clone()),
            None => reference.clone(),
        };
        progress(PullEvent::Started {
            version: reference.tag().unwrap_or(reference.tag_or_digest()).to_owned(),
            repository: reference.path().to_owned(),
        });
        let before = self.store().image(&name.to_string()).ok().map(|image| image.id);
        if let Some(image_id) = self.already_here(request, &digest) {
            let tagged = if name.tag().is_some() { self.store().tag(&image_id, &name) } else { Ok(()) };
            match tagged {
                // Another process removed it just now: it is pulled as if it had never been there.
                Err(StoreError::NoSuchImage(_)) => {}
                other => {
                    other?;
                    return Ok(Pulled { up_to_date: before.as_ref() == Some(&image_id), image_id, digest });
                }
            }
        }
        let wanted = request.platform.clone().unwrap_or_else(Platform::host);
        let named = named.map_or_else(|| registry.manifest(reference), Ok)?;
        let (found, manifest) = registry.manifest_for(reference, named, &wanted)?;
        let config_bytes = registry.blob_bytes(reference, &manifest.config, MAX_CONFIG_BYTES)?;
        let config = image_config(reference, &manifest, &config_bytes)?;
        check_platform(reference, &config, request, &wanted, progress)?;
        self.fetch_layers(registry, reference, &manifest, &config, progress)?;

        let descriptor =
            Descriptor::new(&found.media_type, found.digest, u64::try_from(found.bytes.len()).unwrap_or(u64::MAX));
        let names = match reference.digest() {
            Some(_) => vec![name],
            None => vec![name, reference.at_digest(digest.clone())],
        };
        let image_id = self.store().put_pulled_image(&names, &descriptor, &found.bytes, &config_bytes)?;
        // Of layers that were here too.
        self.store().note_sources(reference, &manifest.layers)?;
        self.store().sync()?;
        Ok(Pulled { up_to_date: before.as_ref() == Some(&image_id), image_id, digest })
    }

    /// The digest the name stands for, where the image is here already. That takes a HEAD, which registries that count
    /// pulls do not count, or nothing for a name with a digest. What goes wrong goes wrong again, with a reason, at the GET.
    fn unchanged(&self, registry: &Registry, request: &PullRequest) -> Option<Digest> {
        let is_here = |digest: &Digest| self.already_here(request, digest).is_some();
        if let Some(digest) = request.reference.digest() {
            return is_here(digest).then(|| digest.clone());
        }
        self.store().image(&request.reference.to_string()).ok()?;
        let named = registry.head_manifest(&request.reference).ok()??;
        is_here(&named.digest).then_some(named.digest)
    }

    /// The image that was pulled by this very digest before, if nothing of it is missing. Of an index it may be
    /// another platform's, so this is a shortcut for the host's alone.
    fn already_here(&self, request: &PullRequest, digest: &Digest) -> Option<Digest> {
        let image = self.store().image(&request.reference.at_digest(digest.clone()).to_string()).ok()?;
        let host = Platform::host();
        let ours = image.config.os == host.os && image.config.architecture == host.architecture;
        let whole = image.config.rootfs.diff_ids.iter().all(|diff_id| self.store().has_layer(diff_id));
        (request.platform.is_none() && ours && whole).then_some(image.id)
    }

    fn fetch_layers(
        &self,
        registry: &Registry,
        reference: &Reference,
        manifest: &Manifest,
        config: &ImageConfig,
        progress: Progress<'_>,
    ) -> Result<()> {
        let layers: Vec<Layer<'_>> = manifest
            .layers
            .iter()
            .zip(&config.rootfs.diff_ids)
            .map(|(blob, diff_id)| Layer { blob, diff_id })
            .collect();
        let info = |layer: &Layer<'_>| LayerInfo { id: layer.id(), size_bytes: layer.blob.size };
        progress(PullEvent::Layers(layers.iter().map(info).collect()));

        let mut seen = BTreeSet::new();
        let mut missing: Vec<&Layer<'_>> = Vec::new();
        for layer in &layers {
            // The same layer twice in an image is unusual but fine: it is fetched once.
            if !seen.insert(layer.diff_id) {
                continue;
            }
            let here = self.store().has_layer(layer.diff_id);
            let state = if here { PullState::AlreadyExists } else { PullState::Waiting };
            progress(PullEvent::Layer { id: layer.id(), state });
            if !here {
                missing.push(layer);
            }
        }
        missing.sort_by_key(|layer| std::cmp::Reverse(layer.blob.size));
        let outcome = Arc::new(Outcome::default());
        outcome.run(&missing, |layer| self.fetch_layer(registry, reference, layer, &outcome, progress))
    }

    fn fetch_layer(
        &self,
        registry: &Registry,
        reference: &Reference,
        layer: &Layer<'_>,
        outcome: &Arc<Outcome>,
        progress: Progress<'_>,
    ) -> Result<()> {
        let event = |state| progress(PullEvent::Layer { id: layer.id(), state });
        let mut open = |offset| -> io::Result<Box<dyn Read>> {
            let inner = registry.blob(reference, layer.blob, offset).map_err(|error| outcome.note(error))?;
            Ok(Box::new(Watched { inner, outcome: outcome.clone() }))
        };
        event(PullState::Downloading { done_bytes: 0 });
        let done = |done_bytes| event(PullState::Downloading { done_bytes });
        self.store().ingest_pulled_layer(layer.blob, layer.diff_id, reference, &mut open, &done)?;
        event(PullState::Complete);
        Ok(())
    }
}

fn image_config(reference: &Reference, manifest: &Manifest, bytes: &[u8]) -> Result<ImageConfig> {
    let kind = manifest.config.media_type.as_str();
    if !matches!(kind, MediaType::OCI_CONFIG | MediaType::DOCKER_CONFIG | "application/octet-stream") {
        let text = format!("{} is no container image but an artifact of type {kind}", reference.familiar());
        return Err(EngineError::Invalid(text));
    }
    let config: ImageConfig = serde_json::from_slice(bytes)
        .map_err(|e| EngineError::Invalid(format!("{}: malformed image config: {e}", reference.familiar())))?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(EngineError::Invalid(format!(
            "{}: malformed image: the manifest has {layers} layers, the config {diff_ids}",
            reference.familiar()
        )));
    }
    Ok(config)
}

/// A single manifest may be for any platform. That is an error where one was asked for, else a warning.
fn check_platform(
    reference: &Reference,
    config: &ImageConfig,
    request: &PullRequest,
    wanted: &Platform,
    progress: Progress<'_>,
) -> Result<()> {
    let actual = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        ..Platform::default()
    };
    if config.os.is_empty() || wanted == &actual || wanted.rank(&actual).is_some() {
        return Ok(());
    }
    let text = format!(
        "the image {} is for {actual}, which is not the {} platform ({wanted})",
        reference.familiar(),
        if request.platform.is_some() { "requested" } else { "host's" }
    );
    if request.platform.is_some() {
        return Err(EngineError::Invalid(text));
    }
    progress(PullEvent::Warning(text));
    Ok(())
}

/// Registries answer alike to what is not there and to what is not for us.
fn denied(reference: &Reference, error: registry_client::RegistryError) -> EngineError {
    if error.is_denied() {
        return EngineError::PullDenied { name: reference.familiar_name(), source: Box::new(error) };
    }
    error.into()
}
