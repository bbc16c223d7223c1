//! What the layer tests share: a store of one's own, and tars made header by header.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use oci::{Descriptor, Digest, MediaType};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use store::{Store, StoreError};

pub struct Fixture {
    pub _folder: tempfile::TempDir,
    pub path: PathBuf,
    pub store: Store,
}

pub fn open() -> Fixture {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(&folder.path().join("root")).unwrap();
    Fixture { path: folder.path().to_owned(), _folder: folder, store }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Ingests a tar as a gzip'd layer; returns its folder.
pub fn ingest(store: &Store, tar: &[u8]) -> Result<PathBuf, StoreError> {
    let blob = gzip(tar);
    let diff_id = Digest::sha256(tar);
    let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &blob);
    store.ingest_layer(&descriptor, &diff_id, &mut |at| from(&blob, at), &|_| ())?;
    Ok(store.layer_dir(&diff_id))
}

pub fn from(bytes: &[u8], offset: u64) -> std::io::Result<Box<dyn Read>> {
    Ok(Box::new(Cursor::new(bytes[usize::try_from(offset).unwrap()..].to_vec())))
}

/// A tar built header by header.
#[derive(Default)]
pub struct Tar {
    pub bytes: Vec<u8>,
}

impl Tar {
    pub fn entry(mut self, kind: tar::EntryType, path: &str, link: &str, data: &[u8]) -> Tar {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }
    pub fn file(self, path: &str, data: &str) -> Tar {
        self.entry(tar::EntryType::Regular, path, "", data.as_bytes())
    }
    pub fn dir(self, path: &str) -> Tar {
        self.entry(tar::EntryType::Directory, path, "", b"")
    }
    pub fn symlink(self, path: &str, to: &str) -> Tar {
        self.entry(tar::EntryType::Symlink, path, to, b"")
    }
    pub fn link(self, path: &str, to: &str) -> Tar {
        self.entry(tar::EntryType::Link, path, to, b"")
    }
    pub fn pax(self, records: &[(&str, &str)]) -> Tar {
        let mut data = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|l| rest + l.to_string().len() == *l).unwrap();
            data.push_str(&format!("{length} {key}={value}\n"));
        }
        self.entry(tar::EntryType::XHeader, "pax", "", data.as_bytes())
    }
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

pub fn is_whiteout(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

pub fn xattr(path: &Path, key: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1000];
    let n = rustix::fs::lgetxattr(path, key, &mut value[..]).ok()?;
    value.truncate(n);
    Some(value)
}

/// Puts an image of these layers; returns its layers' folders.
pub fn chain(f: &Fixture, tars: &[Vec<u8>]) -> Result<Vec<PathBuf>, StoreError> {
    let mut config =
        oci::ImageConfig { os: "linux".to_owned(), architecture: "amd64".to_owned(), ..oci::ImageConfig::default() };
    for tar in tars {
        ingest(&f.store, tar)?;
        config.rootfs.diff_ids.push(Digest::sha256(tar));
    }
    let id = f.store.put_built_image(&config, &[])?;
    f.store.image_layers(&f.store.image(id.as_str())?)
}

/// Every file below, with what of it must survive.
pub fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    let mut inodes = BTreeMap::new();
    while let Some(folder) = todo.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_owned();
            let content = if meta.is_file() {
                format!("{:?}", Digest::sha256(std::fs::read(&path).unwrap()))
            } else {
                String::new()
            };
            let target = std::fs::read_link(&path).map(|t| t.display().to_string()).unwrap_or_default();
            let first = if meta.is_dir() || meta.rdev() == 0 && meta.file_type().is_char_device() {
                String::new()
            } else {
                format!("{:?}", inodes.entry(meta.ino()).or_insert_with(|| name.clone()))
            };
            let capability = xattr(&path, "security.capability");
            let own = if meta.is_file() { xattr(&path, "user.own") } else { None };
            let time = if meta.file_type().is_char_device() { 0 } else { meta.mtime() };
            found.insert(
                name,
                format!(
                    "{:o} {}:{} {} {} {target} {content} {first} {capability:?} {own:?}",
                    if time == 0 { 0 } else { meta.mode() },
                    meta.uid(),
                    meta.gid(),
                    meta.rdev(),
                    time
                ),
            );
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    found
}
