//! Manifest lists: an index put together here of images of several platforms, that is pushed with all it names. One small
//! file each under `manifests/`; the images themselves stay where they are, in the store or at a registry, until the push.

use super::copy::{FromRegistry, FromStore, Node, Platforms, Source, ToRegistry, chosen, transfer};
use super::{Copied, CopyEvent};
use crate::{Engine, EngineError, Result};
use oci::{Descriptor, Digest, Document, ImageConfig, Index, MAX_CONFIG_BYTES, MediaType, Platform, Reference};
use registry_client::Registry;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Images of one list.
const MAX_ENTRIES: usize = 1000;

/// A list as it is kept.
#[derive(Serialize, Deserialize)]
struct List {
    name: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    /// With its platform.
    descriptor: Descriptor,
    /// Where it is.
    place: EntryPlace,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EntryPlace {
    /// In the store, by id.
    Store(Digest),
    /// At a registry, by its repository.
    Registry(String),
}

impl Engine {
    /// Makes a list of images: of the store by name or id, else of a registry. All images of an index are taken.
    /// With `amend` they are added to a list that is there.
    pub fn create_list(&self, name: &Reference, images: &[String], amend: bool, tls_verify: bool) -> Result<()> {
        let mut list = match self.read_list(name)? {
            Some(list) if amend => list,
            Some(_) => {
                let text = format!("manifest list {} exists: add to it with --amend", name.familiar());
                return Err(EngineError::Invalid(text));
            }
            None => List { name: name.to_string(), entries: Vec::new() },
        };
        let registry = self.registry(tls_verify)?;
        let mut added: Vec<Entry> = Vec::new();
        for image in images {
            for entry in self.list_entries(&registry, image)? {
                let platform = &entry.descriptor.platform;
                if added.iter().any(|other| other.descriptor.platform == *platform) {
                    let platform = platform.as_ref().map_or_else(|| "no platform".to_owned(), Platform::to_string);
                    let text = format!("{image} is for {platform}, and so is another image that was named");
                    return Err(EngineError::Invalid(text));
                }
                added.push(entry);
            }
        }
        // A platform has one image: a new one takes the old one's place.
        let is_replaced = |old: &Entry| added.iter().any(|new| new.descriptor.platform == old.descriptor.platform);
        list.entries.retain(|old| !is_replaced(old));
        list.entries.extend(added);
        if list.entries.len() > MAX_ENTRIES {
            return Err(EngineError::Invalid(format!("a manifest list holds at most {MAX_ENTRIES} images")));
        }
        self.write_list(name, &list)
    }

    /// Sends a list with all it names to a registry.
    pub fn push_list(
        &self,
        name: &Reference,
        to: &Reference,
        tls_verify: bool,
        progress: &(dyn Fn(CopyEvent) + Sync),
    ) -> Result<Copied> {
        let list = self.known_list(name)?;
        let registry = self.registry(tls_verify)?;
        let source = ListSource::new(self, &registry, &list)?;
        let nodes = chosen(&source, source.root()?, &Platforms::All)?;
        let pushed = transfer(&source, &ToRegistry::new(&registry, to), &nodes, progress);
        registry.take_warnings().into_iter().for_each(|warning| progress(CopyEvent::Warning(warning)));
        pushed
    }

    /// The JSON of a list made here, or of a manifest or index at a registry, as it is.
    pub fn inspect_manifest(&self, name: &Reference, tls_verify: bool) -> Result<Vec<u8>> {
        if let Some(list) = self.read_list(name)? {
            return Ok(index_of(&list)?.bytes);
        }
        Ok(self.registry(tls_verify)?.manifest(name)?.bytes)
    }

    /// Whether there is a list of that name.
    pub fn has_list(&self, name: &Reference) -> Result<bool> {
        Ok(self.read_list(name)?.is_some())
    }

    /// Forgets a list; the images stay.
    pub fn remove_list(&self, name: &Reference) -> Result<()> {
        self.known_list(name)?;
        let path = self.list_path(name);
        std::fs::remove_file(&path).map_err(|e| EngineError::io("remove", &path, e))
    }

    fn known_list(&self, name: &Reference) -> Result<List> {
        self.read_list(name)?.ok_or_else(|| EngineError::Invalid(format!("No such manifest list: {}", name.familiar())))
    }

    fn list_path(&self, name: &Reference) -> PathBuf {
        self.root().join("manifests").join(format!("{}.json", Digest::sha256(name.to_string()).hex()))
    }

    fn read_list(&self, name: &Reference) -> Result<Option<List>> {
        let path = self.list_path(name);
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes));
        match read {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(EngineError::io("read", &path, e)),
            Ok(_) => serde_json::from_slice(&bytes).map(Some).map_err(|e| EngineError::io("read", &path, e)),
        }
    }

    fn write_list(&self, name: &Reference, list: &List) -> Result<()> {
        let path = self.list_path(name);
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        let folder = self.root().join("manifests");
        std::fs::create_dir_all(&folder).map_err(|e| EngineError::io("create", &folder, e))?;
        let text = serde_json::to_vec(list).map_err(|e| EngineError::io("write", &path, e))?;
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(|e| EngineError::io("write", &path, e))
    }

    fn list_entries(&self, registry: &Registry, text: &str) -> Result<Vec<Entry>> {
        match self.store().image(text) {
            Ok(image) => {
                let (mut descriptor, _) = self.store().manifest_of(&image)?;
                descriptor.platform = Some(platform_of(&image.config));
                return Ok(vec![Entry { descriptor, place: EntryPlace::Store(image.id) }]);
            }
            Err(store::StoreError::NoSuchImage(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let reference: Reference = text.parse().map_err(store::StoreError::from)?;
        let found = registry.manifest(&reference)?;
        let place = EntryPlace::Registry(reference.repository());
        let entry = |descriptor: Descriptor| Entry { descriptor, place: place.clone() };
        match found.document {
            Document::Index(index) => {
                let known = |entry: &Descriptor| entry.platform.as_ref().is_some_and(|p| p.os != "unknown");
                Ok(index.manifests.into_iter().filter(known).map(entry).collect())
            }
            Document::Manifest(manifest) => {
                let bytes = registry.blob_bytes(&reference, &manifest.config, MAX_CONFIG_BYTES)?;
                let config: ImageConfig = serde_json::from_slice(&bytes)
                    .map_err(|e| EngineError::Invalid(format!("{text}: malformed image config: {e}")))?;
                let size = u64::try_from(found.bytes.len()).unwrap_or(u64::MAX);
                let mut descriptor = Descriptor::new(&found.media_type, found.digest, size);
                descriptor.platform = Some(platform_of(&config));
                Ok(vec![entry(descriptor)])
            }
        }
    }
}

fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        ..Platform::default()
    }
}

fn index_of(list: &List) -> Result<Node> {
    let index = Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX.to_owned()),
        manifests: list.entries.iter().map(|entry| entry.descriptor.clone()).collect(),
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&index).map_err(|e| EngineError::Invalid(e.to_string()))?;
    Node::new(Descriptor::of(MediaType::OCI_INDEX, &bytes), bytes)
}

/// A list as a place to copy from: each image from where it is.
struct ListSource<'a> {
    index: Node,
    parts: Vec<(Digest, Box<dyn Source + 'a>)>,
    /// Which part a blob is of.
    blobs: Mutex<HashMap<Digest, usize>>,
}

impl<'a> ListSource<'a> {
    fn new(engine: &'a Engine, registry: &'a Registry, list: &List) -> Result<ListSource<'a>> {
        let mut parts: Vec<(Digest, Box<dyn Source + 'a>)> = Vec::new();
        for Entry { descriptor, place } in &list.entries {
            let source: Box<dyn Source + 'a> = match place {
                EntryPlace::Store(id) => Box::new(FromStore::new(engine, id.as_str())),
                EntryPlace::Registry(repository) => {
                    let reference: Reference = repository.parse().map_err(store::StoreError::from)?;
                    Box::new(FromRegistry::new(registry, &reference))
                }
            };
            parts.push((descriptor.digest.clone(), source));
        }
        Ok(ListSource { index: index_of(list)?, parts, blobs: Mutex::default() })
    }

    fn part(&self, blob: &Descriptor) -> Option<&(dyn Source + 'a)> {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.get(&blob.digest).and_then(|index| self.parts.get(*index)).map(|(_, source)| &**source)
    }
}

impl Source for ListSource<'_> {
    fn root(&self) -> Result<Node> {
        Node::new(self.index.descriptor.clone(), self.index.bytes.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Node> {
        let missing = || EngineError::Invalid(format!("the list does not name {}", descriptor.digest));
        let of_it = self.parts.iter().position(|(digest, _)| *digest == descriptor.digest).ok_or_else(missing)?;
        let (_, source) = self.parts.get(of_it).ok_or_else(missing)?;
        let node = source.manifest(descriptor)?;
        if let Document::Manifest(manifest) = &node.document {
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                blobs.entry(blob.digest.clone()).or_insert(of_it);
            }
        }
        Ok(node)
    }

    fn blob(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read>> {
        match self.part(blob) {
            Some(source) => source.blob(blob, offset),
            None => Err(store::StoreError::NoSuchBlob(blob.digest.clone()).into()),
        }
    }

    fn repository(&self, blob: &Descriptor) -> Option<(&str, &str)> {
        self.part(blob)?.repository(blob)
    }
}
