//! A listing of what is to be copied, with the digests a cache key is made of.

use super::{Tree, read_link, sorted_names, stat_in};
use crate::ignore::IgnoreRules;
use crate::instruction::Chmod;
use crate::step_error::{StepError, StepResult};
use oci::{Digest, Hasher};
use rustix::fs::{FileType, OFlags, Stat};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folders nested deeper than this are an error: each level holds a descriptor open.
pub(crate) const MAX_DEPTH: usize = 256;
/// The largest extended attribute the kernel has, in bytes.
const MAX_XATTR_BYTES: usize = 64 << 10;

/// One file, folder or link of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Below the listing's start; empty for the start itself.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    /// What a file must still look like when it is copied for its digest to hold.
    pub(crate) stamp: Stamp,
    /// More than one name: the copy should be one file too.
    pub(crate) is_hard_linked: bool,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File {
        digest: Digest,
    },
    Link {
        target: PathBuf,
    },
    /// A fifo or device: the file type's bits and the device number.
    Special {
        file_type: u32,
        device: u64,
    },
}

/// Owner, permission, time and extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Modification time in whole seconds: what a layer's tar holds.
    pub(crate) mtime_s: i64,
    pub(crate) xattrs: BTreeMap<OsString, Vec<u8>>,
}

impl Attributes {
    /// What `--chown` and `--chmod` make of them. A link has no permissions of its own.
    pub(crate) fn changed(&self, owner: Option<(u32, u32)>, chmod: Option<&Chmod>, kind: &Kind) -> Attributes {
        let (uid, gid) = owner.unwrap_or((self.uid, self.gid));
        let mode = match (chmod, kind) {
            (Some(chmod), kind) if !matches!(kind, Kind::Link { .. }) => chmod.apply(self.mode, *kind == Kind::Folder),
            _ => self.mode,
        };
        Attributes { mode, uid, gid, ..self.clone() }
    }
}

/// What changes when a file's bytes change: (device, inode, size, mtime, ctime).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size_bytes: i64,
    pub(crate) mtime: (i64, u64),
    pub(crate) ctime: (i64, u64),
}

impl Stamp {
    #[allow(clippy::useless_conversion)] // The fields' types differ by architecture.
    pub(crate) fn of(stat: &Stat) -> Stamp {
        Stamp {
            device: stat.st_dev,
            inode: stat.st_ino,
            size_bytes: stat.st_size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec.into()),
            ctime: (stat.st_ctime, stat.st_ctime_nsec.into()),
        }
    }
}

/// A listing, folders before what is in them, names in order.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) entries: Vec<Entry>,
}

impl Manifest {
    /// Lists `start` (resolved) and all in it that neither the tree's rules nor `exclude` hide.
    pub(crate) fn of(tree: &Tree, start: &Path, exclude: &IgnoreRules) -> StepResult<Manifest> {
        let node = tree.open(start, OFlags::PATH | OFlags::NOFOLLOW)?;
        let stat = rustix::fs::fstat(&node).map_err(|e| StepError::io("stat", start, e))?;
        let mut walk = Walk { tree, start, exclude, entries: Vec::new(), buffer: vec![0; 128 << 10] };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let folder = tree.open(start, OFlags::RDONLY | OFlags::DIRECTORY)?;
            walk.folder(folder, PathBuf::new(), &stat)?;
        } else {
            let (parent, name) = (start.parent().unwrap_or(Path::new("")), start.file_name().unwrap_or_default());
            let parent = tree.open(parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
            walk.other(parent.as_fd(), Path::new(name), PathBuf::new(), &stat)?;
        }
        Ok(Manifest { entries: walk.entries })
    }

    /// The digest of everything a copy's result depends on: names, types, modes, owners, links, bytes – no times.
    pub(crate) fn digest(&self, owner: Option<(u32, u32)>, chmod: Option<&Chmod>) -> Digest {
        let mut hasher = Hasher::sha256();
        for entry in &self.entries {
            let attributes = entry.attributes.changed(owner, chmod, &entry.kind);
            let mut field = |bytes: &[u8]| {
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            };
            field(entry.path.as_os_str().as_bytes());
            field(format!("{:o} {} {}", attributes.mode, attributes.uid, attributes.gid).as_bytes());
            // A link's target may be any text.
            let special;
            let (kind, value) = match &entry.kind {
                Kind::Folder => ("folder", &b""[..]),
                Kind::File { digest } => ("file", digest.as_str().as_bytes()),
                Kind::Link { target } => ("link", target.as_os_str().as_bytes()),
                Kind::Special { file_type, device } => {
                    special = format!("{file_type:o} {device}");
                    ("special", special.as_bytes())
                }
            };
            field(kind.as_bytes());
            field(value);
            field(&(attributes.xattrs.len() as u64).to_le_bytes());
            for (name, value) in &attributes.xattrs {
                field(name.as_bytes());
                field(value);
            }
        }
        hasher.finish()
    }
}

/// A walk down a tree.
struct Walk<'a> {
    tree: &'a Tree,
    start: &'a Path,
    exclude: &'a IgnoreRules,
    entries: Vec<Entry>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// Lists an open folder and what is in it.
    fn folder(&mut self, folder: OwnedFd, path: PathBuf, stat: &Stat) -> StepResult<()> {
        let depth = path.components().count();
        if depth > MAX_DEPTH {
            return Err(StepError::wrong(format!("{}: folders are nested more than {MAX_DEPTH} deep", path.display())));
        }
        let own = self.entries.len();
        let attributes = self.attributes(stat, xattrs(folder.as_fd(), self.tree.owned_by_root));
        let stamp = Stamp::of(stat);
        self.entries.push(Entry { path: path.clone(), kind: Kind::Folder, attributes, stamp, is_hard_linked: false });
        let names = sorted_names(folder.as_fd()).map_err(|e| StepError::io("read", &path, e))?;
        for name in names {
            let below = path.join(&name);
            let in_tree = self.start.join(&below);
            if self.tree.rules.prunes(&in_tree) || self.exclude.prunes(&below) {
                continue;
            }
            let name = Path::new(&name);
            let Ok(stat) = stat_in(folder.as_fd(), name) else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(&folder, name, flags, rustix::fs::Mode::empty())
                    .map_err(|e| StepError::io("open", &in_tree, e))?;
                self.folder(inner, below, &stat)?;
            } else if !self.tree.rules.ignores(&in_tree) && !self.exclude.ignores(&below) {
                self.other(folder.as_fd(), name, below, &stat)?;
            }
        }
        // An ignored folder is there only for what was re-admitted in it.
        let hidden = !path.as_os_str().is_empty()
            && (self.tree.rules.ignores(&self.start.join(&path)) || self.exclude.ignores(&path));
        if hidden && self.entries.len() == own + 1 {
            self.entries.pop();
        }
        Ok(())
    }

    /// Lists what is no folder. Sockets are left out: they mean nothing without who listens.
    fn other(&mut self, folder: BorrowedFd<'_>, name: &Path, path: PathBuf, stat: &Stat) -> StepResult<()> {
        let shown = || self.start.join(&path);
        let (kind, xattrs) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let (digest, xattrs) = self.file(folder, name, stat).map_err(|e| StepError::io("read", shown(), e))?;
                (Kind::File { digest }, xattrs)
            }
            FileType::Symlink => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let link = rustix::fs::openat(folder, name, flags, rustix::fs::Mode::empty())
                    .map_err(|e| StepError::io("open", shown(), e))?;
                let target = read_link(link.as_fd()).map_err(|e| StepError::io("read the link", shown(), e))?;
                (Kind::Link { target }, BTreeMap::new())
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                (Kind::Special { file_type: stat.st_mode & 0o170_000, device: stat.st_rdev }, BTreeMap::new())
            }
            _ => return Ok(()),
        };
        let attributes = self.attributes(stat, xattrs);
        let is_hard_linked = stat.st_nlink > 1 && matches!(kind, Kind::File { .. });
        self.entries.push(Entry { path, kind, attributes, stamp: Stamp::of(stat), is_hard_linked });
        Ok(())
    }

    /// A file's digest and attributes: read, unless an earlier build read it and it has not changed since.
    fn file(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &Path,
        stat: &Stat,
    ) -> io::Result<(Digest, BTreeMap<OsString, Vec<u8>>)> {
        let known = self.tree.digests.as_ref().and_then(|digests| digests.get(&Stamp::of(stat)));
        if let Some(digest) = known {
            return Ok((digest, BTreeMap::new()));
        }
        let read_at = SystemTime::now();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(folder, name, flags, rustix::fs::Mode::empty())?);
        let opened = rustix::fs::fstat(&file)?;
        let xattrs = xattrs(file.as_fd(), self.tree.owned_by_root);
        if self.tree.is_unhashed {
            return Ok((Digest::sha256([]), xattrs));
        }
        let digest = hash(file, &mut self.buffer)?;
        // The table knows nothing of attributes: a file that has some is read each time.
        if let Some(digests) = self.tree.digests.as_ref().filter(|_| xattrs.is_empty()) {
            digests.put(&Stamp::of(&opened), &digest, read_at);
        }
        Ok((digest, xattrs))
    }

    fn attributes(&self, stat: &Stat, xattrs: BTreeMap<OsString, Vec<u8>>) -> Attributes {
        let (uid, gid) = if self.tree.owned_by_root { (0, 0) } else { (stat.st_uid, stat.st_gid) };
        Attributes { mode: stat.st_mode & 0o7777, uid, gid, mtime_s: stat.st_mtime, xattrs }
    }
}

fn hash(mut file: File, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut hasher = Hasher::sha256();
    loop {
        match file.read(buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// The attributes a copy takes along: the user's own and file capabilities, of a context the user's own alone.
fn xattrs(file: BorrowedFd<'_>, of_context: bool) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; MAX_XATTR_BYTES];
    let Ok(len) = rustix::fs::flistxattr(file, names.as_mut_slice()) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for name in names[..len].split(|&b| b == 0) {
        let wanted = (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
            || (name == b"security.capability" && !of_context);
        let name = std::ffi::OsStr::from_bytes(name);
        let mut value = vec![0; MAX_XATTR_BYTES];
        if wanted && let Ok(len) = rustix::fs::fgetxattr(file, name, value.as_mut_slice()) {
            value.truncate(len);
            found.insert(name.to_owned(), value);
        }
    }
    found
}
