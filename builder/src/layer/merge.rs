//! Several layers as one (`--squash`): what is on top replaces what is below it, and what hides goes on hiding the base.

use crate::step_error::{StepError, StepResult};
use crate::tree::{look_up, sorted_names};
use linux::copy::{Copier, EVERYTHING};
use linux::file::{make_whiteout, set_xattr, xattrs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
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
        let failed = |e| StepError::io("merge the layer", layer, e);
        let copier = Copier::new(EVERYTHING, to.as_fd()).map_err(|e| failed(e.into()))?;
        let mut merge = Merge { copier, base: base.as_ref().map(AsFd::as_fd) };
        merge.folder(from.as_fd(), to.as_fd(), Path::new("")).map_err(failed)?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, FOLDER, Mode::empty())?)
}

/// The merging of one layer.
struct Merge<'a> {
    copier: Copier<'a>,
    base: Option<BorrowedFd<'a>>,
}

impl Merge<'_> {
    fn folder(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        for name in sorted_names(from)? {
            let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            self.entry(from, to, &name, &stat, &path.join(&name))?;
        }
        let itself = OsStr::new("");
        Ok(self.copier.attributes((from, itself), (to, itself), &rustix::fs::fstat(from)?)?)
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
        Ok(self.copier.file((from, name), (to, name), path, stat)?)
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
