//! `save`: images as one tar. Both forms share the blobs of an OCI layout; docker's has a manifest.json beside it,
//! which every docker, podman and skopeo reads.

use super::Result;
use crate::{ArchiveFormat, Image, Store, StoreError};
use oci::{Descriptor, Digest, Document, Index, Manifest, MediaType, Reference};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Where containerd and docker look for the whole name.
const NAME: &str = "io.containerd.image.name";
/// Where podman and skopeo look for it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One image of docker's manifest.json.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Store {
    /// Writes images as an archive. An image asked for by a name is saved under that name alone, by id under all it has.
    pub fn save(&self, names: &[&str], format: ArchiveFormat, out: &mut dyn Write) -> Result<()> {
        let mut archive = Archive { tar: tar::Builder::new(out), written: BTreeSet::new() };
        let (mut descriptors, mut entries) = (Vec::new(), Vec::new());
        for name in names {
            let image = self.image(name)?;
            let tags = tags_for(name, &image);
            let (descriptor, bytes) = self.manifest_of(&image)?;
            let Document::Manifest(manifest) = Document::parse(&bytes, Some(&descriptor.media_type))? else {
                return Err(StoreError::BadImage { image: (*name).to_owned(), why: "its manifest is an index".into() });
            };
            archive.blob(self, &manifest.config)?;
            for layer in &manifest.layers {
                archive.blob(self, layer)?;
            }
            archive.file(&blob_name(&descriptor.digest), &bytes)?;
            descriptors.extend(named_descriptors(&descriptor, &tags));
            entries.push(docker_entry(&manifest, &tags));
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(MediaType::OCI_INDEX.to_owned()),
            manifests: descriptors,
            annotations: BTreeMap::new(),
        };
        archive.file("index.json", &json(&index)?)?;
        if format == ArchiveFormat::Docker {
            archive.file("manifest.json", &json(&entries)?)?;
        }
        archive.file("oci-layout", OCI_LAYOUT)?;
        archive.tar.finish().map_err(broken)
    }
}

/// The names an image is saved under: the one it was asked for by, or all if that was an id.
fn tags_for(asked: &str, image: &Image) -> Vec<Reference> {
    match asked.parse::<Reference>() {
        Ok(name) if image.names.contains(&name) => vec![name],
        _ => image.names.clone(),
    }
}

fn docker_entry(manifest: &Manifest, tags: &[Reference]) -> DockerEntry {
    let tags: Vec<String> = tags.iter().map(Reference::familiar).collect();
    DockerEntry {
        config: blob_name(&manifest.config.digest),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
    }
}

/// The manifest once a name; once without where there is none.
fn named_descriptors(descriptor: &Descriptor, tags: &[Reference]) -> Vec<Descriptor> {
    if tags.is_empty() {
        return vec![descriptor.clone()];
    }
    let named = |tag: &Reference| {
        let mut descriptor = descriptor.clone();
        descriptor.annotations.insert(NAME.to_owned(), tag.to_string());
        descriptor.annotations.insert(REF_NAME.to_owned(), tag.to_string());
        descriptor
    };
    tags.iter().map(named).collect()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| StoreError::BadArchive(e.to_string()))
}

fn broken(error: io::Error) -> StoreError {
    StoreError::io("write", "the archive")(error)
}

struct Archive<'a> {
    tar: tar::Builder<&'a mut dyn Write>,
    written: BTreeSet<String>,
}

impl Archive<'_> {
    /// Adds a blob of the store, once.
    fn blob(&mut self, store: &Store, blob: &Descriptor) -> Result<()> {
        let name = blob_name(&blob.digest);
        if !self.written.insert(name.clone()) {
            return Ok(());
        }
        let mut file = store.blob(&blob.digest)?;
        let size = file.metadata().map_err(StoreError::io("read", &name))?.len();
        let mut header = header(size);
        self.tar.append_data(&mut header, &name, &mut file).map_err(broken)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        self.tar.append_data(&mut header(bytes.len() as u64), name, bytes).map_err(broken)
    }
}

/// The same bytes for the same images: no times, no owners.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
