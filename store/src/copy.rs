//! Copying a tree: an image's folder into a new volume, a layer for other owners.

use crate::layer::extract::open_beneath;
use crate::{Result, StoreError};
use linux::file;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
    fchown, futimens, mkdirat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How a copy differs from what is copied.
pub(crate) struct Rules<'a> {
    /// The user and group that get what belongs to these.
    pub(crate) owner: &'a dyn Fn(u32, u32) -> (u32, u32),
    /// Which extended attributes come along.
    pub(crate) keeps: fn(&[u8]) -> bool,
}

/// A file of a layer as it is.
pub(crate) const EVERYTHING: Rules<'static> = Rules { owner: &|uid, gid| (uid, gid), keeps: |_| true };

/// A file of an image as a file of its own: without overlay's marks.
pub(crate) const CONTENT: Rules<'static> =
    Rules { owner: &|uid, gid| (uid, gid), keeps: crate::layer::extract::is_kept };

/// Copies all in `from`, and `from`'s own attributes, into the folder `to`.
pub(crate) fn copy_tree(from: BorrowedFd<'_>, to: &Path, rules: &Rules<'_>) -> Result<()> {
    let source = open_beneath(from, b".", ResolveFlags::empty()).map_err(StoreError::io("open", "source folder"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(to, flags, Mode::empty()).map_err(StoreError::io("open", to))?;
    let stat = rustix::fs::fstat(&source).map_err(StoreError::io("inspect", "source folder"))?;
    Copy::new(rules).folder(&source, &target, &stat, to)
}

/// A copy under way.
pub(crate) struct Copy<'a> {
    rules: &'a Rules<'a>,
    /// Where files with several names went first: folder and name.
    links: HashMap<(u64, u64), (OwnedFd, Vec<u8>)>,
}

impl<'a> Copy<'a> {
    pub(crate) fn new(rules: &'a Rules<'a>) -> Copy<'a> {
        Copy { links: HashMap::new(), rules }
    }

    fn folder(&mut self, from: &OwnedFd, to: &OwnedFd, stat: &Stat, shown: &Path) -> Result<()> {
        for name in sorted_names(from).map_err(StoreError::io("list", shown))? {
            self.entry((from, &name), (to, &name), &shown.join(OsStr::from_bytes(&name)))?;
        }
        let failed = |e: Errno| StoreError::io("set attributes of", shown)(e);
        let (uid, gid) = self.owner(stat);
        // Before the attributes: a change of owner takes capabilities away.
        fchown(to, Some(uid), Some(gid)).map_err(failed)?;
        self.xattrs((from.as_fd(), OsStr::new("")), (to.as_fd(), OsStr::new("")), shown)?;
        fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(failed)?;
        futimens(to, &times(stat)).map_err(failed)
    }

    /// Copies a file or folder, each given as the folder it is in and its name there.
    pub(crate) fn entry(
        &mut self,
        (from, from_bytes): (&OwnedFd, &[u8]),
        (to, bytes): (&OwnedFd, &[u8]),
        shown: &PathBuf,
    ) -> Result<()> {
        let (from_name, name) = (OsStr::from_bytes(from_bytes), OsStr::from_bytes(bytes));
        let stat = statat(from, from_name, AtFlags::SYMLINK_NOFOLLOW).map_err(StoreError::io("inspect", shown))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some((folder, first)) = self.links.get(&id) {
                return file::hard_link(folder.as_fd(), OsStr::from_bytes(first), to.as_fd(), name)
                    .map_err(StoreError::io("create", shown));
            }
            let folder = to.try_clone().map_err(StoreError::io("open", shown))?;
            self.links.insert(id, (folder, bytes.to_vec()));
        }
        match kind {
            FileType::Directory => {
                mkdirat(to, name, Mode::from_raw_mode(0o700)).map_err(StoreError::io("create", shown))?;
                let open = |fd: &OwnedFd, name| open_beneath(fd.as_fd(), name, ResolveFlags::NO_SYMLINKS);
                let source = open(from, from_bytes).map_err(StoreError::io("open", shown))?;
                let target = open(to, bytes).map_err(StoreError::io("open", shown))?;
                return self.folder(&source, &target, &stat, shown);
            }
            FileType::RegularFile => {
                let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = openat(from, from_name, flags | OFlags::RDONLY, Mode::empty())
                    .map_err(StoreError::io("open", shown))?;
                let new = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let target =
                    openat(to, name, new, Mode::from_raw_mode(0o600)).map_err(StoreError::io("create", shown))?;
                let length = u64::try_from(stat.st_size).unwrap_or(0);
                file::copy_contents(&File::from(source), &File::from(target), length)
                    .map_err(StoreError::io("copy", shown))?;
            }
            FileType::Symlink => {
                let target = readlinkat(from, from_name, Vec::new()).map_err(StoreError::io("read link", shown))?;
                symlinkat(target, to, name).map_err(StoreError::io("create", shown))?;
            }
            FileType::Socket => return Ok(()),
            _ => {
                let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                file::make_node(to.as_fd(), name, kind, 0o600, major, minor)
                    .map_err(StoreError::io("create", shown))?;
            }
        }
        let failed = |e: Errno| StoreError::io("set attributes of", shown)(e);
        let (uid, gid) = self.owner(&stat);
        chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if kind != FileType::Symlink {
            chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty()).map_err(failed)?;
        }
        self.xattrs((from.as_fd(), from_name), (to.as_fd(), name), shown)?;
        utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    fn owner(&self, stat: &Stat) -> (Uid, Gid) {
        let (uid, gid) = (self.rules.owner)(stat.st_uid, stat.st_gid);
        (Uid::from_raw(uid), Gid::from_raw(gid))
    }

    fn xattrs(
        &self,
        (from, from_name): (BorrowedFd<'_>, &OsStr),
        (to, name): (BorrowedFd<'_>, &OsStr),
        shown: &Path,
    ) -> Result<()> {
        let failed = |e: linux::CallError| StoreError::io("copy attributes of", shown)(e);
        for (key, value) in file::xattrs(from, from_name).map_err(failed)? {
            if !(self.rules.keeps)(key.as_bytes()) {
                continue;
            }
            match file::set_xattr(to, name, &key, &value) {
                Err(e) if matches!(e.errno, Errno::OPNOTSUPP | Errno::PERM) => {}
                other => other.map_err(failed)?,
            }
        }
        Ok(())
    }
}

fn times(stat: &Stat) -> Timestamps {
    let access = Timespec { tv_sec: stat.st_atime, tv_nsec: i64::try_from(stat.st_atime_nsec).unwrap_or(0) };
    let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    Timestamps { last_access: access, last_modification: modified }
}

/// A folder's names in byte order.
fn sorted_names(dir: &OwnedFd) -> std::result::Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}
