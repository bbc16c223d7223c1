//! Copying a tree: an image's folder into a new volume, a layer for other owners.

use crate::layer::extract::open_beneath;
use crate::{Result, StoreError};
use linux::copy::{Copier, EVERYTHING, Rules};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, mkdirat, statat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A file of a layer as it is.
pub(crate) const LAYER: Rules<'static> = Rules { forgives: true, ..EVERYTHING };

/// A file of an image as a file of its own: without overlay's marks.
pub(crate) const CONTENT: Rules<'static> = Rules { keeps: crate::layer::extract::is_kept, ..LAYER };

/// Copies all in `from`, and `from`'s own attributes, into the folder `to`.
pub(crate) fn copy_tree(from: BorrowedFd<'_>, to: &Path, rules: Rules<'_>) -> Result<()> {
    let source = open_beneath(from, b".", ResolveFlags::empty()).map_err(StoreError::io("open", "source folder"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(to, flags, Mode::empty()).map_err(StoreError::io("open", to))?;
    let stat = rustix::fs::fstat(&source).map_err(StoreError::io("inspect", "source folder"))?;
    Copy::new(rules, &target, to)?.folder(&source, &target, &stat, Path::new(""))
}

/// A copy under way.
pub(crate) struct Copy<'a> {
    copier: Copier<'a>,
    /// What messages call the folder that all goes into.
    root: PathBuf,
}

impl<'a> Copy<'a> {
    /// For copies to somewhere below `root`.
    pub(crate) fn new(rules: Rules<'a>, root: &OwnedFd, shown: &Path) -> Result<Copy<'a>> {
        let copier = Copier::new(rules, root.as_fd()).map_err(StoreError::io("open", shown))?;
        Ok(Copy { copier, root: shown.to_owned() })
    }

    fn folder(&mut self, from: &OwnedFd, to: &OwnedFd, stat: &Stat, path: &Path) -> Result<()> {
        for name in sorted_names(from).map_err(|e| self.failed("list", path, e))? {
            self.entry((from, &name), (to, &name), &path.join(OsStr::from_bytes(&name)))?;
        }
        let itself = OsStr::new("");
        self.copier
            .attributes((from.as_fd(), itself), (to.as_fd(), itself), stat)
            .map_err(|e| self.failed("set attributes of", path, e))
    }

    /// Copies a file or folder, each given as the folder it is in and its name there, to `path` from the root.
    pub(crate) fn entry(
        &mut self,
        (from, from_bytes): (&OwnedFd, &[u8]),
        (to, bytes): (&OwnedFd, &[u8]),
        path: &Path,
    ) -> Result<()> {
        let (from_name, name) = (OsStr::from_bytes(from_bytes), OsStr::from_bytes(bytes));
        let stat = statat(from, from_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.failed("inspect", path, e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::from_raw_mode(0o700)).map_err(|e| self.failed("create", path, e))?;
                let open = |fd: &OwnedFd, name| open_beneath(fd.as_fd(), name, ResolveFlags::NO_SYMLINKS);
                let source = open(from, from_bytes).map_err(|e| self.failed("open", path, e))?;
                let target = open(to, bytes).map_err(|e| self.failed("open", path, e))?;
                self.folder(&source, &target, &stat, path)
            }
            FileType::Socket => Ok(()),
            _ => self
                .copier
                .file((from.as_fd(), from_name), (to.as_fd(), name), path, &stat)
                .map_err(|e| self.failed("copy", path, e)),
        }
    }

    fn failed(&self, operation: &'static str, path: &Path, error: impl Into<io::Error>) -> StoreError {
        StoreError::io(operation, self.root.join(path))(error)
    }
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
