//! Which layers and blobs there are, and whether they can be trusted after a power cut.

use crate::compression::Digesting;
use crate::db::{change, row};
use crate::images::signed;
use crate::layout::{Layout, make_dir, write_atomically};
use crate::lease::{NameLock, lock_name};
use crate::lock::Wait;
use crate::{Result, Store, StoreError};
use oci::{Descriptor, Digest, ImageConfig, Manifest};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `layer.json`: what is known of a layer beside its files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerFile {
    pub(crate) diff_id: Digest,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// The boot in which it was made.
    pub(crate) boot: String,
    /// Mode, uid and gid of the root, if the tar says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<(u32, u32, u32)>,
    /// Folders the tar has no header of: their attributes come from the layers below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) implied: Vec<Vec<u8>>,
    /// Hard links to files of layers below: path and target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
    /// The blob it came as and the repository that came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<(Descriptor, String)>,
}

impl Store {
    /// Whether the layer is there; if so it is kept from collection as long as this `Store` lives.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        let name = Layout::layer_name(diff_id);
        // What this process keeps already cannot have gone.
        let own = (self.lease.holds(&name) && self.is_own(&name)) || self.lease_layer(&name).unwrap_or(false);
        own || self.shared_layer(&name).is_some()
    }

    /// One that another is making now is not there, and is not waited for.
    fn lease_layer(&self, name: &str) -> Result<bool> {
        let mut lock = lock_name(&self.layout, name, Wait::Try)?;
        if lock.is_none() && self.is_whole(name)? {
            lock = lock_name(&self.layout, name, Wait::Block)?;
        }
        lock.map_or(Ok(false), |lock| self.lease_if_there(&lock, name))
    }

    /// The caller holds the layer's lock. One in an additional store is there without a lease.
    pub(crate) fn lease_if_there(&self, _held: &NameLock, name: &str) -> Result<bool> {
        if !self.is_whole(name)? {
            return Ok(self.shared_layer(name).is_some());
        }
        self.lease.add(&self.layout, name)?;
        Ok(true)
    }

    /// Whether row and folder are there, and the folder was written in this boot or is known to be on the disk.
    fn is_whole(&self, name: &str) -> Result<bool> {
        let boot: Option<Option<String>> = self.db.read("look up a layer", |tx| {
            row(tx, "SELECT boot FROM layer WHERE name = ?", [name], |r| r.get(0))
                .map_err(self.db.error("look up a layer"))
        })?;
        let trusted = boot.is_some_and(|boot| boot.is_none_or(|boot| boot == self.boot));
        Ok(trusted && self.layout.layer(name).join("fs").exists())
    }

    /// Whether the layer's row and folder are in this store itself, to be trusted or not.
    pub(crate) fn is_own(&self, name: &str) -> bool {
        self.layout.layer(name).join("fs").exists()
    }

    /// The layer's `fs/` folder, whether it is there or not.
    pub fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        let name = Layout::layer_name(diff_id);
        let own = self.layout.layer(&name).join("fs");
        if self.shared.is_empty() || self.is_whole(&name).unwrap_or(false) {
            return own;
        }
        self.shared_layer(&name).map_or(own, |(_, folder)| folder)
    }

    /// Why a layer is not to be had.
    pub(crate) fn missing_layer(&self, name: &str) -> StoreError {
        let hex = name.split('.').next().unwrap_or(name);
        let layer = match format!("sha256:{hex}").parse::<Digest>() {
            Ok(layer) => layer,
            Err(_) => return StoreError::BadImage { image: name.to_owned(), why: "a layer is missing".to_owned() },
        };
        match self.seen_in(name) {
            Ok(Some(store)) => StoreError::SharedLayerGone { layer, store },
            _ => StoreError::NoSuchLayer(layer),
        }
    }

    /// The additional store in which the layer was seen when an image or container here began to need it.
    pub(crate) fn seen_in(&self, name: &str) -> Result<Option<PathBuf>> {
        self.db.read("look up a layer", |tx| {
            let found: Option<String> = row(tx, "SELECT store FROM shared_layer WHERE name = ?", [name], |r| r.get(0))
                .map_err(self.db.error("look up a layer"))?;
            Ok(found.map(PathBuf::from))
        })
    }

    /// Notes which of the layers lie in additional stores: should one be gone later, that is the reason.
    pub(crate) fn note_shared(&self, tx: &rusqlite::Transaction<'_>, names: &[String]) -> Result<()> {
        if self.shared.is_empty() {
            return Ok(());
        }
        for name in names.iter().filter(|name| !self.is_own(name)) {
            let Some((shared, _)) = self.shared_layer(name) else { continue };
            let row = (name, shared.layout.root.to_string_lossy());
            change(tx, "INSERT OR REPLACE INTO shared_layer VALUES (?,?)", row)
                .map_err(self.db.error("note where a layer is"))?;
        }
        Ok(())
    }

    /// The `fs/` folders of layers by their folders' names; each must be whole.
    pub(crate) fn layer_folders(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        names
            .iter()
            .map(|name| {
                let own = || self.layout.layer(name).join("fs");
                if self.is_whole(name)? {
                    return Ok(own());
                }
                if let Some((_, folder)) = self.shared_layer(name) {
                    return Ok(folder);
                }
                if self.heal(name)? { Ok(own()) } else { Err(self.missing_layer(name)) }
            })
            .collect()
    }

    /// After a power cut a layer may be damaged, so one that may not have reached the disk in an earlier boot is
    /// unpacked again from its blob or, where it has none (built here), hashed anew.
    fn heal(&self, name: &str) -> Result<bool> {
        let Ok(diff_id) = format!("sha256:{name}").parse::<Digest>() else { return Ok(false) };
        let Some(blob) = self.known_blob(&diff_id)? else { return self.verify(name, &diff_id) };
        let Some(path) = self.blob_path(&blob.digest) else { return Ok(false) };
        let mut open = |_| File::open(&path).map(|f| Box::new(f) as Box<dyn io::Read>);
        match self.ingest_layer(&blob, &diff_id, &mut open, &|_| ()) {
            Ok(()) => Ok(true),
            // The blob is damaged too.
            Err(StoreError::DigestMismatch { .. } | StoreError::SizeMismatch { .. } | StoreError::LayerRead { .. }) => {
                self.verify(name, &diff_id)
            }
            Err(e) => Err(e),
        }
    }

    /// Whether the folder is still what its digest says; if so it is trusted from now on.
    fn verify(&self, name: &str, diff_id: &Digest) -> Result<bool> {
        let Some(_lock) = lock_name(&self.layout, name, Wait::Block)? else { return Ok(false) };
        let mut tar = Digesting::new(io::sink());
        match self.layer_tar(diff_id, &mut tar) {
            Ok(()) if tar.finish().0 == *diff_id => {}
            _ => return Ok(false),
        }
        self.db.write("trust a layer again", |tx| {
            change(tx, "UPDATE layer SET boot = ? WHERE name = ?", (&self.boot, name))
                .map(|met| met > 0)
                .map_err(self.db.error("trust a layer again"))
        })
    }

    /// A layer's blob that is on disk.
    pub(crate) fn known_blob(&self, diff_id: &Digest) -> Result<Option<Descriptor>> {
        let error = self.db.error("look up a layer's blob");
        let found: Vec<(String, i64, String)> = self.db.read("look up a layer's blob", |tx| {
            let sql = "SELECT blob, size, media_type FROM layer_blob WHERE diff_id = ? ORDER BY blob";
            crate::db::rows(tx, sql, [diff_id.as_str()], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).map_err(error)
        })?;
        for (blob, size, media_type) in found {
            let Ok(digest) = blob.parse::<Digest>() else { continue };
            let size = u64::try_from(size).unwrap_or(0);
            if self.blob_path(&digest).is_some_and(|path| fs::metadata(path).is_ok_and(|m| m.len() == size)) {
                return Ok(Some(Descriptor::new(&media_type, digest, size)));
            }
        }
        Ok(self.shared_blob_of(diff_id))
    }

    /// Moves a finished layer – `fs/` in the folder `made` – to its place. The caller holds the layer's lock.
    pub(crate) fn install_layer(
        &self,
        held: &NameLock,
        made: &Path,
        name: &str,
        file: &LayerFile,
        blob: Option<&Descriptor>,
    ) -> Result<()> {
        let json = serde_json::json!(file).to_string();
        fs::write(made.join("layer.json"), json).map_err(StoreError::io("write", made.join("layer.json")))?;
        let target = self.layout.layer(name);
        // What is there without counting is a crash's or a power cut's leaving.
        self.bury(&target)?;
        fs::rename(made, &target).map_err(StoreError::io("create", &target))?;
        let error = self.db.error("put a layer");
        self.db.write("put a layer", |tx| {
            let row = (name, file.diff_id.as_str(), signed(file.size), &self.boot);
            change(tx, "INSERT OR REPLACE INTO layer VALUES (?,?,?,?)", row).map_err(error)?;
            if let Some(blob) = blob {
                self.note_blob(tx, blob, &file.diff_id)?;
            }
            match &file.source {
                Some((blob, repository)) => self.note_source(tx, &blob.digest, repository),
                None => Ok(()),
            }
        })?;
        self.lease_if_there(held, name)?;
        Ok(())
    }

    pub(crate) fn note_blob(&self, tx: &rusqlite::Transaction<'_>, blob: &Descriptor, diff_id: &Digest) -> Result<()> {
        let row = (blob.digest.as_str(), diff_id.as_str(), signed(blob.size), &blob.media_type);
        change(tx, "INSERT OR IGNORE INTO layer_blob VALUES (?,?,?,?)", row)
            .map_err(self.db.error("note a layer's blob"))?;
        Ok(())
    }

    /// A manifest's blobs that are here, by the diff ids of its config.
    pub(crate) fn note_layer_blobs(&self, manifest: &Manifest, config: &ImageConfig) -> Result<()> {
        self.db.write("note layers' blobs", |tx| {
            for (blob, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
                if self.blob_path(&blob.digest).is_some() {
                    self.note_blob(tx, blob, diff_id)?;
                }
            }
            Ok(())
        })
    }

    pub(crate) fn layer_file(&self, name: &str) -> Result<LayerFile> {
        if !self.is_own(name) {
            return self.shared_layer_file(name);
        }
        let path = self.layout.layer(name).join("layer.json");
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|e| StoreError::io("read", &path)(io::Error::from(e)))
    }

    /// Puts a small blob (config, manifest) whose bytes must match the descriptor.
    pub fn ingest_blob(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        if descriptor.size != bytes.len() as u64 {
            let (digest, expected) = (descriptor.digest.clone(), descriptor.size);
            return Err(StoreError::SizeMismatch { what: "blob", digest, expected, got: bytes.len() as u64 });
        }
        let mut hasher = descriptor.digest.hasher();
        hasher.update(bytes);
        let got = hasher.finish();
        if got != descriptor.digest {
            return Err(StoreError::DigestMismatch { what: "blob", expected: descriptor.digest.clone(), got });
        }
        let name = descriptor.digest.as_str();
        let lock = lock_name(&self.layout, name, Wait::Block)?;
        self.lease.add(&self.layout, name)?;
        // Written even if it is there: after a power cut it may be damaged.
        write_atomically(&self.layout, &self.layout.blob(&descriptor.digest), bytes)?;
        drop(lock);
        Ok(())
    }

    /// Opens a blob.
    pub fn blob(&self, digest: &Digest) -> Result<File> {
        self.open_file(digest)
    }

    /// Where the blob is: here, or in an additional store.
    pub(crate) fn blob_path(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.layout.blob(digest)).filter(|path| path.exists()).or_else(|| self.shared_blob(digest))
    }

    /// Whether the blob is there; if so it is kept from collection as long as this `Store` lives.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        let path = self.layout.blob(digest);
        if !path.exists() {
            return self.shared_blob(digest).is_some();
        }
        let Ok(Some(_lock)) = lock_name(&self.layout, digest.as_str(), Wait::Block) else { return false };
        path.exists() && self.lease.add(&self.layout, digest.as_str()).is_ok()
    }

    /// Streams content into a new blob; what its digest is shows at the end.
    pub(crate) fn new_blob(&self, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<(Digest, u64)> {
        let scratch = self.new_scratch()?;
        let path = scratch.path().join("blob");
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(StoreError::io("create", &path))?;
        let mut out = Digesting::new(file);
        write(&mut out)?;
        out.flush().map_err(StoreError::io("write", &path))?;
        let (digest, size, _) = out.finish();
        let lock = lock_name(&self.layout, digest.as_str(), Wait::Block)?;
        self.lease.add(&self.layout, digest.as_str())?;
        let target = self.layout.blob(&digest);
        fs::rename(&path, &target).map_err(StoreError::io("create", &target))?;
        drop(lock);
        Ok((digest, size))
    }

    /// A layer's own folder to be made: `layer/fs` in a scratch.
    pub(crate) fn new_layer_folder(scratch: &Path) -> Result<(PathBuf, PathBuf)> {
        let made = scratch.join("layer");
        let fs = made.join("fs");
        make_dir(&fs, 0o755)?;
        fs::set_permissions(&fs, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(StoreError::io("chmod", &fs))?;
        Ok((made, fs))
    }
}
