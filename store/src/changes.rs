//! What each layer of an image added, changed and removed, told by its folders and their marks.

use crate::layer::extract::{join, open_beneath, os};
use crate::layout::Layout;
use crate::{Image, Result, Store, StoreError};
use oci::Digest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, statat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Deeper than any tree that a layer can hold.
const MAX_DEPTH: usize = 2048;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// Something else was there.
    Changed,
    /// It is there no more. Of a folder only the folder is told.
    Removed,
}

/// One path of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What became of it.
    pub kind: ChangeKind,
    /// From the root, without the slash before.
    pub path: Vec<u8>,
    /// Bytes that it takes in this layer; of a removed one, what it took below.
    pub bytes: u64,
}

/// What a layer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerChanges {
    /// Which layer.
    pub diff_id: Digest,
    /// By path. Folders that were there before are not told: what is in them is.
    pub changes: Vec<Change>,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of layers below that this one hides: they are in the image for nothing.
    pub hidden_bytes: u64,
}

/// Bytes of a file, none for a folder.
type Tree = BTreeMap<Vec<u8>, Option<u64>>;

impl Store {
    /// Bytes of each of the image's layers, lowest first.
    pub fn layer_sizes(&self, image: &Image) -> Result<Vec<u64>> {
        let names = image.config.rootfs.diff_ids.iter().map(Layout::layer_name);
        names.map(|name| Ok(self.layer_file(&name)?.size)).collect()
    }

    /// The image's layers, lowest first, and what each of them did.
    pub fn changes(&self, image: &Image) -> Result<Vec<LayerChanges>> {
        let mut tree = Tree::new();
        let mut layers = Vec::new();
        let marks = self.marks();
        for (diff_id, folder) in image.config.rootfs.diff_ids.iter().zip(self.image_layers(image)?) {
            let mut walk = Walk {
                tree: &mut tree,
                before: BTreeMap::new(),
                changes: Vec::new(),
                bytes: 0,
                hidden_bytes: 0,
                inodes: HashSet::new(),
                opaque: format!("{}opaque", marks.prefix),
                shown: &folder,
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(&folder, flags, Mode::empty()).map_err(StoreError::io("open", &folder))?;
            walk.folder(&root, b"", 0)?;
            let mut changes = walk.changes;
            let (bytes, hidden_bytes) = (walk.bytes, walk.hidden_bytes);
            changes.sort_by(|a, b| a.path.cmp(&b.path));
            layers.push(LayerChanges { diff_id: diff_id.clone(), changes, bytes, hidden_bytes });
        }
        Ok(layers)
    }
}

struct Walk<'a> {
    /// All layers so far.
    tree: &'a mut Tree,
    /// Names that an opaque folder hid: what stands there anew has changed.
    before: BTreeMap<Vec<u8>, u64>,
    changes: Vec<Change>,
    bytes: u64,
    hidden_bytes: u64,
    /// A file of several names takes its bytes once.
    inodes: HashSet<u64>,
    opaque: String,
    shown: &'a Path,
}

impl Walk<'_> {
    fn folder(&mut self, dir: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
        let failed = |e: Errno| StoreError::io("read", self.shown)(e);
        if depth > MAX_DEPTH {
            return Err(failed(Errno::NAMETOOLONG));
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if !matches!(name.as_slice(), b"." | b"..") {
                names.push(name);
            }
        }
        let hides = !path.is_empty() && is_marked(dir, &self.opaque);
        let hidden = if hides { self.hide(path) } else { Vec::new() };
        for name in names {
            let failed = |e: Errno| StoreError::io("read", self.shown)(e);
            let stat = statat(dir, os(&name), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let child = join(path, &name);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let inner = open_beneath(dir.as_fd(), &name, ResolveFlags::NO_SYMLINKS).map_err(failed)?;
                    self.enter(&child);
                    self.folder(&inner, &child, depth + 1)?;
                }
                FileType::CharacterDevice if stat.st_rdev == 0 => self.whiteout(&child),
                _ => self.file(child, &stat),
            }
        }
        for path in hidden.into_iter().filter(|path| !self.tree.contains_key(path)).collect::<Vec<_>>() {
            let bytes = self.before.get(&path).copied().unwrap_or(0);
            self.changes.push(Change { kind: ChangeKind::Removed, path, bytes });
        }
        Ok(())
    }

    /// Takes all below the folder away; tells and notes what was right in it.
    fn hide(&mut self, path: &[u8]) -> Vec<Vec<u8>> {
        let children: Vec<Vec<u8>> = beneath(self.tree, path)
            .map(|(child, _)| child.clone())
            .filter(|child| !child[path.len() + 1..].contains(&b'/'))
            .collect();
        for child in &children {
            let bytes = self.take(child);
            self.hidden_bytes += bytes;
            self.before.insert(child.clone(), bytes);
        }
        children
    }

    /// Removes a path and all below it; tells the bytes of it.
    fn take(&mut self, path: &[u8]) -> u64 {
        let below: Vec<Vec<u8>> = beneath(self.tree, path).map(|(child, _)| child.clone()).collect();
        let mut bytes = self.tree.remove(path).flatten().unwrap_or(0);
        for child in below {
            bytes += self.tree.remove(&child).flatten().unwrap_or(0);
        }
        bytes
    }

    fn was_there(&self, path: &[u8]) -> bool {
        self.tree.contains_key(path) || self.before.contains_key(path)
    }

    fn enter(&mut self, path: &[u8]) {
        match self.tree.get(path) {
            Some(None) => {}
            Some(Some(_)) => {
                self.hidden_bytes += self.take(path);
                self.changes.push(Change { kind: ChangeKind::Changed, path: path.to_vec(), bytes: 0 });
            }
            None if self.was_there(path) => {}
            None => self.changes.push(Change { kind: ChangeKind::Added, path: path.to_vec(), bytes: 0 }),
        }
        self.tree.insert(path.to_vec(), None);
    }

    fn whiteout(&mut self, path: &[u8]) {
        // One that hides nothing does nothing.
        if self.tree.contains_key(path) {
            let bytes = self.take(path);
            self.hidden_bytes += bytes;
            self.changes.push(Change { kind: ChangeKind::Removed, path: path.to_vec(), bytes });
        }
    }

    fn file(&mut self, path: Vec<u8>, stat: &Stat) {
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let first = stat.st_nlink < 2 || self.inodes.insert(stat.st_ino);
        let bytes = if is_file && first { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        let kind = if self.was_there(&path) { ChangeKind::Changed } else { ChangeKind::Added };
        self.hidden_bytes += self.take(&path);
        self.bytes += bytes;
        self.tree.insert(path.clone(), Some(bytes));
        self.changes.push(Change { kind, path, bytes });
    }
}

/// What the tree holds below a path.
fn beneath<'t>(tree: &'t Tree, path: &[u8]) -> impl Iterator<Item = (&'t Vec<u8>, &'t Option<u64>)> {
    let prefix = join(path, b"");
    tree.range(prefix.clone()..).take_while(move |(child, _)| child.starts_with(&prefix))
}

fn is_marked(dir: &OwnedFd, key: &str) -> bool {
    let mut value = [0_u8; 8];
    rustix::fs::fgetxattr(dir, key, &mut value[..]).is_ok_and(|n| &value[..n] == b"y")
}
