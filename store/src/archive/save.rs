//! `save`: images as one tar. Both forms share the blobs of an OCI layout; docker's has a manifest.json beside it,
//! which every docker, podman and skopeo reads.

use super::Result;
use crate::layer_tar::{EMPTY_TAR, Purpose, write_layer};
use crate::{ArchiveFormat, Image, Store, StoreError};
use oci::{Descriptor, Document, Hasher, Index, Manifest, MediaType, Reference};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

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
        let mut images = Vec::new();
        for name in names {
            let image = self.image(name)?;
            let tags = tags_for(name, &image);
            images.push((image, tags));
        }
        self.save_as(&images, format, out)
    }

    /// Writes images as an archive, each under the given names.
    pub fn save_as(
        &self,
        images: &[(Image, Vec<Reference>)],
        format: ArchiveFormat,
        out: &mut dyn Write,
    ) -> Result<()> {
        let mut archive = ArchiveWriter::new(out);
        for (image, tags) in images {
            let (descriptor, manifest) = archive.image(self, image)?;
            archive.entry(&descriptor, Some(&manifest), &texts(tags))?;
        }
        archive.finish(format)?;
        Ok(())
    }

    /// Writes images of several platforms as an OCI archive of one index, under the given names.
    pub fn save_index(
        &self,
        images: &[Image],
        names: &[Reference],
        annotations: &BTreeMap<String, String>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let mut archive = ArchiveWriter::new(out);
        for image in images {
            archive.image(self, image)?;
        }
        let (descriptor, bytes) = self.index_of(images, annotations)?;
        archive.blob(&descriptor, &mut bytes.as_slice())?;
        archive.entry(&descriptor, None, &texts(names))?;
        archive.finish(ArchiveFormat::Oci)?;
        Ok(())
    }

    /// Writes the tar of a whole folder, as a layer of it would be. No folder is an empty one.
    pub fn tree_tar(&self, root: Option<BorrowedFd<'_>>, out: &mut dyn Write) -> Result<()> {
        self.tar_for(Purpose::Read, root, out)
    }

    /// As [`Store::tree_tar`], of a folder in which others write meanwhile: what goes is left out, what shrinks ends in zeros. Each
    /// file's user and group are those that `owner` has for them.
    pub fn live_tar(
        &self,
        root: Option<BorrowedFd<'_>>,
        owner: &dyn Fn(u32, u32) -> (u32, u32),
        out: &mut dyn Write,
    ) -> Result<()> {
        self.tar_for(Purpose::Live { owner }, root, out)
    }

    fn tar_for(&self, purpose: Purpose<'_>, root: Option<BorrowedFd<'_>>, out: &mut dyn Write) -> Result<()> {
        match root {
            Some(root) => write_layer(root, purpose, self.marks().prefix, out).map(drop),
            None => out.write_all(&EMPTY_TAR).map_err(StoreError::io("write", "the tar")),
        }
    }
}

fn texts(names: &[Reference]) -> Vec<String> {
    names.iter().map(Reference::to_string).collect()
}

/// A blob on its way out, hashed: after a power cut a file may have the right length and the wrong bytes.
struct Verified {
    content: Box<dyn Read>,
    hasher: Hasher,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

impl Verified {
    fn finish(self, blob: &Descriptor) -> Result<()> {
        let got = self.hasher.finish();
        if got == blob.digest {
            return Ok(());
        }
        Err(StoreError::DigestMismatch { what: "blob", expected: blob.digest.clone(), got })
    }
}

/// The names an image is saved under: the one it was asked for by, or all if that was an id.
fn tags_for(asked: &str, image: &Image) -> Vec<Reference> {
    match asked.parse::<Reference>() {
        Ok(name) if image.names.contains(&name) => vec![name],
        _ => image.names.clone(),
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| StoreError::BadArchive(e.to_string()))
}

fn broken(error: io::Error) -> StoreError {
    StoreError::io("write", "the archive")(error)
}

/// An archive that is being written: blobs in any order, then its table of contents.
pub struct ArchiveWriter<W: Write> {
    tar: tar::Builder<W>,
    written: BTreeSet<String>,
    index: Vec<Descriptor>,
    docker: Vec<DockerEntry>,
}

impl<W: Write> ArchiveWriter<W> {
    /// An empty one.
    pub fn new(out: W) -> ArchiveWriter<W> {
        ArchiveWriter { tar: tar::Builder::new(out), written: BTreeSet::new(), index: Vec::new(), docker: Vec::new() }
    }

    /// Adds a blob, once. `content` is what the descriptor says: the caller sees to that.
    pub fn blob(&mut self, blob: &Descriptor, content: &mut dyn Read) -> Result<()> {
        self.append(&super::load::blob_name(&blob.digest), blob.size, content)
    }

    fn has(&self, blob: &Descriptor) -> bool {
        self.written.contains(&super::load::blob_name(&blob.digest))
    }

    /// Adds an image's blobs and its manifest.
    fn image(&mut self, store: &Store, image: &Image) -> Result<(Descriptor, Manifest)> {
        let (descriptor, bytes) = store.manifest_of(image)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, Some(&descriptor.media_type))? else {
            let why = "its manifest is an index".to_owned();
            return Err(StoreError::BadImage { image: image.id.to_string(), why });
        };
        for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
            if self.has(blob) {
                continue;
            }
            let mut content = Verified { content: store.open_blob(blob, 0)?, hasher: blob.digest.hasher() };
            self.blob(blob, &mut content)?;
            content.finish(blob)?;
        }
        self.blob(&descriptor, &mut bytes.as_slice())?;
        Ok((descriptor, manifest))
    }

    /// Lists a manifest or index under each of its names, or under none. `manifest` is what it says, if it is one.
    pub fn entry(&mut self, descriptor: &Descriptor, manifest: Option<&Manifest>, names: &[String]) -> Result<()> {
        if names.is_empty() {
            self.index.push(descriptor.clone());
        }
        for name in names {
            let mut named = descriptor.clone();
            named.annotations.insert(REF_NAME.to_owned(), name.clone());
            if name.contains([':', '/']) {
                named.annotations.insert(NAME.to_owned(), name.clone());
            }
            self.index.push(named);
        }
        if let Some(manifest) = manifest {
            let tags: Vec<String> =
                names.iter().filter_map(|name| Some(name.parse::<Reference>().ok()?.familiar())).collect();
            let blob_name = super::load::blob_name;
            self.docker.push(DockerEntry {
                config: blob_name(&manifest.config.digest),
                repo_tags: (!tags.is_empty()).then_some(tags),
                layers: manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
            });
        }
        Ok(())
    }

    /// Writes the table of contents.
    pub fn finish(mut self, format: ArchiveFormat) -> Result<W> {
        let index = Index {
            schema_version: 2,
            media_type: Some(MediaType::OCI_INDEX.to_owned()),
            manifests: std::mem::take(&mut self.index),
            annotations: BTreeMap::new(),
        };
        self.file("index.json", &json(&index)?)?;
        if format == ArchiveFormat::Docker {
            let entries = json(&self.docker)?;
            self.file("manifest.json", &entries)?;
        }
        self.file("oci-layout", OCI_LAYOUT)?;
        self.tar.into_inner().map_err(broken)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.append(name, bytes.len() as u64, &mut &*bytes)
    }

    fn append(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        self.tar.append_data(&mut header(size), name, content).map_err(broken)
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
