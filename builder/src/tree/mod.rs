//! What COPY reads from: the context, or a stage's or image's files. Every access goes by descriptor and beneath the
//! tree's root; a link never leads out of it.

mod digests;
mod manifest;
mod select;

pub(crate) use digests::DigestTable;
pub(crate) use manifest::{Attributes, Entry, Kind, Manifest, Stamp};
pub(crate) use select::Selected;

use crate::ignore::IgnoreRules;
use crate::paths::{Found, Lookup, Resolved, resolve};
use crate::step_error::{StepError, StepResult};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A tree of files to copy from.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// What of it is not to be seen.
    rules: IgnoreRules,
    /// The host's owners and times of folders mean nothing in an image: files of a context belong to root.
    owned_by_root: bool,
    /// Digests that earlier builds found.
    digests: Option<DigestTable>,
    /// How messages call it: `build context`, `stage build`.
    label: String,
    /// Listings of it have no digests.
    is_unhashed: bool,
    /// Where a context lies on the host.
    host: Option<PathBuf>,
}

impl Tree {
    /// The build's context, as its ignore file shows it.
    pub(crate) fn context(folder: &Path, rules: IgnoreRules) -> StepResult<Tree> {
        let root = linux::resolve::open_root(folder).map_err(|e| StepError::io("open", folder, e))?;
        let host = std::fs::canonicalize(folder).ok();
        Ok(Tree {
            root,
            rules,
            owned_by_root: true,
            digests: None,
            label: "build context".to_owned(),
            is_unhashed: false,
            host,
        })
    }

    /// The same for who copies all of it anyway: listings read no file.
    pub(crate) fn unhashed(self) -> Tree {
        Tree { is_unhashed: true, ..self }
    }

    /// The same by another name in messages.
    pub(crate) fn labelled(self, label: String) -> Tree {
        Tree { label, ..self }
    }

    /// The host's path of a resolved path, where the tree is a whole folder of the host's.
    pub(crate) fn host_path(&self, path: &Path) -> Option<PathBuf> {
        let host = self.host.as_ref().filter(|_| self.rules.is_empty())?;
        Some(if path.as_os_str().is_empty() { host.clone() } else { host.join(path) })
    }

    /// The same with the digests earlier builds of it left.
    pub(crate) fn with_digests(self, digests: DigestTable) -> Tree {
        Tree { digests: Some(digests), ..self }
    }

    /// Keeps what was read for later builds.
    pub(crate) fn save_digests(&self) {
        if let Some(digests) = &self.digests {
            digests.save();
        }
    }

    /// The root of a stage or an image.
    pub(crate) fn of_root(root: OwnedFd, label: String) -> Tree {
        Tree {
            root,
            rules: IgnoreRules::default(),
            owned_by_root: false,
            digests: None,
            label,
            is_unhashed: false,
            host: None,
        }
    }

    /// Follows `path` to what it names.
    pub(crate) fn resolve(&self, path: &Path) -> StepResult<Resolved> {
        resolve(self, path, true).map_err(|e| StepError::io("resolve", path, e))
    }

    /// Opens a resolved path; none of its components may have become a link meanwhile.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> StepResult<OwnedFd> {
        linux::resolve::open_no_links(self.root.as_fd(), path, flags).map_err(|e| StepError::io("open", path, e))
    }
}

impl Lookup for Tree {
    fn look_up(&self, path: &Path) -> io::Result<Option<Found>> {
        look_up(self.root.as_fd(), path)
    }
}

/// What stands at `path` beneath `root`, links not followed.
pub(crate) fn look_up(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Found>> {
    let Some(fd) = open_node(root, path)? else { return Ok(None) };
    let stat = rustix::fs::fstat(&fd)?;
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Found::Folder,
        FileType::Symlink => Found::Link(read_link(fd.as_fd())?),
        _ => Found::Other,
    }))
}

/// The node at `path` itself, by O_PATH; None where there is none.
pub(crate) fn open_node(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match linux::resolve::open_no_links(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The target of the link a descriptor stands on.
pub(crate) fn read_link(link: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let text = rustix::fs::readlinkat(link, "", Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(text.into_bytes())))
}

/// The names in an open folder, sorted by their bytes.
pub(crate) fn sorted_names(folder: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// The attributes of a name in an open folder, links not followed.
pub(crate) fn stat_in(folder: BorrowedFd<'_>, name: &Path) -> io::Result<Stat> {
    Ok(rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?)
}
