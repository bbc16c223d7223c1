//! An archive of images as a file: its blobs are read where they lie, nothing is unpacked. What `copy` reads from.

use super::load::{DockerEntry, NAMES, bad, beside, blob_name, normal};
use super::{LayerFile, Result};
use crate::compression::{Compression, Digesting, decompress};
use crate::{Scratch, Store, StoreError};
use oci::{
    Descriptor, Digest, ImageConfig, Index, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Manifest, MediaType, Reference,
};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// More files than any archive of images has.
const MAX_ENTRIES: usize = 100_000;
/// Links of links of links.
const MAX_LINKS: usize = 8;
/// Layers of a docker archive without digests.
const MAX_LAYERS: usize = 1000;

/// Where some content lies.
#[derive(Clone, Debug)]
enum Place {
    /// In the archive.
    Inside { offset: u64, size: u64 },
    /// In a file of the scratch folder.
    Beside(PathBuf),
    /// Elsewhere in the archive.
    Link(String),
}

/// An OCI or docker archive, opened for one of its images.
pub struct ImageArchive {
    file: Arc<File>,
    path: PathBuf,
    entries: HashMap<String, Place>,
    /// Blobs that the archive has under another name, or not in this form.
    made: HashMap<Digest, Place>,
    scratch: Scratch,
}

impl ImageArchive {
    /// Opens an archive and finds an image in it: by name, or the only one there is. Returns its manifest or index too.
    pub fn open(store: &Store, path: &Path, name: Option<&str>) -> Result<(ImageArchive, Descriptor, Vec<u8>)> {
        let scratch = store.new_scratch()?;
        let file = plain_file(&scratch, path)?;
        let entries = list(&file)?;
        let (file, path) = (Arc::new(file), path.to_owned());
        let mut archive = ImageArchive { file, path, entries, made: HashMap::new(), scratch };
        let (descriptor, bytes) = match archive.small("index.json", MAX_MANIFEST_BYTES)? {
            Some(index) => archive.find_oci(&index, name)?,
            None => archive.find_docker(name)?,
        };
        Ok((archive, descriptor, bytes))
    }

    /// A blob's bytes from an offset on; whoever reads checks the digest.
    pub fn blob(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>> {
        let place = match self.made.get(&blob.digest) {
            Some(place) => place.clone(),
            None => self.find(&blob_name(&blob.digest))?,
        };
        Ok(Box::new(self.section(&place, offset)?))
    }

    fn section(&self, place: &Place, skip: u64) -> Result<Section> {
        match place {
            Place::Inside { offset, size } => Ok(Section {
                file: self.file.clone(),
                offset: offset.saturating_add(skip),
                left: size.saturating_sub(skip),
            }),
            Place::Beside(path) => {
                let file = File::open(path).map_err(StoreError::io("open", path))?;
                let left = file.metadata().map_err(StoreError::io("read", path))?.len().saturating_sub(skip);
                Ok(Section { file: Arc::new(file), offset: skip, left })
            }
            Place::Link(to) => Err(bad(format!("{to} is missing in it"))),
        }
    }

    /// Through links inside the archive.
    fn find(&self, name: &str) -> Result<Place> {
        let mut name = normal(name);
        for _ in 0..MAX_LINKS {
            match self.entries.get(&name) {
                Some(Place::Link(target)) => name.clone_from(target),
                Some(place) => return Ok(place.clone()),
                None => break,
            }
        }
        Err(bad(format!("{name} is missing in {}", self.path.display())))
    }

    fn small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if !self.entries.contains_key(&normal(name)) {
            return Ok(None);
        }
        let mut section = self.section(&self.find(name)?, 0)?;
        if section.left > limit {
            return Err(bad(format!("{name} of {} bytes is over the limit of {limit}", section.left)));
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(StoreError::io("read", &self.path))?;
        Ok(Some(bytes))
    }

    fn find_oci(&self, index: &[u8], name: Option<&str>) -> Result<(Descriptor, Vec<u8>)> {
        let index: Index = serde_json::from_slice(index).map_err(|e| bad(format!("index.json: {e}")))?;
        let entry = choose(&index, name).map_err(|why| bad(format!("{}: {why}", self.path.display())))?;
        let bytes = self.small(&blob_name(&entry.digest), MAX_MANIFEST_BYTES)?;
        let bytes = bytes.ok_or_else(|| bad(format!("{} is missing in it", blob_name(&entry.digest))))?;
        if !entry.digest.matches(&bytes) {
            let got = Digest::sha256(&bytes);
            return Err(StoreError::DigestMismatch { what: "manifest", expected: entry.digest.clone(), got });
        }
        Ok((Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size), bytes))
    }

    /// An archive that has docker's manifest.json alone. Its layers are plain tars: they are compressed beside it, as a
    /// push would.
    fn find_docker(&mut self, name: Option<&str>) -> Result<(Descriptor, Vec<u8>)> {
        let list = self.small("manifest.json", MAX_MANIFEST_BYTES)?;
        let list = list.ok_or_else(|| bad(format!("{} is no archive of images", self.path.display())))?;
        let list: Vec<DockerEntry> = serde_json::from_slice(&list).map_err(|e| bad(format!("manifest.json: {e}")))?;
        let named = |entry: &&DockerEntry| {
            let mut tags = entry.repo_tags.iter().flatten();
            name.is_none_or(|name| tags.any(|tag| same_name(tag, name)))
        };
        let found: Vec<&DockerEntry> = list.iter().filter(named).collect();
        let entry = match found.as_slice() {
            [only] => *only,
            [] => return Err(bad(format!("{}: there is no image {}", self.path.display(), name.unwrap_or("in it")))),
            _ => return Err(bad(format!("{}: it holds several images: name one", self.path.display()))),
        };
        let config_bytes = self.small(&entry.config, MAX_CONFIG_BYTES)?;
        let config_bytes = config_bytes.ok_or_else(|| bad(format!("{} is missing in it", entry.config)))?;
        let config = Descriptor::of(MediaType::OCI_CONFIG, &config_bytes);
        let parsed: ImageConfig = serde_json::from_slice(&config_bytes).map_err(|e| bad(format!("config: {e}")))?;
        let diff_ids = &parsed.rootfs.diff_ids;
        if entry.layers.len() != diff_ids.len() || diff_ids.len() > MAX_LAYERS {
            return Err(bad(format!("{} layers but {} diff ids", entry.layers.len(), diff_ids.len())));
        }
        self.made.insert(config.digest.clone(), self.find(&entry.config)?);
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (number, (name, diff_id)) in entry.layers.iter().zip(diff_ids).enumerate() {
            layers.push(self.docker_layer(number, name, diff_id)?);
        }
        let manifest = Manifest::oci(config, layers);
        let bytes = serde_json::to_vec(&manifest).map_err(|e| bad(e.to_string()))?;
        Ok((Descriptor::of(MediaType::OCI_MANIFEST, &bytes), bytes))
    }

    fn docker_layer(&mut self, number: usize, name: &str, diff_id: &Digest) -> Result<Descriptor> {
        let place = self.find(name)?;
        let unreadable = StoreError::io("read", &self.path);
        let mut head = Vec::with_capacity(6);
        self.section(&place, 0)?.take(6).read_to_end(&mut head).map_err(unreadable)?;
        let media_type = match Compression::detect(&head).map_err(|e| bad(format!("{name}: {e}")))? {
            Compression::None => {
                let path = self.scratch.path().join(format!("{number}.gz"));
                let layer = LayerFile::compress(&mut self.section(&place, 0)?, path)?;
                if layer.diff_id != *diff_id {
                    let (expected, got) = (diff_id.clone(), layer.diff_id);
                    return Err(StoreError::DigestMismatch { what: "layer", expected, got });
                }
                self.made.insert(layer.blob.digest.clone(), Place::Beside(layer.path));
                return Ok(layer.blob);
            }
            Compression::Gzip => MediaType::OCI_LAYER_GZIP,
            Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
        };
        let mut hasher = Digesting::new(io::sink());
        let size = io::copy(&mut self.section(&place, 0)?, &mut hasher).map_err(StoreError::io("read", &self.path))?;
        let blob = Descriptor::new(media_type, hasher.finish().0, size);
        self.made.insert(blob.digest.clone(), place);
        Ok(blob)
    }
}

/// The entry of an index that a name means: the one annotated with it, or the only one.
pub fn choose<'a>(index: &'a Index, name: Option<&str>) -> std::result::Result<&'a Descriptor, String> {
    let annotated = |entry: &Descriptor, name: &str| {
        NAMES.iter().filter_map(|key| entry.annotations.get(*key)).any(|text| same_name(text, name))
    };
    let fits = |entry: &&Descriptor| name.is_none_or(|name| annotated(entry, name));
    // One image may have an entry for each of its names.
    let found: BTreeMap<&str, &Descriptor> =
        index.manifests.iter().filter(fits).map(|entry| (entry.digest.as_str(), entry)).collect();
    let names = || {
        let all = index.manifests.iter().filter_map(|m| NAMES.iter().find_map(|key| m.annotations.get(*key)));
        let all: Vec<String> = all.take(20).cloned().collect();
        if all.is_empty() { "none with a name".to_owned() } else { all.join(", ") }
    };
    match (found.len(), name) {
        (1, _) => found.into_values().next().ok_or_else(String::new),
        (0, Some(name)) => Err(format!("there is no image {name:?}; there is {}", names())),
        (0, None) => Err("there is no image in it".to_owned()),
        _ => Err(format!("it holds several images: name one of {}", names())),
    }
}

/// Whether two texts are one name: as they are, or as references.
fn same_name(text: &str, name: &str) -> bool {
    let reference = |text: &str| text.parse::<Reference>().ok();
    text == name || reference(text).is_some_and(|one| reference(name) == Some(one))
}

/// The archive as a plain tar: itself, or what is in it decompressed beside it.
fn plain_file(scratch: &Scratch, path: &Path) -> Result<File> {
    let open = || File::open(path).map_err(StoreError::io("open", path));
    let mut head = Vec::with_capacity(6);
    open()?.take(6).read_to_end(&mut head).map_err(StoreError::io("read", path))?;
    if Compression::detect(&head).map_err(|e| bad(format!("{}: {e}", path.display())))? == Compression::None {
        return open();
    }
    let plain = scratch.path().join("archive.tar");
    let mut out = File::create_new(&plain).map_err(StoreError::io("create", &plain))?;
    let mut from = decompress(open()?).map_err(StoreError::io("read", path))?;
    io::copy(&mut from, &mut out).map_err(StoreError::io("write", &plain))?;
    File::open(&plain).map_err(StoreError::io("open", &plain))
}

fn list(file: &File) -> Result<HashMap<String, Place>> {
    let unreadable = |e: io::Error| bad(e.to_string());
    let mut entries = HashMap::new();
    let reader = io::BufReader::new(file.try_clone().map_err(unreadable)?);
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries_with_seek().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entries.len() >= MAX_ENTRIES {
            return Err(bad("it has too many files for an image archive"));
        }
        let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let place = Place::Inside { offset: entry.raw_file_position(), size: entry.size() };
            entries.insert(name, place);
        } else if let (true, Some(target)) = (kind.is_symlink() || kind.is_hard_link(), entry.link_name_bytes()) {
            let target = String::from_utf8_lossy(&target);
            let target = if kind.is_symlink() { beside(&name, &target) } else { normal(&target) };
            entries.insert(name, Place::Link(target));
        }
    }
    Ok(entries)
}

/// A part of a file, read without moving anybody else's position.
struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
