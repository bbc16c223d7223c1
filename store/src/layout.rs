//! Where everything lies under the root.

use crate::{Result, StoreError};
use oci::Digest;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The format this program reads and writes.
pub(crate) const FORMAT: u32 = 2;

/// The root's folders.
pub(crate) const FOLDERS: [&str; 9] =
    ["blobs/sha256", "blobs/sha512", "layers", "ingest", "trash", "containers", "volumes", "networks", "images"];

/// Paths under a root.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

impl Layout {
    pub(crate) fn format(&self) -> PathBuf {
        self.root.join("FORMAT")
    }
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("db.sqlite")
    }
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }
    /// A layer's folder by its name: see [`Layout::layer_name`].
    pub(crate) fn layer(&self, name: &str) -> PathBuf {
        self.root.join("layers").join(name)
    }
    /// Layers are named by the hex of their diff id; sha512 ones by `sha512-<hex>`, those that depend on the
    /// layers below by `<diff id>.<16 hex of the chain id>`.
    pub(crate) fn layer_name(diff_id: &Digest) -> String {
        match diff_id.algorithm() {
            "sha256" => diff_id.hex().to_owned(),
            other => format!("{other}-{}", diff_id.hex()),
        }
    }
    /// The form of a layer for one chain: see [`crate::layer::chain`].
    pub(crate) fn sibling_name(diff_id: &Digest, chain: &Digest) -> String {
        format!("{}.{}", Layout::layer_name(diff_id), &chain.hex()[..16])
    }
    pub(crate) fn ingest(&self, name: &str) -> PathBuf {
        self.root.join("ingest").join(name)
    }
    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }
    pub(crate) fn network_file(&self, name: &str) -> PathBuf {
        self.root.join("networks").join(format!("{name}.json"))
    }
    pub(crate) fn image_file(&self, id: &Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", Layout::layer_name(id)))
    }

    /// Renames something into the trash; `false` if it was not there.
    pub(crate) fn discard(&self, path: &Path) -> Result<Option<PathBuf>> {
        let grave = self.trash().join(crate::id::random_hex(16)?);
        match fs::rename(path, &grave) {
            Ok(()) => Ok(Some(grave)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("move to the trash", path)(e)),
        }
    }
}

/// Makes a folder (and those above) that only its owner may enter.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(StoreError::io("create", path))
}

/// Writes a small file so that readers see the old text or the new one.
pub(crate) fn write_atomically(layout: &Layout, path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = layout.ingest(&format!("{}.draft", crate::id::random_hex(16)?));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(StoreError::io("write", path))
        .and_then(|()| fs::rename(&draft, path).map_err(StoreError::io("write", path)));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Removes whatever is at `path`, a tree too; absent is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
