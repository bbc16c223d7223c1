//! OCI image layouts as places to copy from and to. Whoever made the folder may have put links into it: everything is
//! opened beneath it, never by a path.

use super::{Node, Sink, Source, Taken, content, small_blob};
use crate::images::workers::Outcome;
use crate::{EngineError, Result};
use oci::{Descriptor, Index, MAX_MANIFEST_BYTES, MediaType};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_FILE: &str = "index.json";
/// Where podman, skopeo and umoci look for an image's name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layout's folder.
struct Folder {
    path: PathBuf,
    root: OwnedFd,
}

impl Folder {
    fn open(path: &Path) -> Result<Folder> {
        let root = linux::resolve::open_root(path)?;
        Ok(Folder { path: path.to_owned(), root })
    }

    fn blob_path(blob: &Descriptor) -> PathBuf {
        Path::new("blobs").join(blob.digest.algorithm()).join(blob.digest.hex())
    }

    fn read(&self, name: &Path) -> Result<File> {
        Ok(File::from(linux::resolve::open_regular(self.root.as_fd(), name)?))
    }

    fn small(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let fail = |e: io::Error| EngineError::io("read", self.path.join(name), e);
        self.read(Path::new(name))?.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_MANIFEST_BYTES {
            return Err(EngineError::Invalid(format!("{} is too large", self.path.join(name).display())));
        }
        Ok(bytes)
    }

    fn index(&self) -> Result<Index> {
        let bytes = self.small(INDEX_FILE)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| EngineError::Invalid(format!("{}: {e}", self.path.join(INDEX_FILE).display())))
    }

    /// A new file's content takes its place in one step.
    fn write(&self, folder: &Path, name: &str, from: &mut dyn Read) -> Result<()> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let path = self.path.join(folder).join(name);
        let dir = linux::resolve::open_no_links(self.root.as_fd(), folder, OFlags::PATH | OFlags::DIRECTORY)?;
        let draft = format!(".{}.{}.partial", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fail = |e: io::Error| EngineError::io("write", &path, e);
        let file = rustix::fs::openat(&dir, &draft, flags, Mode::from_raw_mode(0o644)).map_err(|e| fail(e.into()))?;
        let written = io::copy(from, &mut File::from(file))
            .and_then(|_| Ok(rustix::fs::renameat(&dir, &draft, &dir, name)?))
            .map_err(fail);
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&dir, &draft, AtFlags::empty());
        }
        written
    }
}

/// An image in a layout.
pub(super) struct FromLayout {
    folder: Folder,
    entry: Descriptor,
}

impl FromLayout {
    pub(super) fn open(path: &Path, name: Option<&str>) -> Result<FromLayout> {
        if !path.join(INDEX_FILE).exists() {
            return Err(EngineError::Invalid(format!(
                "{} is no OCI image layout: it has no index.json",
                path.display()
            )));
        }
        let folder = Folder::open(path)?;
        let index = folder.index()?;
        let entry = store::choose_image(&index, name)
            .map_err(|why| EngineError::Invalid(format!("{}: {why}", path.display())))?;
        let entry = Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size);
        Ok(FromLayout { folder, entry })
    }
}

impl Source for FromLayout {
    fn root(&self) -> Result<Node> {
        self.manifest(&self.entry)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Node> {
        Node::new(descriptor.clone(), small_blob(self, descriptor)?)
    }

    fn blob(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read>> {
        let mut file = self.folder.read(&Folder::blob_path(blob))?;
        file.seek(SeekFrom::Start(offset)).map_err(|e| EngineError::io("read", blob.digest.as_str(), e))?;
        Ok(Box::new(file))
    }
}

/// A layout that gets an image; made where it is not there.
pub(super) struct ToLayout {
    folder: Folder,
    name: Option<String>,
}

impl ToLayout {
    pub(super) fn open(path: &Path, name: Option<&str>) -> Result<ToLayout> {
        std::fs::create_dir_all(path).map_err(|e| EngineError::io("create", path, e))?;
        let folder = Folder::open(path)?;
        let has = |file: &str| std::fs::symlink_metadata(path.join(file)).is_ok();
        let is_empty = || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if !has(LAYOUT_FILE) && !is_empty() {
            let text = format!("{} is neither empty nor an OCI image layout", path.display());
            return Err(EngineError::Invalid(text));
        }
        for algorithm in ["sha256", "sha512"] {
            linux::resolve::create_dir(folder.root.as_fd(), &Path::new("blobs").join(algorithm), 0o755)?;
        }
        if !has(LAYOUT_FILE) {
            folder.write(Path::new(""), LAYOUT_FILE, &mut &*LAYOUT)?;
        }
        Ok(ToLayout { folder, name: name.map(str::to_owned) })
    }

    fn put(&self, blob: &Descriptor, from: &mut dyn Read) -> Result<()> {
        let folder = Path::new("blobs").join(blob.digest.algorithm());
        self.folder.write(&folder, blob.digest.hex(), from)
    }
}

impl Sink for ToLayout {
    fn blob(
        &self,
        blob: &Descriptor,
        source: &dyn Source,
        outcome: &Arc<Outcome>,
        done: &dyn Fn(u64),
    ) -> Result<Taken> {
        let there = self
            .folder
            .read(&Folder::blob_path(blob))
            .and_then(|file| file.metadata().map_err(|e| EngineError::io("inspect", blob.digest.as_str(), e)));
        if there.is_ok_and(|meta| meta.len() == blob.size) {
            return Ok(Taken::Existing);
        }
        self.put(blob, &mut content(source, blob, outcome)?)?;
        done(blob.size);
        Ok(Taken::Copied)
    }

    fn manifest(&self, node: &Node, is_last: bool) -> Result<()> {
        self.put(&node.descriptor, &mut node.bytes.as_slice())?;
        if !is_last {
            return Ok(());
        }
        let mut index = match self.folder.index() {
            Ok(index) => index,
            Err(_) if !self.folder.path.join(INDEX_FILE).exists() => Index {
                schema_version: 2,
                media_type: Some(MediaType::OCI_INDEX.to_owned()),
                manifests: Vec::new(),
                annotations: Default::default(),
            },
            Err(error) => return Err(error),
        };
        let mut entry = node.descriptor.clone();
        entry.annotations.extend(self.name.iter().map(|name| (REF_NAME.to_owned(), name.clone())));
        // The name moves; without one, the same image is not listed twice.
        index.manifests.retain(|other| match &self.name {
            Some(name) => other.annotations.get(REF_NAME) != Some(name),
            None => other.digest != entry.digest || other.annotations.contains_key(REF_NAME),
        });
        index.manifests.push(entry);
        let bytes = serde_json::to_vec(&index).map_err(|e| EngineError::Invalid(e.to_string()))?;
        self.folder.write(Path::new(""), INDEX_FILE, &mut bytes.as_slice())
    }
}
