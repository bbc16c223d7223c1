//! What an image is pushed and saved as.

use crate::images::ImageRow;
use crate::{Image, Result, Store, StoreError};
use oci::{Descriptor, Digest, Document, Index, Manifest, MediaType, Platform};
use std::collections::BTreeMap;
use std::path::PathBuf;

impl Store {
    /// The `fs/` folders of an image's layers, lowest first: overlay's lowerdirs.
    pub fn image_layers(&self, image: &Image) -> Result<Vec<PathBuf>> {
        let row = self.row_of(&image.id)?;
        self.layer_folders(&row.layers)
    }

    pub(crate) fn row_of(&self, id: &Digest) -> Result<ImageRow> {
        let row = self.db.read("look up an image", |tx| self.image_row(tx, "id = ?", id.as_str()))?;
        match row {
            Some(row) => Ok(row),
            None => self
                .shared_image(id.as_str())?
                .map(|image| image.row)
                .ok_or_else(|| StoreError::NoSuchImage(id.to_string())),
        }
    }

    /// The manifest by which the image is pushed and saved, and its raw bytes: the pulled one, or one made
    /// (with its layer blobs) now and kept from then on.
    pub fn manifest_of(&self, image: &Image) -> Result<(Descriptor, Vec<u8>)> {
        if let Some(descriptor) = &image.manifest
            && self.has_blob(&descriptor.digest)
            && let Ok(bytes) = self.small_blob(&descriptor.digest)
            && descriptor.digest.matches(&bytes)
            && self.can_have_all_blobs(descriptor, &bytes)
        {
            return Ok((descriptor.clone(), bytes));
        }
        self.make_manifest(image, BTreeMap::new())
    }

    /// Gives a built image a manifest with these annotations, in the place of any it has.
    pub fn annotate(&self, image: &Digest, annotations: BTreeMap<String, String>) -> Result<Descriptor> {
        Ok(self.make_manifest(&self.image(image.as_str())?, annotations)?.0)
    }

    /// An index of images, each with its platform, and its raw bytes.
    pub fn index_of(&self, images: &[Image], annotations: &BTreeMap<String, String>) -> Result<(Descriptor, Vec<u8>)> {
        let mut manifests = Vec::new();
        for image in images {
            let mut descriptor = self.manifest_of(image)?.0;
            descriptor.platform = Some(Platform {
                architecture: image.config.architecture.clone(),
                os: image.config.os.clone(),
                variant: image.config.variant.clone(),
                ..Platform::default()
            });
            manifests.push(descriptor);
        }
        let media_type = Some(MediaType::OCI_INDEX.to_owned());
        let index = Index { schema_version: 2, media_type, manifests, annotations: annotations.clone() };
        let bytes = serde_json::to_vec(&index)
            .map_err(|e| StoreError::BadImage { image: "index".to_owned(), why: e.to_string() })?;
        Ok((Descriptor::of(MediaType::OCI_INDEX, &bytes), bytes))
    }

    fn make_manifest(&self, image: &Image, annotations: BTreeMap<String, String>) -> Result<(Descriptor, Vec<u8>)> {
        let config = self.small_blob(&image.id)?;
        let config = Descriptor::new(MediaType::OCI_CONFIG, image.id.clone(), config.len() as u64);
        let layers = image.config.rootfs.diff_ids.iter().map(|d| self.layer_blob(d)).collect::<Result<Vec<_>>>()?;
        let mut manifest = Manifest::oci(config, layers.into_iter().map(as_oci).collect());
        manifest.annotations = annotations;
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|e| StoreError::BadImage { image: image.id.to_string(), why: e.to_string() })?;
        let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
        if image.read_only {
            // Only here the manifest can be kept.
            self.adopt(&image.id)?;
        }
        self.ingest_blob(&descriptor, &bytes)?;
        self.db.write("keep an image's manifest", |tx| {
            self.set_manifest(tx, &image.id, &descriptor)?;
            self.write_image_file(tx, &image.id)
        })?;
        Ok((descriptor, bytes))
    }

    fn can_have_all_blobs(&self, descriptor: &Descriptor, bytes: &[u8]) -> bool {
        match Document::parse(bytes, Some(&descriptor.media_type)) {
            Ok(Document::Manifest(manifest)) => manifest.layers.iter().all(|layer| self.can_have_blob(&layer.digest)),
            _ => false,
        }
    }
}

/// In an OCI manifest docker's layer types go by their OCI names; the bytes are the same.
fn as_oci(mut layer: Descriptor) -> Descriptor {
    let kind = match layer.media_type.as_str() {
        MediaType::DOCKER_LAYER_GZIP => MediaType::OCI_LAYER_GZIP,
        MediaType::DOCKER_LAYER => MediaType::OCI_LAYER,
        other => other,
    };
    layer.media_type = kind.to_owned();
    layer
}
