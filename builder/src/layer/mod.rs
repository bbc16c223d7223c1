//! Writing a layer: files go straight into the upperdir that becomes it, while the layers below say where a
//! path leads and what a folder on the way looks like. Nothing is mounted writable.

mod archive;
mod clamp;
mod merge;
mod unpack;
mod write;

pub(crate) use archive::{head, is_archive, looks_packed};
pub(crate) use clamp::clamp_times;
pub(crate) use merge::merge;
pub(crate) use write::Placement;

use crate::paths::{Found, Lookup, Resolved, resolve};
use crate::step_error::{StepError, StepResult};
use crate::tree::{Attributes, look_up, open_node};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The merged, read-only root of some layers' `fs` folders (lowest first). None where there are none.
pub(crate) fn view(layers: &[PathBuf]) -> StepResult<Option<OwnedFd>> {
    let folders = layers.iter().map(|layer| linux::resolve::open_root(layer)).collect::<Result<Vec<_>, _>>()?;
    Ok(linux::mount::view(folders)?)
}

/// An upperdir being filled.
pub(crate) struct LayerWriter {
    upper: OwnedFd,
    below: Option<OwnedFd>,
    /// Folders whose attributes are set at the end, since what is put into them changes their times.
    folders: BTreeMap<PathBuf, Attributes>,
    /// Where the first name of a hard-linked file went, by (device, inode).
    links: HashMap<(u64, u64), PathBuf>,
    /// The folder written to last: most files have neighbours.
    last_folder: Option<(PathBuf, OwnedFd)>,
    /// What a folder made on the way gets.
    new_folder: Attributes,
    /// No time is later, if set.
    latest_mtime_s: Option<i64>,
    /// A source file changed while it was copied.
    pub(crate) source_changed: bool,
    reflinks: bool,
}

impl Lookup for LayerWriter {
    fn look_up(&self, path: &Path) -> io::Result<Option<Found>> {
        if let Some(found) = look_up(self.upper.as_fd(), path)? {
            return Ok(Some(found));
        }
        self.below.as_ref().map_or(Ok(None), |below| look_up(below.as_fd(), path))
    }
}

impl LayerWriter {
    /// A writer into `upper`, an empty folder, over the merged layers `below`. Folders made on the way have mode 0755,
    /// `owner` and `mtime_s`.
    pub(crate) fn new(
        upper: &Path,
        below: Option<OwnedFd>,
        owner: (u32, u32),
        mtime_s: i64,
        latest_mtime_s: Option<i64>,
    ) -> StepResult<LayerWriter> {
        let upper = linux::resolve::open_root(upper)?;
        let new_folder = Attributes { mode: 0o755, uid: owner.0, gid: owner.1, mtime_s, xattrs: BTreeMap::new() };
        Ok(LayerWriter {
            upper,
            below,
            folders: BTreeMap::new(),
            links: HashMap::new(),
            last_folder: None,
            new_folder,
            latest_mtime_s,
            source_changed: false,
            reflinks: true,
        })
    }

    /// Where `path` leads in the root this layer will be on top of, its last link followed.
    pub(crate) fn resolve(&self, path: &Path) -> StepResult<Resolved> {
        resolve(self, path, true).map_err(|e| StepError::io("resolve", path, e))
    }

    /// Makes a resolved folder path, all of it. What is there already stays as it is.
    pub(crate) fn make_folders(&mut self, path: &Path) -> StepResult<()> {
        self.open_folder(path).map(drop)
    }

    /// Opens a folder of the upper, making it and its parents: like those below where there are such.
    fn open_folder(&mut self, path: &Path) -> StepResult<OwnedFd> {
        if let Some((last, fd)) = &self.last_folder
            && last == path
        {
            return fd.try_clone().map_err(|e| StepError::io("open", path, e));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fail = |done: &Path, e: rustix::io::Errno| StepError::io("make the folder", shown(done), e);
        let mut done = PathBuf::new();
        let mut here = linux::resolve::open_no_links(self.upper.as_fd(), Path::new("."), flags)?;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            done.push(name);
            match rustix::fs::mkdirat(&here, name, Mode::RWXU) {
                Ok(()) => {
                    let attributes = self.attributes_below(&done)?.unwrap_or_else(|| self.new_folder.clone());
                    self.folders.insert(done.clone(), attributes);
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(fail(&done, errno)),
            }
            here = match rustix::fs::openat(&here, name, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Err(not_a_folder(&done)),
                Err(errno) => return Err(fail(&done, errno)),
            };
        }
        let kept = here.try_clone().map_err(|e| StepError::io("open", path, e))?;
        self.last_folder = Some((done, kept));
        Ok(here)
    }

    /// The attributes of the folder at `path` in the layers below; None where there is nothing, an error where there is
    /// something else.
    fn attributes_below(&self, path: &Path) -> StepResult<Option<Attributes>> {
        let Some(below) = &self.below else { return Ok(None) };
        let fail = |e: io::Error| StepError::io("read", shown(path), e);
        let Some(node) = open_node(below.as_fd(), path).map_err(fail)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&node).map_err(|e| fail(e.into()))?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
            return Err(not_a_folder(path));
        }
        Ok(Some(Attributes {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime_s: stat.st_mtime,
            xattrs: BTreeMap::new(),
        }))
    }

    /// Sets the folders' attributes; the upper is done then.
    pub(crate) fn finish(mut self) -> StepResult<bool> {
        self.last_folder = None;
        for (path, attributes) in std::mem::take(&mut self.folders) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let folder = linux::resolve::open_no_links(self.upper.as_fd(), &path, flags)?;
            self.set_attributes(folder.as_fd(), &attributes).map_err(|e| StepError::io("set up", shown(&path), e))?;
        }
        Ok(self.source_changed)
    }

    /// Owner first: a change of owner takes set-user-ID bits and capabilities away.
    fn set_attributes(&self, fd: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
        let (uid, gid) = linux::userns::file_owner(attributes.uid, attributes.gid);
        rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode))?;
        for (name, value) in &attributes.xattrs {
            match rustix::fs::fsetxattr(fd, name.as_os_str(), value, rustix::fs::XattrFlags::empty()) {
                // Not every file system has room for what the source's has.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        rustix::fs::futimens(fd, &self.times(attributes.mtime_s))?;
        Ok(())
    }

    fn times(&self, mtime_s: i64) -> Timestamps {
        let time = Timespec { tv_sec: self.latest_mtime_s.map_or(mtime_s, |latest| mtime_s.min(latest)), tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    }

    /// Makes room for a file: whatever this layer has at `name` goes; a folder, here or below, is not replaced.
    fn make_room(&self, folder: BorrowedFd<'_>, name: &OsStr, path: &Path) -> StepResult<()> {
        let found = self.look_up(path).map_err(|e| StepError::io("look up", shown(path), e))?;
        if found == Some(Found::Folder) {
            let message = format!("cannot replace the directory {:?} with a file", shown(path));
            return Err(StepError::wrong(message));
        }
        match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(StepError::io("replace", shown(path), errno)),
        }
    }
}

fn not_a_folder(path: &Path) -> StepError {
    StepError::wrong(format!("cannot copy to non-directory: {}", shown(path).display()))
}

/// A resolved path as it is called inside the image.
pub(crate) fn shown(path: &Path) -> PathBuf {
    let mut bytes = vec![b'/'];
    bytes.extend_from_slice(path.as_os_str().as_bytes());
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests;
