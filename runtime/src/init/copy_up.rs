//! `tmpcopyup`: a tmpfs begins with what the image has in the folder below it. All of it relative to open folders, no link followed.

use crate::channel::Failure;
use linux::{CallError, file};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The deepest nesting copied.
const MAX_DEPTH: usize = 128;

/// Copies what is in `from` into `to`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Failure> {
    copy_folder(from, to, 0).map_err(|e| Failure::set_up(format!("tmpcopyup: {e}")))
}

fn copy_folder(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<(), CallError> {
    if depth > MAX_DEPTH {
        return Err(CallError::new("tmpcopyup", "", Errno::LOOP));
    }
    let folder = open(from, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let entries = Dir::read_from(&folder).map_err(|e| CallError::new("getdents", "", e))?;
    for entry in entries {
        let entry = entry.map_err(|e| CallError::new("getdents", "", e))?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            copy_one(folder.as_fd(), to, name, depth)?;
        }
    }
    Ok(())
}

fn copy_one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), CallError> {
    let at = |call| move |errno| CallError::new(call, name.to_string_lossy(), errno);
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at("fstatat"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU).map_err(at("mkdirat"))?;
            let made = open(to, name, OFlags::PATH | OFlags::DIRECTORY)?;
            copy_folder(open(from, name, OFlags::PATH | OFlags::DIRECTORY)?.as_fd(), made.as_fd(), depth + 1)?;
        }
        FileType::RegularFile => {
            let source = File::from(open(from, name, OFlags::RDONLY | OFlags::NONBLOCK)?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, Mode::RWXU).map_err(at("openat"))?;
            file::copy_contents(&source, &File::from(target), u64::try_from(stat.st_size).unwrap_or(0))?;
        }
        FileType::Symlink => {
            let text = rustix::fs::readlinkat(from, name, Vec::new()).map_err(at("readlinkat"))?;
            rustix::fs::symlinkat(&text, to, name).map_err(at("symlinkat"))?;
        }
        // Sockets and devices of an image mean nothing in a tmpfs.
        _ => return Ok(()),
    }
    take_over(to, name, &stat)
}

/// Owner, mode and time.
fn take_over(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), CallError> {
    let at = |call| move |errno| CallError::new(call, name.to_string_lossy(), errno);
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(at("fchownat"))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Ok(());
    }
    // It was just made here, as a file or folder.
    rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())
        .map_err(at("fchmodat"))?;
    let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: modified };
    rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(at("utimensat"))
}

fn open(folder: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, CallError> {
    rustix::fs::openat(folder, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| CallError::path("openat", OsStr::from_bytes(name.to_bytes()), e))
}
