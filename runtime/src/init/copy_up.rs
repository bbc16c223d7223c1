//! `tmpcopyup`: a tmpfs begins with what the image has in the folder below it. All of it relative to open folders, no link followed.

use crate::channel::Failure;
use linux::CallError;
use linux::copy::{Copier, EVERYTHING, Rules};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The deepest nesting copied.
const MAX_DEPTH: usize = 128;

/// Owner, mode and time; a tmpfs may have no extended attributes.
const RULES: Rules<'static> = Rules { keeps: |_| false, ..EVERYTHING };

/// Copies what is in `from` into `to`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Failure> {
    let copied = Copier::new(RULES, to).and_then(|mut copier| copy_folder(&mut copier, from, to, Path::new(""), 0));
    copied.map_err(|e| Failure::set_up(format!("tmpcopyup: {e}")))
}

fn copy_folder(
    copier: &mut Copier<'_>,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    path: &Path,
    depth: usize,
) -> Result<(), CallError> {
    if depth > MAX_DEPTH {
        return Err(CallError::new("tmpcopyup", "", Errno::LOOP));
    }
    let folder = open(from, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let from = folder.as_fd();
    for entry in Dir::read_from(from).map_err(|e| CallError::new("getdents", "", e))? {
        let entry = entry.map_err(|e| CallError::new("getdents", "", e))?;
        let c_name = entry.file_name();
        if matches!(c_name.to_bytes(), b"." | b"..") {
            continue;
        }
        let name = OsStr::from_bytes(c_name.to_bytes());
        let (path, at) = (path.join(name), |call| move |errno| CallError::path(call, name, errno));
        let stat = rustix::fs::statat(from, c_name, AtFlags::SYMLINK_NOFOLLOW).map_err(at("fstatat"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, c_name, Mode::RWXU).map_err(at("mkdirat"))?;
                let made = open(to, c_name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                let inner = open(from, c_name, OFlags::PATH | OFlags::DIRECTORY)?;
                copy_folder(copier, inner.as_fd(), made.as_fd(), &path, depth + 1)?;
                copier.attributes((from, name), (to, name), &stat)?;
            }
            FileType::RegularFile | FileType::Symlink => copier.file((from, name), (to, name), &path, &stat)?,
            // Sockets and devices of an image mean nothing in a tmpfs.
            _ => {}
        }
    }
    Ok(())
}

fn open(folder: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, CallError> {
    rustix::fs::openat(folder, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| CallError::path("openat", OsStr::from_bytes(name.to_bytes()), e))
}
