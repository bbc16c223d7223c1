//! `load`: docker archives (with and without an OCI layout inside) and OCI archives.
//!
//! An archive comes as a stream with its table of contents at the end, so its files are first spooled into a scratch
//! folder under numbers. Names in the archive – links too – only ever select an entry of the spool: they
//! never become a path on the host.

use super::{LayerFile, Result, ingest_file, scratch_file};
use crate::compression::{Compression, Digesting, decompress};
use crate::{Loaded, Scratch, Store, StoreError};
use oci::{
    Descriptor, Digest, Document, ImageConfig, Index, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, MediaType,
    Platform, Reference,
};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More files than any archive of images has.
const MAX_ENTRIES: usize = 100_000;
/// A name longer than this is no name of an image archive.
const MAX_NAME_BYTES: usize = 4096;
/// Links of links of links.
const MAX_LINKS: usize = 8;
/// Layers taken in side by side.
const MAX_THREADS: usize = 4;
/// Annotations that may hold an image's whole name.
pub(super) const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerEntry {
    pub(super) config: String,
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Vec<String>,
}

enum Entry {
    File { number: usize, size: u64 },
    Link(String),
}

struct Spool {
    scratch: Scratch,
    entries: HashMap<String, Entry>,
}

impl Store {
    /// Takes in all images of a docker or OCI archive (gzip and zstd are recognised).
    pub fn load(&self, reader: &mut dyn Read) -> Result<Vec<Loaded>> {
        let spool = Spool::read(self, reader)?;
        let docker: Vec<DockerEntry> = match spool.small("manifest.json", MAX_MANIFEST_BYTES)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| bad(format!("manifest.json: {e}")))?,
            None => Vec::new(),
        };
        if let Some(index) = spool.small("index.json", MAX_MANIFEST_BYTES)? {
            return load_oci(self, &spool, &index, &docker);
        }
        if docker.is_empty() {
            return Err(bad(
                "it has neither manifest.json (docker) nor index.json (OCI): is it a root file system for `ctr import`?",
            ));
        }
        docker.iter().map(|entry| load_docker(self, &spool, entry)).collect()
    }
}

pub(super) fn bad(why: impl Into<String>) -> StoreError {
    StoreError::BadArchive(why.into())
}

fn load_oci(store: &Store, spool: &Spool, index: &[u8], docker: &[DockerEntry]) -> Result<Vec<Loaded>> {
    let index: Index = serde_json::from_slice(index).map_err(|e| bad(format!("index.json: {e}")))?;
    let mut loaded: Vec<Loaded> = Vec::new();
    for descriptor in &index.manifests {
        let mut names = annotated_names(descriptor);
        let Some((descriptor, bytes, manifest)) = spool.manifest(descriptor)? else { continue };
        let config = spool.blob(&manifest.config, MAX_CONFIG_BYTES)?;
        names.extend(docker_names(docker, &manifest.config.digest)?);
        names.sort();
        names.dedup();
        take_in_layers(store, spool, &manifest, &parse_config(&config, &manifest.config.digest)?)?;
        let id = store.put_pulled_image(&names, &descriptor, &bytes, &config)?;
        match loaded.iter_mut().find(|image| image.id == id) {
            Some(image) => {
                image.names.extend(names.into_iter().filter(|n| !image.names.contains(n)).collect::<Vec<_>>())
            }
            None => loaded.push(Loaded { id, names }),
        }
    }
    if loaded.is_empty() {
        return Err(bad(format!("it holds no image for {}", Platform::host())));
    }
    Ok(loaded)
}

/// The names in an index entry's annotations. A bare tag (skopeo's `oci:DIR:TAG`) names nothing.
fn annotated_names(descriptor: &Descriptor) -> Vec<Reference> {
    let whole = |text: &&String| text.contains([':', '/']);
    let texts = NAMES.iter().filter_map(|key| descriptor.annotations.get(*key)).filter(whole);
    let mut names: Vec<Reference> = texts.filter_map(|text| text.parse().ok()).collect();
    names.dedup();
    names
}

/// The tags that docker's manifest.json gives an image by its config.
fn docker_names(docker: &[DockerEntry], config: &Digest) -> Result<Vec<Reference>> {
    let of_image = docker.iter().filter(|entry| entry.config.contains(config.hex()));
    of_image
        .flat_map(|entry| entry.repo_tags.iter().flatten())
        .map(|tag| tag.parse().map_err(StoreError::from))
        .collect()
}

fn parse_config(bytes: &[u8], id: &Digest) -> Result<ImageConfig> {
    serde_json::from_slice(bytes)
        .map_err(|e| StoreError::BadImage { image: id.to_string(), why: format!("config: {e}") })
}

/// All layers of an OCI manifest, side by side.
fn take_in_layers(store: &Store, spool: &Spool, manifest: &Manifest, config: &ImageConfig) -> Result<()> {
    let diff_ids = &config.rootfs.diff_ids;
    if manifest.layers.len() != diff_ids.len() {
        let why = format!("{} layers but {} diff ids", manifest.layers.len(), diff_ids.len());
        return Err(StoreError::BadImage { image: manifest.config.digest.to_string(), why });
    }
    side_by_side(diff_ids.len(), |index| {
        let (layer, diff_id) = (&manifest.layers[index], &diff_ids[index]);
        if store.has_layer(diff_id) && store.has_blob(&layer.digest) {
            return Ok(());
        }
        let (path, _) = spool.find(&blob_name(&layer.digest))?;
        ingest_file(store, &path, layer, diff_id)
    })
}

pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Does `work` for 0..count on a few threads; the first error wins.
fn side_by_side(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let run = || loop {
        match next.fetch_add(1, Ordering::Relaxed) {
            index if index < count => work(index)?,
            _ => return Ok(()),
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count.min(MAX_THREADS)).map(|_| scope.spawn(run)).collect();
        let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(bad("a thread panicked"))));
        ended.collect::<Result<()>>()
    })
}

/// One image of an archive that has docker's manifest.json alone: its layers are plain tars without digests.
fn load_docker(store: &Store, spool: &Spool, entry: &DockerEntry) -> Result<Loaded> {
    let config_bytes = spool.small(&entry.config, MAX_CONFIG_BYTES)?;
    let config_bytes = config_bytes.ok_or_else(|| bad(format!("{} is missing in it", entry.config)))?;
    let config_descriptor = Descriptor::of(MediaType::OCI_CONFIG, &config_bytes);
    let config = parse_config(&config_bytes, &config_descriptor.digest)?;
    let diff_ids = &config.rootfs.diff_ids;
    if entry.layers.len() != diff_ids.len() {
        let why = format!("{} layers but {} diff ids", entry.layers.len(), diff_ids.len());
        return Err(StoreError::BadImage { image: entry.config.clone(), why });
    }
    let names = entry.repo_tags.iter().flatten().map(|tag| tag.parse().map_err(StoreError::from));
    let names = names.collect::<Result<Vec<Reference>>>()?;
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (name, diff_id) in entry.layers.iter().zip(diff_ids) {
        layers.push(take_in_docker_layer(store, spool, name, diff_id)?);
    }
    let manifest = Manifest::oci(config_descriptor, layers);
    let bytes = serde_json::to_vec(&manifest).map_err(|e| bad(e.to_string()))?;
    let descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
    let id = store.put_pulled_image(&names, &descriptor, &bytes, &config_bytes)?;
    Ok(Loaded { id, names })
}

fn take_in_docker_layer(store: &Store, spool: &Spool, name: &str, diff_id: &Digest) -> Result<Descriptor> {
    if store.has_layer(diff_id) {
        return store.layer_blob(diff_id);
    }
    let (path, size) = spool.find(name)?;
    let open = || File::open(&path).map_err(StoreError::io("open", &path));
    let mut head = Vec::with_capacity(6);
    open()?.take(6).read_to_end(&mut head).map_err(StoreError::io("read", &path))?;
    let media_type = match Compression::detect(&head).map_err(|e| bad(format!("{name}: {e}")))? {
        Compression::None => {
            let layer = LayerFile::compress(&mut open()?, path.with_extension("gz"))?;
            if layer.diff_id != *diff_id {
                return Err(StoreError::DigestMismatch {
                    what: "layer",
                    expected: diff_id.clone(),
                    got: layer.diff_id,
                });
            }
            layer.ingest(store)?;
            return Ok(layer.blob);
        }
        Compression::Gzip => MediaType::OCI_LAYER_GZIP,
        Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
    };
    let mut hasher = Digesting::new(io::sink());
    io::copy(&mut open()?, &mut hasher).map_err(StoreError::io("read", &path))?;
    let blob = Descriptor::new(media_type, hasher.finish().0, size);
    ingest_file(store, &path, &blob, diff_id)?;
    Ok(blob)
}

impl Spool {
    fn read(store: &Store, reader: &mut dyn Read) -> Result<Spool> {
        let scratch = store.new_scratch()?;
        let mut entries = HashMap::new();
        let unreadable = |e: io::Error| bad(e.to_string());
        let mut archive = tar::Archive::new(decompress(reader).map_err(unreadable)?);
        for entry in archive.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
            if entries.len() >= MAX_ENTRIES || name.len() > MAX_NAME_BYTES {
                return Err(bad("it has too many files, or one with too long a name, for an image archive"));
            }
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let path = scratch_file(&scratch, entries.len());
                let mut file = File::create_new(&path).map_err(StoreError::io("create", &path))?;
                let size = io::copy(&mut entry, &mut file).map_err(StoreError::io("write", &path))?;
                entries.insert(name, Entry::File { number: entries.len(), size });
            } else if let (true, Some(target)) = (kind.is_symlink() || kind.is_hard_link(), entry.link_name_bytes()) {
                let target = String::from_utf8_lossy(&target);
                let target = if kind.is_symlink() { beside(&name, &target) } else { normal(&target) };
                entries.insert(name, Entry::Link(target));
            }
        }
        Ok(Spool { scratch, entries })
    }

    /// The spooled file and its size, through links inside the archive.
    fn find(&self, name: &str) -> Result<(PathBuf, u64)> {
        let mut name = normal(name);
        for _ in 0..MAX_LINKS {
            match self.entries.get(&name) {
                Some(Entry::File { number, size }) => return Ok((scratch_file(&self.scratch, *number), *size)),
                Some(Entry::Link(target)) => name.clone_from(target),
                None => break,
            }
        }
        Err(bad(format!("{name} is missing in it")))
    }

    /// A small file's bytes; `None` where there is no such entry.
    fn small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if !self.entries.contains_key(&normal(name)) {
            return Ok(None);
        }
        let (path, size) = self.find(name)?;
        if size > limit {
            return Err(bad(format!("{name} of {size} bytes is over the limit of {limit}")));
        }
        std::fs::read(&path).map(Some).map_err(StoreError::io("read", &path))
    }

    /// A small blob, verified.
    fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let name = blob_name(&descriptor.digest);
        let bytes = self.small(&name, limit)?.ok_or_else(|| bad(format!("{name} is missing in it")))?;
        if descriptor.digest.matches(&bytes) {
            return Ok(bytes);
        }
        let got = Digest::sha256(&bytes);
        Err(StoreError::DigestMismatch { what: "blob", expected: descriptor.digest.clone(), got })
    }

    /// The image manifest behind an index entry, through one nested index; `None` for what is no image (attestations, artifacts)
    /// or is for another platform.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Option<(Descriptor, Vec<u8>, Manifest)>> {
        if descriptor.artifact_type.is_some() || descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown") {
            return Ok(None);
        }
        let bytes = self.blob(descriptor, MAX_MANIFEST_BYTES)?;
        match Document::parse(&bytes, Some(&descriptor.media_type))? {
            Document::Manifest(manifest) if is_image(&manifest) => {
                let plain = Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size);
                Ok(Some((plain, bytes, manifest)))
            }
            Document::Manifest(_) => Ok(None),
            Document::Index(index) => match index.select(&Platform::host()) {
                Some(inner) if MediaType::is_manifest(&inner.media_type) => self.manifest(inner),
                _ => Ok(None),
            },
        }
    }
}

fn is_image(manifest: &Manifest) -> bool {
    [MediaType::OCI_CONFIG, MediaType::DOCKER_CONFIG].contains(&manifest.config.media_type.as_str())
}

/// An entry's name without `.`, `..` and empty parts, so that `./a/../b` and `b` are one.
pub(super) fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A symbolic link's target, relative to the folder of the link.
pub(super) fn beside(link: &str, target: &str) -> String {
    let folder = link.rsplit_once('/').map_or("", |(folder, _)| folder);
    if target.starts_with('/') { normal(target) } else { normal(&format!("{folder}/{target}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_an_archive_stay_in_it() {
        assert_eq!(normal("./blobs//sha256/x"), "blobs/sha256/x");
        assert_eq!(normal("../../etc/passwd"), "etc/passwd");
        assert_eq!(beside("a/layer.tar", "../b/layer.tar"), "b/layer.tar");
        assert_eq!(beside("a/layer.tar", "/b/layer.tar"), "b/layer.tar");
    }
}
