//! Several layers as one (`--squash`): what is on top replaces what is below it, and what hides goes on hiding the base.

use crate::step_error::{StepError, StepResult};
use crate::tree::{look_up, sorted_names};
use linux::file::{make_node, make_whiteout, set_xattr, xattrs};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The marks of an overlay made by the host's root, and of any other's.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Lays `layers` (their `fs` folders, lowest first) over one another in `upper`, an empty folder. What is gone leaves a
/// mark where `base` has it.
pub(crate) fn merge(base: &[PathBuf], layers: &[PathBuf], upper: &Path) -> StepResult<()> {
    let base = super::view(base)?;
    let to = open(upper).map_err(|e| StepError::io("open", upper, e))?;
    for layer in layers {
        let from = open(layer).map_err(|e| StepError::io("open", layer, e))?;
        let base = base.as_ref().map(AsFd::as_fd);
        let mut merge = Merge { links: HashMap::new(), base, root: to.as_fd(), reflinks: true };
        merge
            .folder(from.as_fd(), to.as_fd(), Path::new(""))
            .map_err(|e| StepError::io("merge the layer", layer, e))?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, FOLDER, Mode::empty())?)
}

/// The merging of one layer.
struct Merge<'a> {
    /// Where the first name of a hard-linked file went, by (device, inode).
    links: HashMap<(u64, u64), PathBuf>,
    base: Option<BorrowedFd<'a>>,
    root: BorrowedFd<'a>,
    reflinks: bool,
}

impl Merge<'_> {
    fn folder(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        for name in sorted_names(from)? {
            let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            self.entry(from, to, &name, &stat, &path.join(&name))?;
        }
        // Last, since what is put into a folder changes its time.
        attributes(from, OsStr::new(""), to, &rustix::fs::fstat(from)?)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        path: &Path,
    ) -> io::Result<()> {
        let below = match rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno.into()),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.inner_folder(from, to, name, below.as_ref(), path);
        }
        if below.is_some() {
            remove(to, name)?;
        }
        if is_whiteout(stat) {
            let hides = self.base.map_or(Ok(None), |base| look_up(base, path))?.is_some();
            return if hides { Ok(make_whiteout(to, name)?) } else { Ok(()) };
        }
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&identity)
        {
            return Ok(rustix::fs::linkat(self.root, first, to, name, AtFlags::empty())?);
        }
        self.make(from, to, name, stat)?;
        attributes(from, name, to, stat)?;
        if stat.st_nlink > 1 {
            self.links.insert(identity, path.to_owned());
        }
        Ok(())
    }

    fn inner_folder(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
        below: Option<&Stat>,
        path: &Path,
    ) -> io::Result<()> {
        let inner = rustix::fs::openat(from, name, FOLDER, Mode::empty())?;
        let is_folder = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let keeps = below.is_some_and(is_folder) && !is_opaque(inner.as_fd())?;
        if below.is_some() && !keeps {
            remove(to, name)?;
        }
        if !keeps {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
        }
        let target = rustix::fs::openat(to, name, FOLDER, Mode::empty())?;
        // What was something else, or gone, in a lower one is not to show through.
        let hides = (below.is_some() && !keeps) || is_opaque(target.as_fd())?;
        self.folder(inner.as_fd(), target.as_fd(), path)?;
        if hides {
            set_xattr(target.as_fd(), OsStr::new(""), OsStr::new(mark()), b"y")?;
        }
        Ok(())
    }

    fn make(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut made = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
                super::data::copy(&mut source, &mut made, u64::try_from(stat.st_size).unwrap_or(0), &mut self.reflinks)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                Ok(rustix::fs::symlinkat(target.as_c_str(), to, name)?)
            }
            kind => {
                let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                Ok(make_node(to, name, kind, stat.st_mode & 0o7777, major, minor)?)
            }
        }
    }
}

/// Owner, mode, attributes and times; with an empty name, of the folders themselves.
fn attributes(from: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match (name.is_empty(), FileType::from_raw_mode(stat.st_mode)) {
        (true, _) => rustix::fs::fchmod(to, mode)?,
        (_, FileType::Symlink) => {}
        _ => rustix::fs::chmodat(to, name, mode, AtFlags::empty())?,
    }
    for (key, value) in xattrs(from, name)? {
        set_xattr(to, name, &key, &value)?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    let modified = time(stat.st_mtime, stat.st_mtime_nsec);
    let times = Timestamps { last_access: modified, last_modification: modified };
    match name.is_empty() {
        true => rustix::fs::futimens(to, &times)?,
        false => rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?,
    }
    Ok(())
}

/// Removes whatever is there.
fn remove(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other?),
    }
    let inner = rustix::fs::openat(folder, name, FOLDER, Mode::empty())?;
    for name in sorted_names(inner.as_fd())? {
        remove(inner.as_fd(), &name)?;
    }
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_opaque(folder: BorrowedFd<'_>) -> io::Result<bool> {
    let is_mark = |key: &OsStr| OPAQUE.iter().any(|mark| key == OsStr::new(mark));
    Ok(xattrs(folder, OsStr::new(""))?.iter().any(|(key, value)| is_mark(key) && value == b"y"))
}

fn mark() -> &'static str {
    if linux::userns::is_initial() { OPAQUE[0] } else { OPAQUE[1] }
}
