//! Writing a cache.

use super::{CacheRecord, CacheTarget, INLINE, LOCAL_NAME, MEDIA_TYPE, Table};
use crate::Built;
use crate::error::BuildError;
use crate::step_error::{StepError, StepResult};
use engine::Engine;
use oci::{Descriptor, Digest, Index, Manifest, MediaType};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Keeps what the build's steps made where `target` says. Inline it becomes part of the image's manifest.
pub fn export_cache(engine: &Engine, built: &Built, target: &CacheTarget) -> Result<(), BuildError> {
    export(engine, built, target)
        .map_err(|error| BuildError::Output { message: format!("cannot export the build cache: {error}") })
}

fn export(engine: &Engine, built: &Built, target: &CacheTarget) -> StepResult<()> {
    match target {
        CacheTarget::Inline => {
            let table = Table { entries: once(&built.cache), layers: Vec::new() };
            let mut annotations = built.annotations.clone();
            annotations.insert(INLINE.to_owned(), serde_json::to_string(&table).unwrap_or_default());
            engine.store().annotate(&built.image_id, annotations)?;
        }
        CacheTarget::Registry { reference, all } => {
            let (document, layers) = packed(engine, once(&built.cache), *all)?;
            engine.push_artifact(reference, &document, MEDIA_TYPE, layers)?;
        }
        CacheTarget::Local { folder, all } => {
            let (document, layers) = packed(engine, once(&built.cache), *all)?;
            write_layout(engine, folder, &document, layers)?;
        }
    }
    Ok(())
}

fn once(records: &[CacheRecord]) -> Vec<CacheRecord> {
    let mut seen = BTreeSet::new();
    records.iter().filter(|record| seen.insert(record.key.clone())).cloned().collect()
}

/// The list as bytes, and layers it names, compressed: those of the image's own steps, or all that are here. What the other steps
/// made is listed too: where nothing has changed, that is all that is asked of them.
fn packed(engine: &Engine, entries: Vec<CacheRecord>, all: bool) -> StepResult<(Vec<u8>, Vec<Descriptor>)> {
    let chosen = entries.iter().filter(|entry| all || entry.is_of_image);
    let named: BTreeSet<Digest> = chosen.filter_map(|entry| entry.record.diff_id.clone()).collect();
    let layers: Vec<Digest> = named.into_iter().filter(|layer| engine.store().has_layer(layer)).collect();
    let blobs = layers.iter().map(|diff_id| Ok(engine.store().layer_blob(diff_id)?)).collect::<StepResult<Vec<_>>>()?;
    let document = serde_json::to_vec(&Table { entries, layers }).unwrap_or_default();
    Ok((document, blobs))
}

fn write_layout(engine: &Engine, folder: &Path, document: &[u8], layers: Vec<Descriptor>) -> StepResult<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|e| StepError::io("make the folder", &blobs, e))?;
    for layer in &layers {
        let to = blobs.join(layer.digest.hex());
        if !to.exists() {
            let mut from = engine.store().open_blob(layer, 0)?;
            write(&to, |out| std::io::copy(&mut from, out).map(drop))?;
        }
    }
    let config = Descriptor::of(MEDIA_TYPE, document);
    let manifest = serde_json::to_vec(&Manifest::oci(config.clone(), layers)).unwrap_or_default();
    let mut descriptor = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
    let bytes = |name: &Path, bytes: &[u8]| write(name, |out| out.write_all(bytes));
    bytes(&blobs.join(config.digest.hex()), document)?;
    bytes(&blobs.join(descriptor.digest.hex()), &manifest)?;
    descriptor.annotations.insert("org.opencontainers.image.ref.name".to_owned(), LOCAL_NAME.to_owned());
    let index = Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX.to_owned()),
        manifests: vec![descriptor],
        annotations: BTreeMap::new(),
    };
    bytes(&folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    // Last: until then the folder is what it was.
    bytes(&folder.join("index.json"), &serde_json::to_vec(&index).unwrap_or_default())
}

/// Beside its place, then renamed: another build that reads the folder never sees half a file.
fn write(path: &Path, fill: impl FnOnce(&mut fs::File) -> std::io::Result<()>) -> StepResult<()> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let written = fs::File::create(&partial).and_then(|mut file| fill(&mut file));
    written.and_then(|()| fs::rename(&partial, path)).map_err(|e| {
        let _gone = fs::remove_file(&partial);
        StepError::io("write", path, e)
    })
}
