//! The database made anew from the files: for one that is lost or damaged. Every layer, image, container, network and
//! volume has a small file of its own beside its content; addresses and the build cache are lost, and made again by use.

use crate::containers::nanoseconds;
use crate::db::{Database, change};
use crate::images::{parse_config, signed};
use crate::layer::rows::LayerFile;
use crate::layout::Layout;
use crate::lock::{Lock, Wait};
use crate::migrate::write_format;
use crate::open::CREATION_LOCK;
use crate::{ContainerRow, NetworkRow, Result, Store, StoreError, StoreOptions, Volume};
use oci::{Descriptor, Digest, Document, Reference};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than any of these small files has, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// `images/<hex>.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageFile {
    pub(crate) id: Digest,
    pub(crate) built: bool,
    pub(crate) manifest: Option<Descriptor>,
    pub(crate) names: Vec<String>,
    pub(crate) repo_digests: Vec<String>,
}

impl Store {
    /// Puts the database aside (into `trash/`) and makes it anew. Nobody else may be using the store. What cannot be
    /// read is left out, and returned.
    pub fn rebuild(root: &Path, options: &StoreOptions) -> Result<(Store, Vec<PathBuf>)> {
        let layout = Layout { root: root.to_owned() };
        let lock = Lock::take(&root.join(CREATION_LOCK), Wait::Block)?;
        for suffix in ["", "-wal", "-shm"] {
            layout.discard(&PathBuf::from(format!("{}{suffix}", layout.database().display())))?;
        }
        Database::create(&layout)?;
        // An older store's has today's tables now.
        write_format(&layout)?;
        let store = Store::open_with(root, options)?;
        let mut unreadable = Vec::new();
        let mut take = |path: PathBuf, done: Result<()>| {
            if done.is_err() {
                unreadable.push(path);
            }
        };
        for path in entries(&root.join("layers"))? {
            let done = read(&path.join("layer.json")).and_then(|layer| store.put_back_layer(&path, &layer));
            take(path, done);
        }
        for path in entries(&root.join("images"))? {
            let done = read(&path).and_then(|image| store.put_back_image(&image));
            take(path, done);
        }
        for path in entries(&root.join("containers"))? {
            let done = store.restore_container(&path).map(drop);
            take(path, done);
        }
        for path in entries(&root.join("networks"))? {
            let done = store.restore_network(&path).map(drop);
            take(path, done);
        }
        for path in entries(&root.join("volumes"))? {
            let done = store.restore_volume(&path).map(drop);
            take(path, done);
        }
        drop(lock);
        Ok((store, unreadable))
    }

    fn put_back_layer(&self, path: &Path, layer: &LayerFile) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Of another boot it is hashed before it is believed, as always.
        let row = (&name, layer.diff_id.as_str(), signed(layer.size), &layer.boot);
        self.db.write("put back a layer", |tx| {
            change(tx, "INSERT INTO layer VALUES (?,?,?,?)", row).map_err(self.db.error("put back a layer"))?;
            if let Some((blob, repository)) = &layer.source {
                self.note_blob(tx, blob, &layer.diff_id)?;
                self.note_source(tx, &blob.digest, repository)?;
            }
            Ok(())
        })
    }

    fn put_back_image(&self, image: &ImageFile) -> Result<()> {
        let bytes = self.small_blob(&image.id)?;
        if !image.id.matches(&bytes) {
            return Err(StoreError::NoSuchBlob(image.id.clone()));
        }
        let config = parse_config(&image.id, &bytes)?;
        let manifest = image.manifest.as_ref().filter(|m| self.has_blob(&m.digest));
        if let Some(manifest) = manifest {
            let bytes = self.small_blob(&manifest.digest)?;
            if let Document::Manifest(document) = Document::parse(&bytes, Some(&manifest.media_type))? {
                self.note_layer_blobs(&document, &config)?;
            }
        }
        let layers: Vec<String> = config.rootfs.diff_ids.iter().map(Layout::layer_name).collect();
        self.layer_folders(&layers)?;
        let names = image.names.iter().chain(&image.repo_digests);
        let names: Vec<Reference> = names.filter_map(|name| name.parse().ok()).collect();
        // Not put_image: its sweep would take what has no row yet.
        self.insert_image(image.id.clone(), &config, image.built, manifest, &names).map(drop)
    }

    /// The row of a container's folder, of its own file. Always true: whoever has a row is known again.
    pub(crate) fn restore_container(&self, folder: &Path) -> Result<bool> {
        let container: ContainerRow = read(&folder.join("row.json"))?;
        self.db.write("put back a container", |tx| self.insert_container(tx, &container)).map(|()| true)
    }

    /// The row of a network's file.
    pub(crate) fn restore_network(&self, file: &Path) -> Result<bool> {
        let network: NetworkRow = read(file)?;
        let created = nanoseconds(network.created);
        self.db.write("put back a network", |tx| {
            let sql = "INSERT INTO network (name, id, created, config) VALUES (?,?,?,?)";
            change(tx, sql, (&network.name, &network.id, created, network.config.to_string()))
                .map_err(self.db.error("put back a network"))?;
            Ok(true)
        })
    }

    /// The row of a volume's folder.
    pub(crate) fn restore_volume(&self, folder: &Path) -> Result<bool> {
        let volume: Volume = read(&folder.join("volume.json"))?;
        let detail = serde_json::json!(&volume).to_string();
        let row = (&volume.name, nanoseconds(volume.created), volume.anonymous, detail);
        self.db.write("put back a volume", |tx| {
            change(tx, "INSERT INTO volume VALUES (?,?,?,?)", row).map_err(self.db.error("put back a volume"))?;
            Ok(true)
        })
    }
}

pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = fs::read_dir(folder).map_err(StoreError::io("list", folder))?;
    let found = found.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>();
    let mut found = found.map_err(StoreError::io("list", folder))?;
    found.sort();
    Ok(found)
}

pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(StoreError::io("open", path))?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|e| StoreError::io("read", path)(std::io::Error::from(e)))
}
