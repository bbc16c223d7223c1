//! Reading caches: the lists at first, a layer when a step asks for it.

use super::{CacheOrigin, INLINE, MAX_ENTRIES, MEDIA_TYPE, Table};
use crate::cache::Record;
use crate::context_file::open_regular;
use crate::step_error::{StepError, StepResult};
use engine::Engine;
use oci::{Descriptor, Digest, Document, ImageConfig, MAX_CONFIG_BYTES, Manifest, MediaType, Platform, Reference};
use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Caches that were read.
#[derive(Default)]
pub(crate) struct Imports {
    caches: Vec<Import>,
}

struct Import {
    records: HashMap<String, Record>,
    blobs: HashMap<Digest, Descriptor>,
    place: Place,
}

enum Place {
    Folder(PathBuf),
    Registry(Reference),
}

impl Imports {
    /// Reads the lists. One that cannot be read is told to `warn` and is as if not there.
    pub(crate) fn read(
        engine: &Engine,
        origins: &[CacheOrigin],
        platform: &Platform,
        warn: &dyn Fn(String),
    ) -> Imports {
        let mut caches = Vec::new();
        for origin in origins {
            let read = match origin {
                CacheOrigin::Local(folder) => Import::of_folder(folder),
                CacheOrigin::Registry(reference) => Import::of_registry(engine, reference, platform),
            };
            match read {
                Ok(import) => caches.push(import),
                Err(error) => warn(format!("the build cache is not imported: {error}")),
            }
        }
        Imports { caches }
    }

    /// What a key's step made, and whether its layer is in the store; `is_whole`: it is then, or nothing was found.
    pub(crate) fn find(&self, engine: &Engine, key: &str, is_whole: bool) -> StepResult<Option<(Record, bool)>> {
        for import in &self.caches {
            let Some(record) = import.records.get(key) else { continue };
            let is_here = |diff_id: &Digest| engine.store().has_layer(diff_id);
            if let Some(diff_id) = record.diff_id.as_ref().filter(|diff_id| !is_here(diff_id)) {
                if !is_whole {
                    return Ok(Some((record.clone(), false)));
                }
                let Some(blob) = import.blobs.get(diff_id) else { continue };
                import.fetch(engine, blob, diff_id)?;
            }
            return Ok(Some((record.clone(), true)));
        }
        Ok(None)
    }
}

impl Import {
    fn new(table: Table, layers: Vec<Descriptor>, place: Place) -> Import {
        let records = table.entries.into_iter().take(MAX_ENTRIES).map(|entry| (entry.key, entry.record)).collect();
        Import { records, blobs: table.layers.into_iter().zip(layers).collect(), place }
    }

    fn of_folder(folder: &Path) -> StepResult<Import> {
        let wrong = || StepError::wrong(format!("{} holds no build cache", folder.display()));
        let read = |path: &Path| -> StepResult<Vec<u8>> {
            let fail = |e| StepError::io("read", path, e);
            let mut bytes = Vec::new();
            open_regular(path).map_err(fail)?.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes).map_err(fail)?;
            Ok(bytes)
        };
        let document = |bytes: &[u8], kind| Document::parse(bytes, Some(kind)).map_err(|_| wrong());
        let index = read(&folder.join("index.json"))?;
        let Document::Index(index) = document(&index, MediaType::OCI_INDEX)? else { return Err(wrong()) };
        let first = index.manifests.first().ok_or_else(wrong)?;
        let blob = |digest: &Digest| blob_path(folder, digest);
        let manifest = read(&blob(&first.digest))?;
        let Document::Manifest(manifest) = document(&manifest, MediaType::OCI_MANIFEST)? else { return Err(wrong()) };
        if manifest.config.media_type != MEDIA_TYPE {
            return Err(wrong());
        }
        let table = read(&blob(&manifest.config.digest))?;
        let table = serde_json::from_slice(&table).map_err(|_| wrong())?;
        Ok(Import::new(table, manifest.layers, Place::Folder(folder.to_owned())))
    }

    fn of_registry(engine: &Engine, reference: &Reference, platform: &Platform) -> StepResult<Import> {
        let wrong = || StepError::wrong(format!("{} holds no build cache", reference.familiar()));
        let manifest: Manifest = engine.remote_manifest(reference, platform)?;
        let place = Place::Registry(reference.clone());
        let config = engine.remote_document(reference, &manifest.config)?;
        if manifest.config.media_type == MEDIA_TYPE {
            let table = serde_json::from_slice(&config).map_err(|_| wrong())?;
            return Ok(Import::new(table, manifest.layers, place));
        }
        // An image with its own cache: its layers are those of its config.
        let inline = manifest.annotations.get(INLINE).ok_or_else(wrong)?;
        let mut table: Table = serde_json::from_str(inline).map_err(|_| wrong())?;
        let config: ImageConfig = serde_json::from_slice(&config).map_err(|_| wrong())?;
        table.layers = config.rootfs.diff_ids;
        Ok(Import::new(table, manifest.layers, place))
    }

    fn fetch(&self, engine: &Engine, blob: &Descriptor, diff_id: &Digest) -> StepResult<()> {
        match &self.place {
            Place::Registry(reference) => engine.fetch_remote_layer(reference, blob, diff_id)?,
            Place::Folder(folder) => {
                let path = blob_path(folder, &blob.digest);
                let mut open = |offset| -> io::Result<Box<dyn Read>> {
                    let mut file = open_regular(&path)?;
                    file.seek(SeekFrom::Start(offset))?;
                    Ok(Box::new(file))
                };
                engine.store().ingest_layer(blob, diff_id, &mut open, &|_| {})?;
            }
        }
        Ok(())
    }
}

fn blob_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("blobs").join(digest.algorithm()).join(digest.hex())
}
