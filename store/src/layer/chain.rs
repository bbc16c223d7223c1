//! Layers that depend on those below them.
//!
//! A tar may have `lib/x` without a header for `lib`: what `lib` is – its owner and mode, or that it is a link to
//! `usr/lib` – then is for the layers below to say; unpacked as a plain folder it would mask them. And a hard
//! link's target may lie below. Layers are unpacked in any order and shared by images, so such a one stays as it
//! is and gets a sibling per chain, `<diff id>.<chain>`, whose files are hard links to it and whose folders are as
//! the chain wants them – copies, where it lies in an additional store, in which not even a count of links may change. Most implied folders are root's, mode 755, below too: no sibling is needed then.

use super::extract::{join, open_beneath, os};
use super::rows::LayerFile;
use super::walk::{self, Step};
use crate::copy::{Copy, LAYER};
use crate::layout::Layout;
use crate::lease::lock_name;
use crate::lock::Wait;
use crate::{Result, Store, StoreError};
use linux::file;
use oci::{Digest, Hasher};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown, fstat,
    futimens, mkdirat, readlinkat, statat,
};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const MAX_DEPTH: usize = 2048;

impl Store {
    /// The folders' names of a chain of layers, lowest first; siblings are made where the chain wants them.
    pub(crate) fn settle_chain(&self, diff_ids: &[Digest]) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::with_capacity(diff_ids.len());
        let mut chain = Hasher::sha256();
        for diff_id in diff_ids {
            chain.update(diff_id.as_str().as_bytes());
            let name = Layout::layer_name(diff_id);
            let layer = self.layer_file(&name)?;
            if names.is_empty() || (layer.implied.is_empty() && layer.links.is_empty()) {
                names.push(name);
                continue;
            }
            let below = Below::open(self, &names)?;
            let moved = below.plan(&layer)?;
            if moved.is_empty() && layer.links.is_empty() {
                names.push(name);
                continue;
            }
            let sibling = Layout::sibling_name(diff_id, &chain.clone().finish());
            self.make_sibling(&name, &sibling, &layer, &below, &moved)?;
            names.push(sibling);
        }
        Ok(names)
    }

    fn make_sibling(&self, name: &str, sibling: &str, layer: &LayerFile, below: &Below, moved: &Plan) -> Result<()> {
        let lock = lock_name(&self.layout, sibling, Wait::Block)?;
        let lock = lock.ok_or_else(|| StoreError::Busy(format!("layer {sibling}")))?;
        if self.lease_if_there(&lock, sibling)? {
            return Ok(());
        }
        let scratch = self.new_scratch()?;
        let (made, fs) = Store::new_layer_folder(scratch.path())?;
        let source = self.layer_folders(&[name.to_owned()])?.pop().unwrap_or_default();
        let source = open_dir(&source)?;
        let target = open_dir(&fs)?;
        let copied = !self.is_own(name);
        let copy = copied.then(|| Copy::new(LAYER, &target, Path::new(""))).transpose()?;
        let mut farm = Farm { target, prefix: self.marks().prefix, below, moved, copy };
        let stat = fstat(&source).map_err(StoreError::io("inspect", &fs))?;
        set_attributes(&farm.target, &stat).map_err(StoreError::io("set attributes of", &fs))?;
        farm.folder(&source, b"", 0)?;
        for (path, target) in &layer.links {
            farm.link_below(path, target)?;
        }
        self.install_layer(&lock, &made, sibling, layer, None)
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(StoreError::io("open", path))
}

/// What becomes of an implied folder.
enum Fate {
    /// It gets these attributes: those of the open folder below.
    Like(OwnedFd),
    /// Its content belongs here: below it is a link.
    Moves(Vec<u8>),
}

type Plan = BTreeMap<Vec<u8>, Fate>;

/// The layers below, seen as one, highest first.
struct Below {
    layers: Vec<(OwnedFd, PathBuf)>,
    prefix: &'static str,
    /// None of them lies in an additional store.
    own: bool,
}

/// What a path is in the layers below.
enum Seen {
    Nothing,
    Link(Vec<u8>),
    Folder(OwnedFd),
    /// Anything else: the open folder it is in.
    Other(OwnedFd),
}

impl Below {
    fn open(store: &Store, names: &[String]) -> Result<Below> {
        let layers = store.layer_folders(names)?;
        let open = |path: PathBuf| Ok((open_dir(&path)?, path));
        let own = layers.iter().all(|path| path.starts_with(&store.layout.root));
        let layers = layers.into_iter().rev().map(open).collect::<Result<_>>()?;
        Ok(Below { layers, prefix: store.marks().prefix, own })
    }

    /// The implied folders that can't stay as they are.
    fn plan(&self, layer: &LayerFile) -> Result<Plan> {
        let mut plan = Plan::new();
        for path in &layer.implied {
            let resolved = self.resolve(path)?;
            if resolved != *path {
                plan.insert(path.clone(), Fate::Moves(resolved));
            } else if let Seen::Folder(fd) = self.look(path)? {
                let stat = fstat(&fd).map_err(StoreError::io("inspect", "layer"))?;
                let plain = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (0o755, 0, 0);
                let xattrs =
                    file::xattrs(fd.as_fd(), os(b"")).map_err(StoreError::io("read attributes of", "layer"))?;
                if !plain || xattrs.iter().any(|(key, _)| super::extract::is_kept(key.as_bytes())) {
                    plan.insert(path.clone(), Fate::Like(fd));
                }
            }
        }
        Ok(plan)
    }

    /// What is at `path`, none of whose folders is a link.
    fn look(&self, path: &[u8]) -> Result<Seen> {
        let (folder, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        for (root, shown) in &self.layers {
            let failed = |e: Errno| StoreError::io("look into", shown)(e);
            match open_beneath(root.as_fd(), folder, ResolveFlags::NO_SYMLINKS) {
                Ok(dir) => match statat(&dir, os(name), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => return seen(dir, name, &stat).map_err(failed),
                    Err(Errno::NOENT) => {}
                    Err(e) => return Err(failed(e)),
                },
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(failed(e)),
            }
            if self.hides(root, folder)? {
                return Ok(Seen::Nothing);
            }
        }
        Ok(Seen::Nothing)
    }

    /// Whether the layer hides what is below it in `folder`: an opaque folder, a whiteout or a file on the way.
    fn hides(&self, root: &OwnedFd, folder: &[u8]) -> Result<bool> {
        let mut so_far = Vec::new();
        for name in folder.split(|&b| b == b'/').filter(|n| !n.is_empty()) {
            so_far = join(&so_far, name);
            match open_beneath(root.as_fd(), &so_far, ResolveFlags::NO_SYMLINKS) {
                Ok(dir) => {
                    if is_opaque(&dir, self.prefix) {
                        return Ok(true);
                    }
                }
                Err(Errno::NOENT) => return Ok(false),
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }

    /// The path with all links followed inside the root; names that are nowhere stay as they are.
    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        walk::resolve(path, path, |folder, name| {
            Ok(match self.look(&join(folder, name))? {
                Seen::Link(target) => Step::Follow(target),
                _ => Step::Enter,
            })
        })
    }
}

fn seen(dir: OwnedFd, name: &[u8], stat: &Stat) -> std::result::Result<Seen, Errno> {
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Seen::Folder(open_beneath(dir.as_fd(), name, ResolveFlags::NO_SYMLINKS)?),
        FileType::Symlink => Seen::Link(readlinkat(&dir, os(name), Vec::new())?.into_bytes()),
        FileType::CharacterDevice if stat.st_rdev == 0 => Seen::Nothing,
        _ => Seen::Other(dir),
    })
}

fn is_opaque(dir: &OwnedFd, prefix: &str) -> bool {
    let mut value = [0_u8; 8];
    let read = rustix::fs::fgetxattr(dir, format!("{prefix}opaque"), &mut value[..]);
    read.is_ok_and(|n| &value[..n] == b"y")
}

/// Builds the sibling.
struct Farm<'a> {
    target: OwnedFd,
    prefix: &'static str,
    below: &'a Below,
    moved: &'a Plan,
    /// Where the layer's files are to be copied rather than linked.
    copy: Option<Copy<'static>>,
}

impl Farm<'_> {
    /// Links everything in `from`, the layer's folder `path`, to where it belongs.
    fn folder(&mut self, from: &OwnedFd, path: &[u8], depth: usize) -> Result<()> {
        let failed = |e: Errno| StoreError::io("copy", os(path))(e);
        if depth > MAX_DEPTH {
            return Err(failed(Errno::NAMETOOLONG));
        }
        let place = self.place(path);
        let to = self.make_folder(&place)?;
        for entry in rustix::fs::Dir::read_from(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let child_path = join(path, name);
            let stat = statat(from, os(name), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let shown = PathBuf::from(os(&join(&place, name)));
                // Two ways to one place: what came first stays.
                let is_there = statat(&to, os(name), AtFlags::SYMLINK_NOFOLLOW).is_ok();
                match &mut self.copy {
                    _ if is_there => {}
                    Some(copy) => copy.entry((from, name), (&to, name), &shown)?,
                    None => file::hard_link(from.as_fd(), os(name), to.as_fd(), os(name))
                        .map_err(StoreError::io("link", &shown))?,
                }
                continue;
            }
            let child = open_beneath(from.as_fd(), name, ResolveFlags::NO_SYMLINKS).map_err(failed)?;
            self.folder(&child, &child_path, depth + 1)?;
            self.finish_folder(&child, &child_path, &stat)?;
        }
        Ok(())
    }

    /// Where the layer's folder `path` belongs: the longest implied part of it decides.
    fn place(&self, path: &[u8]) -> Vec<u8> {
        let mut end = path.len();
        while end > 0 {
            if let Some(Fate::Moves(to)) = self.moved.get(&path[..end]) {
                return [to.as_slice(), &path[end..]].concat();
            }
            end = path[..end].iter().rposition(|&b| b == b'/').unwrap_or(0);
        }
        path.to_vec()
    }

    /// Makes a folder and those above it, each like the one below.
    fn make_folder(&self, path: &[u8]) -> Result<OwnedFd> {
        let failed = |e: Errno| StoreError::io("create", os(path))(e);
        let mut so_far = Vec::new();
        for name in path.split(|&b| b == b'/').filter(|n| !n.is_empty()) {
            let parent = open_beneath(self.target.as_fd(), &so_far, ResolveFlags::NO_SYMLINKS).map_err(failed)?;
            so_far = join(&so_far, name);
            match mkdirat(&parent, os(name), Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => continue,
                other => other.map_err(failed)?,
            }
            let made = open_beneath(parent.as_fd(), name, ResolveFlags::NO_SYMLINKS).map_err(failed)?;
            fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failed)?;
            if let Seen::Folder(like) = self.below.look(&so_far)? {
                copy_attributes(&like, &made).map_err(StoreError::io("set attributes of", os(&so_far)))?;
            }
        }
        open_beneath(self.target.as_fd(), path, ResolveFlags::NO_SYMLINKS).map_err(failed)
    }

    /// The folder's own attributes, unless it has none of its own.
    fn finish_folder(&self, from: &OwnedFd, path: &[u8], stat: &Stat) -> Result<()> {
        let to = self.make_folder(&self.place(path))?;
        let failed = StoreError::io("set attributes of", os(path));
        let result = match self.moved.get(path) {
            Some(Fate::Moves(_)) => Ok(()),
            Some(Fate::Like(like)) => copy_attributes(like, &to),
            None => copy_attributes(from, &to)
                .and_then(|()| set_attributes(&to, stat).map_err(|e| linux::CallError::new("utimensat", "", e))),
        };
        result.map_err(failed)?;
        if is_opaque(from, self.prefix) {
            let key = format!("{}opaque", self.prefix);
            file::set_xattr(to.as_fd(), os(b""), os(key.as_bytes()), b"y")
                .map_err(StoreError::io("set attributes of", os(path)))?;
        }
        Ok(())
    }

    /// A hard link whose target is in a layer below: one more name of that file.
    fn link_below(&self, path: &[u8], target: &[u8]) -> Result<()> {
        let bad = |why: &str| StoreError::BadLayer {
            entry: String::from_utf8_lossy(path).into_owned(),
            why: format!("it is a hard link to {:?}, {why}", String::from_utf8_lossy(target)),
        };
        let (folder, name) = split(target);
        let target = join(&self.below.resolve(folder)?, name);
        let Seen::Other(dir) = self.below.look(&target)? else {
            return Err(bad("which is no file in the layers below"));
        };
        let (folder, link) = split(path);
        let to = self.make_folder(&self.place(folder))?;
        if !self.below.own {
            let mut copy = Copy::new(LAYER, &self.target, Path::new(""))?;
            return copy.entry((&dir, name), (&to, link), Path::new(os(path)));
        }
        match file::hard_link(dir.as_fd(), os(name), to.as_fd(), os(link)) {
            Err(e) if e.errno == Errno::EXIST => Ok(()),
            other => other.map_err(|e| bad(&e.to_string())),
        }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> std::result::Result<(), linux::CallError> {
    let failed = |e| linux::CallError::new("chmod", "", e);
    let stat = fstat(from).map_err(failed)?;
    set_attributes(to, &stat).map_err(failed)?;
    for (key, value) in file::xattrs(from.as_fd(), os(b""))? {
        if super::extract::is_kept(key.as_bytes()) {
            file::set_xattr(to.as_fd(), os(b""), &key, &value)?;
        }
    }
    Ok(())
}

fn set_attributes(to: &OwnedFd, stat: &Stat) -> std::result::Result<(), Errno> {
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    futimens(to, &Timestamps { last_access: time, last_modification: time })
}
